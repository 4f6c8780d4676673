"""Intersection-based counts (Bilen et al., ICASSP 2020) at all thresholds, clip by clip.

The definitions are those of sed_scores_eval, to the rounding of times. Its own statistics visit every threshold of
every clip with every ground-truth event; these visit every possible detection once
(:mod:`pmam_plugin.evaluation.intervals`), which is exact as well, two to five times faster when cross triggers count,
and takes boxes and operating points too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pmam_plugin.evaluation.counts import ranges
from pmam_plugin.evaluation.intervals import Intervals
from pmam_plugin.evaluation.reference import EventArray, Reference

_DECIMALS = 6  # times are compared to the microsecond, so that sums of floats meet their exact thresholds


@dataclass(frozen=True)
class Criteria:
    """When a detection is right, when an event is found, and when a detection belongs to another class.

    Attributes:
        detection: share of a detection that ground truth of its class must cover (DTC).
        ground_truth: share of an event that such detections must cover (GTC).
        cross_trigger: share of a wrong detection that another class's ground truth must cover (CTTC); None to not
            count it.
    """

    detection: float
    ground_truth: float
    cross_trigger: float | None = None


@dataclass(frozen=True, eq=False)
class Changes:
    """How the counts of one class change as the threshold falls, sorted by falling score, then by clip.

    Attributes:
        score: the changes take effect when the threshold falls to this, ``(changes,)``.
        clip: index of the clip they happen in, ``(changes,)``.
        found: change of the number of events found, ``(changes,)``.
        wrong: change of the number of wrong detections, ``(changes,)``.
        cross: change of the number of cross triggers with each class, ``(changes, classes)``; None when not counted.
        last: positions of the last change of every distinct score.
    """

    score: np.ndarray
    clip: np.ndarray
    found: np.ndarray
    wrong: np.ndarray
    cross: np.ndarray | None
    last: np.ndarray


def count_changes(
    intervals: Iterable[Intervals], reference: Reference, criteria: Sequence[Criteria]
) -> list[list[Changes]]:
    """Changes of all counts, per criteria and class.

    Args:
        intervals: possible detections, in any number of portions; a clip's intervals of a class come in one portion.
        reference: ground truth whose events of one class do not overlap (:meth:`Reference.for_intersection`).
        criteria: one or more tolerances; the intervals are gone through once for all.
    """
    classes = len(reference.labels)
    parts: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = [[] for _ in criteria]
    for portion in intervals:
        coverage = _Coverage(reference, portion)
        for part, tolerances in zip(parts, criteria):
            part.append(_changes_of(portion, coverage, tolerances))
    whole = [[np.concatenate(arrays) for arrays in zip(*part)] for part in parts]
    return [[_of_class(label, classes, *arrays) for label in range(classes)] for arrays in whole]


def _of_class(label: int, classes: int, column: np.ndarray, score: np.ndarray, counts: np.ndarray) -> Changes:
    mine = np.flatnonzero(column % classes == label)
    mine = mine[np.lexsort((column[mine], -score[mine]))]
    score, counts = score[mine], counts[mine]
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True)) if len(score) else np.zeros(0, np.int64)
    cross = counts[:, 2:] if counts.shape[1] > 2 else None
    return Changes(score, column[mine] // classes, counts[:, 0], counts[:, 1], cross, last)


def _changes_of(
    intervals: Intervals, coverage: _Coverage, criteria: Criteria
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column, score and count changes ``(found, wrong, cross per class...)`` of one portion."""
    classes = coverage.classes
    length = intervals.offset - intervals.onset
    covered = coverage.seconds(intervals.column, intervals.onset, intervals.offset)
    right = np.round(covered, _DECIMALS) >= np.round(criteria.detection * length, _DECIMALS)
    counts = np.zeros((len(intervals), 2 + (classes if criteria.cross_trigger is not None else 0)), np.float32)
    counts[:, 1] = ~right
    if criteria.cross_trigger is not None:
        wrong, column = coverage.other_columns(intervals.column, np.flatnonzero(~right))
        elsewhere = coverage.seconds(column, intervals.onset[wrong], intervals.offset[wrong])
        needed = np.round(criteria.cross_trigger * length[wrong], _DECIMALS)
        counts[wrong, 2 + column % classes] = np.round(elsewhere, _DECIMALS) >= needed
    column, score, net = _net(intervals, counts)
    found_column, found_score, found = _found(_select(intervals, right), coverage, criteria.ground_truth)
    finds = np.zeros((len(found), counts.shape[1]), np.float32)
    finds[:, 0] = found
    return (
        np.concatenate((column, found_column)),
        np.concatenate((score, found_score)),
        np.concatenate((net, finds)),
    )


