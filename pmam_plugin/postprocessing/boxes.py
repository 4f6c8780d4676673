"""Sound event bounding boxes from frame scores by change detection (cSEBBs; Ebbers et al., Interspeech 2024).

A threshold on frame scores decides twice at once: whether there is an event, and where it ends, so a lower threshold
also makes events longer. Bounding boxes separate the two: where scores step up and down sets onset and offset, for
good, and the mean score in between is the confidence that a threshold then applies to. Written from the paper's
description (arXiv 2406.04212).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pmam_plugin.config import configurable
from pmam_plugin.errors import InputError
from pmam_plugin.postprocessing.per_class import PerClass, per_class, values_of
from pmam_plugin.postprocessing.rows import ScoreRows

_SMOOTHING = 1e-3  # added to both scores of a ratio, so that near silence is not cut up by ratios of nothing
_DECIMALS = 9  # filter responses are sums of many scores: equal ones should compare equal


@configurable
class SoundEventBoxes:
    """Turn a scores table into boxes: one constant score per event, ``-inf`` elsewhere.

    A step filter (mean of the next half minus mean of the last half of its length) runs over the scores of a class; its
    maxima are onsets and its minima offsets, where these are flat at the end that makes the box longer. Candidates on
    both sides of a gap become one when, seen from either, the score in the gap stays close to the highest score in the
    candidate. Every gap is judged once, by the candidates next to it, whatever becomes of their other gaps.

    Edges stand on rows of the table; the published implementation also finds edges inside a frame where half the
    filter is no whole number of frames.

    ``-inf`` means "not detected at any threshold" to sed_scores_eval, whereas 0 would be one more operating point, at
    which a class is active throughout every clip.

    Args:
        filter_seconds: length of the step filter.
        absolute_threshold: a gap closes only if the highest score of both candidates less the lowest score of the gap
            is below this; None for no such limit.
        relative_threshold: likewise for their ratio, 0.001 added to both; None for no such limit.

    Each is one number for all classes, or one per class. The defaults are the paper's untuned ones.

    Raises:
        InputError: a filter without length or a limit that closes no gap.
    """

    def __init__(
        self,
        filter_seconds: PerClass = 0.5,
        absolute_threshold: PerClass | Mapping[str, float | None] | None = 1.0,
        relative_threshold: PerClass | Mapping[str, float | None] | None = 2.0,
    ) -> None:
        self.filter_seconds = filter_seconds
        self.absolute_threshold = absolute_threshold
        self.relative_threshold = relative_threshold
        for name, value in (("filter_seconds", filter_seconds), ("absolute_threshold", absolute_threshold)):
            if any(item is not None and not item > 0 for item in values_of(value)):
                raise InputError(f"SoundEventBoxes: {name} must be greater than 0")
        if any(item is not None and not item >= 1 for item in values_of(relative_threshold)):
            raise InputError("SoundEventBoxes: relative_threshold is a ratio and must be 1 or more")

    def __call__(self, rows: ScoreRows) -> ScoreRows:
        """Boxes of one clip, on the rows of its scores.

        Raises:
            InputError: a per-class setting lacks a class of the rows.
            ValueError: scores are infinite, so their events are boxes already.
        """
        labels = rows.labels
        found = candidates([rows], labels, per_class(self.filter_seconds, labels, "filter_seconds"))
        absolute = per_class(self.absolute_threshold, labels, "absolute_threshold")
        boxes = merge(found, absolute, per_class(self.relative_threshold, labels, "relative_threshold"))
        scores = np.full((len(labels), len(rows.onset)), -np.inf)
        for label, start, stop, confidence in zip(boxes.column, boxes.start, boxes.stop, boxes.confidence):
            scores[label, start:stop] = confidence
        return ScoreRows(scores.T, rows.onset, rows.offset, labels)


@dataclass(frozen=True, eq=False)
class Boxes:
    """Candidate events of many columns (clip and class), in order of column and time.

    Attributes:
        column: ``clip * classes + class`` of each box, ``(boxes,)``.
        start: first frame; ``stop``: the frame after the last.
        onset: seconds; ``offset``: seconds.
        area: sum of score times seconds in the box.
        peak: highest score in the box.
        gap_valley: lowest score between this box and the next of its column, ``-inf`` for the last.
        gap_area: sum of score times seconds there.
    """

    column: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    onset: np.ndarray
    offset: np.ndarray
    area: np.ndarray
    peak: np.ndarray
    gap_valley: np.ndarray
    gap_area: np.ndarray

    @property
    def confidence(self) -> np.ndarray:
        """Mean score of each box, every frame weighed by its length."""
        return self.area / (self.offset - self.onset)

    @classmethod
    def joined(cls, parts: Sequence[Boxes]) -> Boxes:
        """Boxes of several column sets, put in order."""
        names = list(cls.__dataclass_fields__)
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        order = np.lexsort((arrays["start"], arrays["column"]))
        return cls(**{name: array[order] for name, array in arrays.items()})


def candidates(clips: Sequence[ScoreRows], labels: Sequence[str], filter_seconds: np.ndarray) -> Boxes:
    """All boxes between a maximum of the step filter's response and the minimum after it.

    Args:
        clips: scores of one clip each.
        labels: the columns to look at.
        filter_seconds: length of the step filter per class, ``(classes,)``.

    Raises:
        ValueError: infinite scores.
    """
    parts = []
    for clip, rows in enumerate(clips):
        scores = rows.scores[:, [list(rows.labels).index(label) for label in labels]].T
        if not np.isfinite(scores).all():
            raise ValueError("bounding boxes need a finite score in every frame; these scores are boxes already")
        onset, offset = rows.onset, rows.offset
        frame = float(np.median(offset - onset))
        for length in np.unique(filter_seconds):
            chosen = np.flatnonzero(filter_seconds == length)
            row, start, stop = _extrema(_step_response(scores[chosen], length / frame / 2))
            column = clip * len(labels) + chosen[row]
            parts.append(_measure(scores[chosen], onset, offset, row, start, stop, column))
    return Boxes.joined(parts)


def merge(boxes: Boxes, absolute: np.ndarray, relative: np.ndarray) -> Boxes:
    """Close every gap that is shallow against both of its candidates (section 3.2).

    Args:
        boxes: candidates, in order of column and time.
        absolute: greatest drop from peak to valley, per class, ``(classes,)``; infinite for any.
        relative: greatest ratio of peak to valley, per class, likewise.

    Returns:
        Boxes of candidates and the closed gaps between them; a gap's area is in its box's.
    """
    label = boxes.column % len(absolute)
    peak = np.maximum(boxes.peak, np.append(boxes.peak[1:], 0.0))[:-1]
    valley, limit = boxes.gap_valley[:-1], relative[label[:-1]]
    with np.errstate(invalid="ignore"):
        ratio = (peak + _SMOOTHING) / (valley + _SMOOTHING)
    closes = (valley > -np.inf) & (peak - valley < absolute[label[:-1]]) & (np.isinf(limit) | (ratio < limit))
    first = np.flatnonzero(np.append(True, ~closes)[: len(label)])
    if len(first) == 0:
        return boxes
    last = np.append(first[1:], len(label)) - 1
    area = boxes.area + np.append(np.where(closes, boxes.gap_area[:-1], 0.0), 0.0)
    return Boxes(
        boxes.column[first],
        boxes.start[first],
        boxes.stop[last],
        boxes.onset[first],
        boxes.offset[last],
        np.add.reduceat(area, first),
        np.maximum.reduceat(boxes.peak, first),
        boxes.gap_valley[last],
        boxes.gap_area[last],
    )


def _step_response(scores: np.ndarray, half: float) -> np.ndarray:
    """Mean score of the next ``half`` frames less that of the last, at every frame border, ``(classes, frames + 1)``.

    Scores are taken as a staircase in continuous time and as zero outside the clip, so any half length is exact.
    """
    margin = math.ceil(half) + 1
    integral = np.pad(np.cumsum(scores, axis=1), ((0, 0), (1, 0)))
    integral = np.pad(integral, ((0, 0), (margin, margin)), mode="edge")
    frames = scores.shape[1]
    whole = math.floor(half)
    part = half - whole

    def at(shift: int) -> np.ndarray:
        return integral[:, margin + shift : margin + shift + frames + 1]

    later = (1 - part) * at(whole) + part * at(whole + 1)
    earlier = (1 - part) * at(-whole) + part * at(-whole - 1)
    return np.round((later + earlier - 2 * at(0)) / half, _DECIMALS)


def _extrema(response: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, borders of the maxima, and of the minima that follow them; flat ones give the end that is outside the box.

    A response counts as rising before the clip and after it, so maxima and minima alternate and begin with a maximum.
    """
    rises = np.pad(np.sign(np.diff(response, axis=1)), ((0, 0), (1, 1)), constant_values=1)
    last = rises.shape[1] - 1
    # Border t lies between rises[t] and rises[t + 1]; what is flat takes the direction it ends in, so a turn shows
    # where its flat stretch begins, and the move after it where it ends.
    next_move = np.where(rises != 0, np.arange(last + 1), last)
    next_move = np.minimum.accumulate(next_move[:, ::-1], axis=1)[:, ::-1]
    row, begins = np.nonzero(np.diff(np.take_along_axis(rises, next_move, axis=1), axis=1))
    ends = next_move[row, begins + 1] - 1
    return row[::2], begins[::2], ends[1::2]


def _measure(
    scores: np.ndarray,
    onset: np.ndarray,
    offset: np.ndarray,
    row: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    column: np.ndarray,
) -> Boxes:
    """Peaks, valleys and areas of boxes and of the gaps after them."""
    width = scores.shape[1] + 1
    flat = np.pad(scores, ((0, 0), (0, 1))).ravel()
    seconds = np.pad(np.tile(offset - onset, (len(scores), 1)), ((0, 0), (0, 1))).ravel()
    borders = np.stack((row * width + start, row * width + stop), axis=1).ravel()
    if len(borders) == 0:
        empty = np.zeros(0)
        return Boxes(column, start, stop, empty, empty, empty, empty, empty, empty)
    highest = np.maximum.reduceat(flat, borders)
    lowest = np.minimum.reduceat(flat, borders)
    area = np.add.reduceat(flat * seconds, borders)
    last = np.append(row[1:] != row[:-1], True)
    return Boxes(
        column,
        start,
        stop,
        onset[start],
        offset[stop - 1],
        area[::2],
        highest[::2],
        np.where(last, -np.inf, lowest[1::2]),
        area[1::2],
    )
