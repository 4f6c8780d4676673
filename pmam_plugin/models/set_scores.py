"""From a set of boxes to scores and events: tag fusion, de-overlapping, and tables that PSDS can be computed from.

Every (query, class) pair is a candidate event: an interval with a score that fuses the query's class probability
with the clip's tag probability. Three forms leave this module. :func:`score_rows` keeps, per class, disjoint boxes
and writes them between change points, so that thresholding the table at any value returns exactly the boxes above
it, and collar-based F1 and PSDS see whole events. :func:`dense_scores` paints all boxes on a regular frame grid, which
is what fusion with frame-based models and mean teachers need. :func:`decode_events` lists events at one threshold, by
the protocol behind SEDT's published F1 scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pmam_plugin.nn.intervals import box_edges
from pmam_plugin.postprocessing.rows import ScoreRows

if TYPE_CHECKING:
    import pandas as pd

# Touching events of one class would be read as one; this much silence keeps them apart, s.
_GAP = 1e-3
# Scores below this are no event at any threshold anybody sets.
_NEGLIGIBLE = 1e-3


def fuse_tags(probabilities: Tensor, tags: Tensor) -> Tensor:
    """Score of every candidate from its class probability ``p`` and the clip's tag probability ``at``: ``sqrt(p at)``.

    That is the ranking of the product, on a scale where 0.5 still is a fair threshold.

    Args:
        probabilities: ``(batch, queries, classes)``.
        tags: ``(batch, classes)``.
    """
    # The tiny floor keeps the gradient of the root finite where a probability underflows to 0.
    return (probabilities * tags.unsqueeze(1)).clamp_min(torch.finfo(probabilities.dtype).tiny).sqrt()


def dense_scores(scores: Tensor, edges: Tensor, frames: int, frame_rate: float) -> Tensor:
    """Paint scores on a frame grid: a frame's score is the largest one among the boxes that cover its middle, else 0.

    The gradient reaches the winning score, not the edges.

    Args:
        scores: ``(batch, queries, classes)``.
        edges: onset and offset of each query, s, ``(batch, queries, 2)``.
        frames: number of frames.
        frame_rate: frames per second.

    Returns:
        ``(batch, frames, classes)``.
    """
    middles = (torch.arange(frames, device=scores.device) + 0.5) / frame_rate
    inside = (edges[..., :1] <= middles) & (middles < edges[..., 1:])
    with torch.no_grad():
        best = scores.new_full((len(scores), frames, scores.shape[-1]), -1.0)
        winner = torch.zeros(best.shape, dtype=torch.long, device=scores.device)
        for query in range(scores.shape[1]):
            candidate = torch.where(inside[:, query, :, None], scores[:, query, None, :], -1.0)
            better = candidate > best
            best = torch.where(better, candidate, best)
            winner = torch.where(better, query, winner)
    return torch.where(best >= 0, scores.gather(1, winner), 0.0)


def disjoint_boxes(
    edges: np.ndarray, scores: np.ndarray, minimum_seconds: float = 0.2
) -> list[tuple[float, float, float]]:
    """Greedy suppression of one class's boxes, best score first.

    A box that overlaps a kept one is dropped. Boxes that merely touch are moved apart by a millisecond.

    Args:
        edges: onset and offset, s, ``(boxes, 2)``.
        scores: ``(boxes,)``; ties go to the earlier row.
        minimum_seconds: shorter boxes are dropped.

    Returns:
        ``(onset, offset, score)`` by falling score; no two overlap or touch.
    """
    kept: list[tuple[float, float, float]] = []
    for row in np.argsort(-scores, kind="stable"):
        onset, offset = edges[row]
        if any(min(offset, end) > max(onset, begin) for begin, end, _ in kept):
            continue
        onset = max([onset, *(end + _GAP for _, end, _ in kept if end <= onset)])
        offset = min([offset, *(begin - _GAP for begin, _, _ in kept if begin >= offset)])
        if offset - onset >= minimum_seconds:
            kept.append((float(onset), float(offset), float(scores[row])))
    return kept


def score_rows(
    scores: np.ndarray,
    edges: np.ndarray,
    duration: float,
    labels: Sequence[str],
    minimum_seconds: float = 0.2,
) -> ScoreRows:
    """One clip's candidates as the rows of a scores table, one between any two change points.

    Boxes are cut to the clip, those shorter than ``minimum_seconds`` or scored below 0.001 are dropped, and
    overlaps within a class are resolved by :func:`disjoint_boxes`. A cell holds the score of the box that covers the
    row, or minus infinity: no threshold fires there, whereas a 0 would define an operating point at which the class
    is active in the whole clip.

    Args:
        scores: fused scores, ``(queries, classes)``.
        edges: onset and offset of each query, s, ``(queries, 2)``.
        duration: clip length, s.
        labels: class names.
        minimum_seconds: see :func:`disjoint_boxes`.
    """
    edges = np.clip(edges.astype(np.float64), 0.0, duration)
    long_enough = edges[:, 1] - edges[:, 0] >= minimum_seconds
    boxes = []
    for index in range(len(labels)):
        rows = np.flatnonzero(long_enough & (scores[:, index] >= _NEGLIGIBLE))
        kept = disjoint_boxes(edges[rows], scores[rows, index], minimum_seconds)
        # Rounding first and looking the same numbers up again leaves no row of zero length.
        boxes += [(index, *np.round(box[:2], 6).clip(0, duration), box[2]) for box in kept]
    borders = np.unique([0.0, duration, *(edge for box in boxes for edge in box[1:3])])
    values = np.full((len(borders) - 1, len(labels)), -np.inf)
    for index, onset, offset, score in boxes:
        values[np.searchsorted(borders, onset) : np.searchsorted(borders, offset), index] = score
    return ScoreRows(values, borders[:-1], borders[1:], labels)


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