def _net(intervals: Intervals, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column, score and change of counts when intervals appear at their level and go at their floor."""
    if intervals.parent is None:
        ends = intervals.floor > -np.inf
        column = np.concatenate((intervals.column, intervals.column[ends]))
        score = np.concatenate((intervals.level, intervals.floor[ends]))
        return column, score, np.concatenate((counts, -counts[ends]))
    # Where intervals nest, children go just when their parent appears: mostly one child, counted alike, no change.
    child = np.flatnonzero(intervals.parent >= 0)
    parent = intervals.parent[child]
    alone = np.bincount(parent, minlength=len(intervals))[parent] == 1
    net = counts.copy()
    net[parent[alone]] -= counts[child[alone]]
    np.subtract.at(net, parent[~alone], counts[child[~alone]])
    keep = net.any(axis=1)
    return intervals.column[keep], intervals.level[keep], net[keep]


def _found(right: Intervals, coverage: _Coverage, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When enough of an event becomes covered by right detections (+1), or no longer is (-1): column, score, change."""
    interval, event, seconds = coverage.pairs(right)
    ends = right.floor[interval] > -np.inf
    event = np.concatenate((event, event[ends]))
    score = np.concatenate((right.level[interval], right.floor[interval][ends]))
    seconds = np.concatenate((seconds, -seconds[ends]))
    order = np.lexsort((-score, event))
    event, score, total = event[order], score[order], np.cumsum(seconds[order])
    # The running sum restarts with every event; it counts only once all changes of one score are in.
    begins = np.flatnonzero(np.append(True, event[1:] != event[:-1])) if len(event) else np.zeros(0, np.int64)
    sizes = np.diff(np.append(begins, len(event)))
    total = total - np.repeat(np.append(0.0, total[begins[1:] - 1]) if len(begins) else np.zeros(0), sizes)
    settled = np.append((event[1:] != event[:-1]) | (score[1:] != score[:-1]), True)[: len(event)]
    event, score, total = event[settled], score[settled], total[settled]
    needed = np.round(share * coverage.length[event], _DECIMALS)
    enough = (np.round(total, _DECIMALS) >= needed).astype(np.int8)
    previous = np.append(np.zeros(1, np.int8), enough[:-1])[: len(enough)]
    previous[np.append(True, event[1:] != event[:-1])[: len(event)]] = 0
    change = enough - previous
    return coverage.column[event[change != 0]], score[change != 0], change[change != 0]


class _Coverage:
    """Seconds of ground truth of a column inside an interval, for many intervals at once.

    The events of all columns lie one after the other on one time axis, each column in its own span, so that one binary
    search serves all.
    """

    def __init__(self, reference: Reference, intervals: Intervals) -> None:
        events: EventArray = reference.events
        self.classes = classes = len(reference.labels)
        self.column = events.column(classes)
        self.onset, self.offset = events.onset, events.offset
        self.length = events.offset - events.onset
        self._span = 1.0 + max(float(array.max(initial=0.0)) for array in (events.offset, intervals.offset))
        self._onset_key = self.column * self._span + events.onset
        self._offset_key = self.column * self._span + events.offset
        self._first = np.searchsorted(self.column, np.arange(len(reference.clips) * classes + 1))
        self._seconds = np.append(0.0, np.cumsum(self.length))

    def seconds(self, column: np.ndarray, onset: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Seconds of the columns' events between onset and offset."""
        occupied = np.flatnonzero(self._first[column + 1] > self._first[column])
        column = column[occupied]
        covered = np.zeros(len(onset))
        covered[occupied] = self._before(column, offset[occupied]) - self._before(column, onset[occupied])
        return covered

    def _before(self, column: np.ndarray, time: np.ndarray) -> np.ndarray:
        begun = np.searchsorted(self._onset_key, column * self._span + time, side="right")
        first = self._first[column]
        rest = np.where(begun > first, np.maximum(self.offset[begun - 1] - time, 0.0), 0.0)
        return self._seconds[begun] - self._seconds[first] - rest

    def other_columns(self, columns: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each chosen interval, the columns of its clip that hold events of another class: interval, column."""
        occupied = np.unique(self.column)
        clip = columns[chosen] // self.classes
        start = np.searchsorted(occupied, clip * self.classes)
        counts = np.searchsorted(occupied, (clip + 1) * self.classes) - start
        interval = np.repeat(chosen, counts)
        column = occupied[ranges(start, counts)]
        other = column != columns[interval]
        return interval[other], column[other]

    def pairs(self, intervals: Intervals) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every interval with every event of its column that it meets: interval, event, seconds in common."""
        start = np.searchsorted(self._offset_key, intervals.column * self._span + intervals.onset, side="right")
        stop = np.searchsorted(self._onset_key, intervals.column * self._span + intervals.offset, side="left")
        start = np.maximum(start, self._first[intervals.column])
        stop = np.minimum(stop, self._first[intervals.column + 1])
        counts = np.maximum(stop - start, 0)
        interval = np.repeat(np.arange(len(intervals)), counts)
        event = ranges(start, counts)
        end = np.minimum(intervals.offset[interval], self.offset[event])
        begin = np.maximum(intervals.onset[interval], self.onset[event])
        return interval, event, np.maximum(end - begin, 0.0)


def _select(intervals: Intervals, keep: np.ndarray) -> Intervals:
    return Intervals(
        intervals.column[keep],
        intervals.onset[keep],
        intervals.offset[keep],
        intervals.level[keep],
        intervals.floor[keep],
    )
