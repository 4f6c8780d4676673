"""From a set of boxes to an event list at one threshold: the protocol behind published F1 scores of SEDT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from pmam_plugin.losses.intervals import box_edges

if TYPE_CHECKING:
    import pandas as pd


def decode_events(
    probabilities: Tensor,
    boxes: Tensor,
    labels: Sequence[str],
    tags: Tensor | None = None,
    threshold: float = 0.5,
    minimum_seconds: float = 0.2,
    span_seconds: float = 10.0,
    durations: Sequence[float] | None = None,
) -> list[pd.DataFrame]:
    """Events of every clip at one threshold.

    Each query speaks for its most probable class among those that the clip is tagged with. It counts if that reaches
    the threshold (inclusive, unlike in sed_scores_eval) and the box is long enough. Overlaps within a class are then
    resolved as the reference does, comparing only neighbours in order of onset: a chain of rising scores loses events
    that overlap nothing that is kept.

    Args:
        probabilities: class probabilities, ``(batch, queries, classes)``.
        boxes: (centre, length) as fractions of the span, ``(batch, queries, 2)``.
        labels: class names.
        tags: true where a clip has a class, ``(batch, classes)``; None gates nothing.
        threshold: smallest score of an event.
        minimum_seconds: shortest event, measured before cutting to the clip, as the reference does.
        span_seconds: what 1.0 of a box stands for.
        durations: clip lengths, s; None leaves events uncut.

    Returns:
        Per clip a table ``onset, offset, event_label, score``.
    """
    import pandas as pd

    if tags is not None:
        probabilities = probabilities * tags.bool().unsqueeze(1)
    score, label = (item.cpu().numpy() for item in probabilities.detach().float().max(dim=-1))
    edges = (box_edges(boxes.detach().double()) * span_seconds).cpu().numpy()
    tables = []
    for clip in range(len(score)):
        wanted = (score[clip] >= threshold) & (edges[clip, :, 1] - edges[clip, :, 0] >= minimum_seconds)
        rows = []
        for index in np.unique(label[clip][wanted]):
            chosen = wanted & (label[clip] == index)
            kept = _resolve_neighbours(edges[clip][chosen], score[clip][chosen])
            rows += [(onset, offset, labels[index], value) for onset, offset, value in kept]
        table = pd.DataFrame(rows, columns=["onset", "offset", "event_label", "score"])
        table = table.astype({"onset": float, "offset": float, "event_label": object, "score": float})
        if durations is not None:
            table[["onset", "offset"]] = table[["onset", "offset"]].clip(0.0, durations[clip])
            table = table[table["offset"] > table["onset"]]
        tables.append(table.sort_values("onset", ignore_index=True))
    return tables


def _resolve_neighbours(edges: np.ndarray, scores: np.ndarray) -> list[tuple[float, float, float]]:
    order = np.argsort(edges[:, 0], kind="stable")
    kept = [order[0]]
    for row in order[1:]:
        if edges[row, 0] >= edges[kept[-1], 1]:
            kept.append(row)
        elif scores[row] > scores[kept[-1]]:
            kept[-1] = row
    return [(float(edges[row, 0]), float(edges[row, 1]), float(scores[row])) for row in kept]
