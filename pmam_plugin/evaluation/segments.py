"""Segment-based figures that need no threshold (DCASE 2023 task 4 B and 2024 task 4): partial AUC and the best F1.

A segment of 1 s has the highest score of the frames that it touches, and is active where an event of the class touches
it; both are taken by sed_scores_eval. From there to the figures it is one step, written here in numpy because the
bootstrap repeats it with other clip weights; tests hold it to sed_scores_eval's ``auroc`` and ``best_fscore``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pmam_plugin.errors import InputError
from pmam_plugin.evaluation.counts import SEGMENT_SECONDS
from pmam_plugin.evaluation.reference import Reference

MAX_RATE = 0.1
"""False positive rate up to which the area is taken, as a share of the segments without the class."""


@dataclass(frozen=True, eq=False)
class Segments:
    """All segments in which one class is judged, by falling score.

    Attributes:
        clip: index of the clip, ``(segments,)``.
        active: whether the class sounds in it, ``(segments,)``.
        last: positions of the last segment of every distinct score that a threshold can fall below (-inf means: never).
    """

    clip: np.ndarray
    active: np.ndarray
    last: np.ndarray

    def figures(self, weight: np.ndarray) -> tuple[float, float]:
        """Partial AUC and best F1, in [0, 1], with every clip counted so many times; NaN if no segment is active.

        A class that sounds in every segment cannot be found where it is not: its rate of false positives is 0.
        """
        drawn = weight[self.clip]
        present, absent = drawn * self.active, drawn * ~self.active
        if not present.any():
            return np.nan, np.nan
        found, wrong = np.cumsum(present)[self.last], np.cumsum(absent)[self.last]
        rate = np.minimum(wrong / max(absent.sum(), 1), MAX_RATE)
        area = found @ np.diff(np.append(rate, MAX_RATE)) / present.sum() / MAX_RATE
        return min(float(area), 1.0), float((2 * found / (found + wrong + present.sum())).max(initial=0.0))


def segments_of(tables: Mapping[str, pd.DataFrame], united: Reference) -> list[Segments]:
    """The segments of every class.

    Args:
        tables: scores by the clips of ``united``, with a column for each of its classes.
        united: ground truth (:meth:`~pmam_plugin.evaluation.reference.Reference.for_intersection`).

    Raises:
        InputError: sed_scores_eval is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependency dcase_util imports pkg_resources
            from sed_scores_eval.segment_based.intermediate_statistics import intermediate_statistics_deltas
    except ImportError as error:
        raise InputError(f"mpAUC needs sed_scores_eval ({error}); pip install 'pmam-plugin[eval]'") from error
    deltas = intermediate_statistics_deltas(
        {clip: tables[clip][["onset", "offset", *united.labels]] for clip in united.clips},
        _truth_lists(united),
        dict(zip(united.clips, united.durations.tolist())),
        segment_length=SEGMENT_SECONDS,
    )
    found = []
    for number, label in enumerate(united.labels):
        clips = [index for index, judged in enumerate(united.judged[:, number]) if judged]
        scores = [deltas[united.clips[index]][label][0] for index in clips]
        score = np.concatenate(scores)
        active = np.concatenate([deltas[united.clips[index]][label][1]["tps"] for index in clips])
        clip = np.repeat(clips, [len(part) for part in scores])
        order = np.argsort(-score, kind="stable")
        last = np.unique(-score[score > -np.inf], return_counts=True)[1].cumsum() - 1
        found.append(Segments(clip[order], active[order].astype(bool), last))
    return found


def segment_figures(segments: list[Segments], weights: np.ndarray) -> np.ndarray:
    """Partial AUC and best F1 of every class for every row of ``weights`` ``(resamples, clips)``.

    Returns:
        ``(2, resamples, classes)``; NaN for a class without an active segment in a resample.
    """
    values = [[part.figures(weight) for part in segments] for weight in weights.astype(np.float64)]
    return np.moveaxis(np.reshape(values, (len(weights), len(segments), 2)), -1, 0)


def _truth_lists(reference: Reference) -> dict[str, list[tuple[float, float, str]]]:
    """Ground truth in sed_scores_eval's form: ``(onset, offset, class)`` by clip."""
    truth: dict[str, list[tuple[float, float, str]]] = {clip: [] for clip in reference.clips}
    events = reference.events
    for clip, label, onset, offset in zip(events.clip, events.label, events.onset.tolist(), events.offset.tolist()):
        truth[reference.clips[clip]].append((onset, offset, reference.labels[label]))
    return truth
