"""Choose detection thresholds on a selection set, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pmam_plugin.evaluation.metrics import aligned


def tune_thresholds(
    scores: Mapping[str, pd.DataFrame],
    events: pd.DataFrame,
    durations: Mapping[str, float],
    labels: Sequence[str],
    default: float = 0.5,
) -> dict[str, float]:
    """The threshold of the highest event F1 (200 ms, 20 %) for every class.

    Use a set that is not the one reported on. A class that no threshold detects keeps ``default``.

    Args:
        scores: post-processed table of every clip.
        events: ground truth.
        durations: seconds of every clip.
        labels: the classes.
        default: for classes that cannot be tuned.
    """
    from sed_scores_eval import collar_based

    tables, _ = aligned(scores, events, durations, labels)
    truth: dict[str, list[tuple[float, float, str]]] = {clip: [] for clip in tables}
    for row in events.dropna(subset=["event_label"]).itertuples(index=False):
        if row.filename in truth and row.event_label in labels:
            truth[row.filename].append((float(row.onset), float(row.offset), str(row.event_label)))
    best, *_, thresholds, _ = collar_based.best_fscore(
        scores=tables,
        ground_truth={clip: sorted(rows) for clip, rows in truth.items()},
        onset_collar=0.2,
        offset_collar=0.2,
        offset_collar_rate=0.2,
    )
    return {
        label: float(thresholds[label]) if best[label] > 0 and np.isfinite(thresholds[label]) else default
        for label in labels
    }
