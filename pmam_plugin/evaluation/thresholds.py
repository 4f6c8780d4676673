"""Choose detection thresholds on a selection set, class by class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from pmam_plugin.errors import InputError
from pmam_plugin.evaluation.counts import COLLAR_SECONDS, OFFSET_SHARE
from pmam_plugin.evaluation.metrics import aligned
from pmam_plugin.evaluation.psds import truth_lists


def tune_thresholds(
    scores: Mapping[str, pd.DataFrame],
    events: pd.DataFrame,
    durations: Mapping[str, float],
    labels: Sequence[str],
    default: float = 0.5,
    measure: Literal["event", "clip"] = "event",
) -> dict[str, float]:
    """The threshold of the highest F1 for every class, found exactly by sed_scores_eval.

    Use a set that is not the one reported on.

    Args:
        scores: post-processed table of every clip; for the clip F1, one row per clip with its clip scores.
        events: ground truth.
        durations: seconds of every clip.
        labels: the classes.
        default: for a class that the ground truth lacks or that no threshold detects.
        measure: F1 of events (200 ms, 20 %), or of classes present in a clip.

    Raises:
        InputError: a set that cannot be evaluated (:func:`pmam_plugin.evaluation.evaluate_scores`), or
            sed_scores_eval is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependency dcase_util imports pkg_resources
            from sed_scores_eval import clip_based, collar_based
    except ImportError as error:
        raise InputError(f"tuning needs sed_scores_eval ({error}); pip install 'pmam-plugin[eval]'") from error
    tables, reference = aligned(scores, events, durations, labels)
    united = reference.for_intersection()
    chosen = dict.fromkeys(reference.labels, float(default))
    for label in united.labels:
        columns = {clip: table[["onset", "offset", label]] for clip, table in tables.items()}
        if all(np.isneginf(table[label]).all() for table in columns.values()):
            continue  # no threshold detects anything
        truth = {clip: [row for row in rows if row[2] == label] for clip, rows in truth_lists(united).items()}
        if measure == "clip":
            best, *_, thresholds, _ = clip_based.best_fscore(
                columns, {clip: [label][: len(rows)] for clip, rows in truth.items()}
            )
        else:
            best, *_, thresholds, _ = collar_based.best_fscore(
                columns,
                truth,
                onset_collar=COLLAR_SECONDS,
                offset_collar=COLLAR_SECONDS,
                offset_collar_rate=OFFSET_SHARE,
            )
        if best[label] > 0:
            lowest = pd.concat([table[label] for table in columns.values()]).replace(-np.inf, np.inf).min()
            # Where it is best to detect everything, sed_scores_eval's threshold is -inf.
            chosen[label] = float(max(thresholds[label], np.nextafter(lowest, -np.inf)))
    return chosen
