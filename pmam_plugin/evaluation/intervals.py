"""Everything a scores table can detect, at all thresholds at once.

A detection at some threshold is a longest stretch of frames scoring at least that much. Lowering the threshold, a
stretch appears, stays as it is for a while, and is swallowed by a longer one. A clip of T frames has at most T such
stretches, so the detections of all thresholds fit into one short list, and any measure of single detections needs to be
taken once per stretch (the change points of Ebbers et al., ICASSP 2022, without visiting each threshold).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pmam_plugin.evaluation.reference import EventArray
from pmam_plugin.postprocessing.filters import active_runs

_CHUNK = 100_000  # scores handled at once: small enough for the cache, large enough to hide numpy's overhead


@dataclass(frozen=True, eq=False)
class Intervals:
    """Possible detections, each present for thresholds in ``(floor, level]``.

    Attributes:
        column: ``clip * classes + class`` of each, ``(intervals,)`` int64.
        onset: seconds.
        offset: seconds.
        level: the highest threshold at which the interval is detected.
        floor: the threshold at which a longer interval takes its place; ``-inf`` for never.
        parent: index of that longer interval, -1 for none; None where intervals do not nest.
    """

    column: np.ndarray
    onset: np.ndarray
    offset: np.ndarray
    level: np.ndarray
    floor: np.ndarray
    parent: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.column)


def score_intervals(
    scores: Mapping[str, pd.DataFrame], clips: Sequence[str], labels: Sequence[str]
) -> Iterator[tuple[int, Intervals]]:
    """Yield the intervals of a set of score tables, a few clips at a time.

    Args:
        scores: table ``onset, offset, <class>...`` per clip.
        clips: the clips in the order that numbers them.
        labels: the columns to use, in the order that numbers them.

    Yields:
        Number of clips done so far, and their intervals.
    """
    pending: list[tuple[int, pd.DataFrame]] = []
    size = 0
    for index, clip in enumerate(clips):
        pending.append((index, scores[clip]))
        size += len(scores[clip]) * len(labels)
        if size >= _CHUNK or index + 1 == len(clips):
            yield index + 1, _level_sets(pending, labels)
            pending, size = [], 0


def operating_point_intervals(points: Mapping[float, EventArray], classes: int) -> Intervals:
    """Intervals of detections that are known at some thresholds only: each lasts to the next lower threshold."""
    thresholds = sorted(points)
    floors = [-np.inf, *thresholds[:-1]]
    events = [points[threshold] for threshold in thresholds]
    counts = [len(array) for array in events]
    return Intervals(
        np.concatenate([array.column(classes) for array in events]),
        np.concatenate([array.onset for array in events]),
        np.concatenate([array.offset for array in events]),
        np.repeat(np.array(thresholds, dtype=np.float64), counts),
        np.repeat(np.array(floors, dtype=np.float64), counts),
    )


def events_above(
    scores: Mapping[str, pd.DataFrame], clips: Sequence[str], labels: Sequence[str], threshold: np.ndarray
) -> EventArray:
    """Events where scores exceed the threshold of their class.

    Args:
        scores: table ``onset, offset, <class>...`` per clip.
        clips: the clips in the order that numbers them.
        labels: the columns to use, in the order that numbers them.
        threshold: one per class, ``(classes,)``; a score must be greater.
    """
    parts = []
    for index, clip in enumerate(clips):
        table = scores[clip]
        label, first, last = active_runs(table[list(labels)].to_numpy() > threshold)
        onset, offset = table["onset"].to_numpy()[first], table["offset"].to_numpy()[last]
        parts.append((np.full(len(label), index), label, onset, offset))
    return EventArray.sorted(*(np.concatenate(arrays) for arrays in zip(*parts)))


def _level_sets(tables: Sequence[tuple[int, pd.DataFrame]], labels: Sequence[str]) -> Intervals:
    """All intervals of some clips: their columns are laid end to end with a silent frame between, then scanned once."""
    classes = len(labels)
    score, onset, offset, column = [], [], [], []
    for clip, table in tables:
        values = table[list(labels)].to_numpy(np.float64).T
        score.append(np.concatenate((values, np.full((classes, 1), -np.inf)), axis=1).ravel())
        onset.append(np.tile(np.append(table["onset"].to_numpy(np.float64), 0.0), classes))
        offset.append(np.tile(np.append(table["offset"].to_numpy(np.float64), 0.0), classes))
        column.append(np.repeat(np.arange(classes) + clip * classes, len(table) + 1))
    scores = np.concatenate(score)
    # Equal neighbours are one run: post-processed scores shrink a lot here.
    first = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))
    last = np.append(first[1:], len(scores)) - 1
    run = scores[first]
    longest = max(len(table) for _, table in tables)
    following = _next_smaller(run, longest, strict=True)
    preceding = len(run) - 1 - _next_smaller(run[::-1], longest, strict=False)[::-1]
    before = np.where(preceding >= 0, run[preceding], -np.inf)
    # Several runs of one score share one interval; the first of them stands for it.
    own = np.flatnonzero((run > -np.inf) & (before < run))
    starts, ends = first[preceding[own] + 1], last[following[own] - 1]
    before, after = before[own], run[following[own]]
    parent = _first_of_equals(run, preceding)[np.where(before >= after, preceding[own], following[own])]
    number = np.full(len(run), -1)
    number[own] = np.arange(len(own))
    return Intervals(
        np.concatenate(column)[first[own]],
        np.concatenate(onset)[starts],
        np.concatenate(offset)[ends],
        run[own],
        np.maximum(before, after),
        number[parent],
    )


def _first_of_equals(run: np.ndarray, preceding: np.ndarray) -> np.ndarray:
    """The first run of the interval that each run stands for, following equal predecessors to their start."""
    origin = np.where((preceding >= 0) & (run[preceding] == run) & (run > -np.inf), preceding, np.arange(len(run)))
    while True:
        further = origin[origin]
        if np.array_equal(further, origin):
            return origin
        origin = further


def _next_smaller(values: np.ndarray, reach: int, strict: bool) -> np.ndarray:
    """Index of the next smaller (or, unless ``strict``, equal) value to the right; the length where there is none.

    Minima over windows of 1, 2, 4, ... values let every position leap over what is larger, longest leap first.
    """
    windows = [values]
    while 2 ** len(windows) <= min(reach, len(values)):
        half = 2 ** (len(windows) - 1)
        windows.append(np.minimum(windows[-1][:-half], windows[-1][half:]))
    position = np.arange(1, len(values) + 1)
    for power in reversed(range(len(windows))):
        lowest = windows[power][np.minimum(position, len(windows[power]) - 1)]
        passes = (lowest >= values) if strict else (lowest > values)
        position += (passes & (position < len(windows[power]))) * 2**power
    return position
