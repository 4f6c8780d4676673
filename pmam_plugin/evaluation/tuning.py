"""Choose bounding-box settings and detection thresholds on a selection set, for each class and with all in view."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from pmam_plugin.errors import InputError, Progress
from pmam_plugin.evaluation.alignment import aligned
from pmam_plugin.evaluation.counts import collar_pairs, most_matches
from pmam_plugin.evaluation.intersection import count_changes
from pmam_plugin.evaluation.intervals import Intervals, score_intervals
from pmam_plugin.evaluation.psds import SCENARIOS, psd_roc_of
from pmam_plugin.evaluation.reference import Reference
from pmam_plugin.postprocessing.boxes import Boxes, SoundEventBoxes, candidates, merge
from pmam_plugin.postprocessing.per_class import per_class
from pmam_plugin.postprocessing.rows import ScoreRows

_LOG = logging.getLogger(__name__)
_LEAST = 1e-6  # a threshold of zero or one has no logit

Setting = tuple[float, float | None, float | None]
"""Filter length in seconds, absolute threshold, relative threshold (None: no limit)."""

DEFAULT: Setting = (0.5, 1.0, 2.0)
GRID: tuple[Setting, ...] = (
    DEFAULT,
    *(
        (length, absolute, relative)
        for length in (0.32, 0.48, 0.64)
        for absolute, relative in ((0.15, None), (0.2, None), (0.3, None), (None, 1.5), (None, 2.0), (None, 3.0))
    ),
)
"""Settings to try; where none is better than another, the first, the default, stays."""

PRIOR_EVENTS = 10.0
"""What a class's own events weigh is the share ``events / (events + PRIOR_EVENTS)``; all classes' mean has the rest."""


def tune_segments(
    scores: Mapping[str, pd.DataFrame],
    events: pd.DataFrame,
    durations: Mapping[str, float],
    labels: Sequence[str] | None = None,
    grid: Sequence[Setting] = GRID,
    progress: Progress | None = None,
    prior_events: float = PRIOR_EVENTS,
) -> SoundEventBoxes:
    """The setting of the highest PSDS1 for every class, where it has few events rather of the highest mean of all.

    Of equals the first. A class's PSDS1 is averaged with that of all classes as if ``prior_events`` events stood behind
    the latter: chosen on half of 37 clips, PSDS1 on the other half is then 50.7 % in the mean of the classes of four
    detectors, with each class on its own 47.5, with the defaults 47.2 (docs/evaluation.md).

    Use a set that is not the one reported on (DCASE: a part of the training data, or the synthetic validation set).

    Args:
        scores: frame scores ``onset, offset, <class>...`` of every clip, weak mask applied, no filter.
        events: ground truth.
        durations: seconds of every clip of the set.
        labels: the classes; default the columns of the tables.
        grid: settings to try.
        progress: a progress hook.
        prior_events: how many events of a class weigh as much as all classes together; 0: each class on its own.

    Returns:
        Boxes with one setting per class; a class without ground truth keeps the defaults.

    Raises:
        InputError: an empty grid, or a set that cannot be evaluated (:func:`pmam_plugin.evaluation.evaluate_scores`).
    """
    if not grid:
        raise InputError("the grid of bounding-box settings is empty; give at least one setting")
    tables, reference = aligned(scores, events, durations, labels)
    united = reference.for_intersection()
    classes = len(united.labels)
    areas = np.zeros((len(grid), classes))
    # Boxes need a score everywhere; those of classes that are not judged in a clip are left out.
    unasked = [[label for label, judged in zip(united.labels, row) if not judged] for row in united.judged]
    filled = (tables[clip].assign(**dict.fromkeys(labels, 0.0)) for clip, labels in zip(united.clips, unasked))
    ordered = [ScoreRows.of(table) for table in filled]
    done = 0
    for length in dict.fromkeys(setting[0] for setting in grid):
        found = candidates(ordered, united.labels, np.full(classes, length))
        for index, (filter_seconds, absolute, relative) in enumerate(grid):
            if filter_seconds == length:
                limits = (per_class(value, united.labels, "a limit") for value in (absolute, relative))
                boxes = merge(found, *limits)
                changes = count_changes([_intervals(boxes, united)], united, [SCENARIOS["psds1"].criteria])[0]
                areas[index] = list(psd_roc_of(changes, united, SCENARIOS["psds1"]).class_values.values())
                done += 1
                if progress is not None:
                    progress("tuning bounding boxes", done, len(grid))
    events_of = united.counts.sum(axis=0)
    share = events_of / (events_of + prior_events)
    judged = share * areas + (1 - share) * areas.mean(axis=1, keepdims=True)
    chosen: dict[str, Setting] = dict.fromkeys(reference.labels, DEFAULT)
    for number, (label, index) in enumerate(zip(united.labels, judged.argmax(axis=0).tolist())):
        chosen[label] = grid[index]
        _LOG.info("%s: boxes with %s reach PSDS1 %.4f on the selection set", label, grid[index], areas[index, number])
    return SoundEventBoxes(
        {label: setting[0] for label, setting in chosen.items()},
        {label: setting[1] for label, setting in chosen.items()},
        {label: setting[2] for label, setting in chosen.items()},
    )


def _intervals(boxes: Boxes, united: Reference) -> Intervals:
    """Boxes never grow as the threshold falls: each stays from its confidence on down."""
    asked = united.judged.ravel()[boxes.column]
    column, never = boxes.column[asked], np.full(asked.sum(), -np.inf)
    onset, offset, confidence = boxes.onset[asked], boxes.offset[asked], boxes.confidence[asked]
    return Intervals(column, onset, offset, confidence, never, np.full(len(column), -1))


def tune_thresholds(
    scores: Mapping[str, pd.DataFrame],
    events: pd.DataFrame,
    durations: Mapping[str, float],
    labels: Sequence[str],
    default: float = 0.5,
    measure: Literal["event", "clip"] = "event",
    prior_events: float = PRIOR_EVENTS,
    beta: float = 1.0,
) -> dict[str, float]:
    """The threshold of the highest F score for every class, drawn towards that of all classes where it has few events.

    F is exact: against the events as annotated, as it is measured. (sed_scores_eval's ``best_fscore`` refuses ground
    truth in which events of a class touch, so it would be another one.) Use a set that is not the one reported on.

    What is best for five events of a class is mostly chance: tuned on half of 37 clips, each class on its own reaches
    an F1 of 23.5 % on the other half in the mean of four detectors, and with ten events' worth of the one threshold
    that is best for all classes, 28.5 (docs/evaluation.md). Both are averaged as logits.

    Args:
        scores: post-processed table of every clip; for the clip F1, one row per clip with its clip scores.
        events: ground truth.
        durations: seconds of every clip.
        labels: the classes.
        default: for a class that the ground truth lacks or that no threshold detects.
        measure: F1 of events (200 ms, 20 %), or of classes present in a clip.
        prior_events: how many events of a class (or clips that have it) weigh as much as all classes together; 0: each
            class on its own.
        beta: of the F score; recall counts ``beta`` times as much as precision. Below one a false alarm costs more than
            a miss, which suits recordings in which less happens than in the selection set.

    Raises:
        InputError: a ``beta`` that is not positive, or a set that cannot be evaluated
            (:func:`pmam_plugin.evaluation.evaluate_scores`).
    """
    if not beta > 0:
        raise InputError(f"beta {beta}: must be more than 0; 1 is F1, 0.5 counts precision twice")
    tables, reference = aligned(scores, events, durations, labels)
    classes = len(reference.labels)
    parts: list[tuple[np.ndarray, ...]] = []
    for _, found in score_intervals(tables, reference.clips, reference.labels):
        ends = found.floor > -np.inf
        ones = np.ones(len(found))
        parts.append((found.column, found.level, np.zeros(len(found)), ones))
        parts.append((found.column[ends], found.floor[ends], np.zeros(ends.sum()), -ones[ends]))
        if measure == "clip":
            present = reference.counts.ravel()[found.column] > 0
            parts.append((found.column, found.level, present.astype(np.float64), np.zeros(len(found))))
        else:
            parts.append(_right(found, reference))
    column, score, right, given = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    counts = reference.counts if measure == "event" else reference.counts > 0
    wanted = counts.sum(axis=0)
    curves = []
    for number in range(classes):
        mine = column % classes == number
        curves.append(_f_by_level(score[mine], right[mine], given[mine], wanted[number], beta))
    common = _best(*_mean_by_level([curve for curve, events in zip(curves, wanted, strict=True) if events]))
    chosen = dict.fromkeys(reference.labels, float(default))
    for label, curve, events in zip(reference.labels, curves, wanted, strict=True):
        own = _best(*curve)
        if own is not None and common is not None:
            share = events / (events + prior_events)
            chosen[label] = own if share == 1 else float(expit(share * _logit(own) + (1 - share) * _logit(common)))
    return chosen


def _f_by_level(
    score: np.ndarray, right: np.ndarray, given: np.ndarray, wanted: int, beta: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a class, falling, and the F score of thresholds just below each."""
    levels, place = np.unique(-score, return_inverse=True)
    hits = np.cumsum(np.bincount(place, right, len(levels)))
    detected = np.cumsum(np.bincount(place, given, len(levels)))
    return -levels, (1 + beta**2) * hits / np.maximum(detected + beta**2 * wanted, 1e-9)


def _mean_by_level(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all classes, falling, and the mean F score of thresholds just below each."""
    levels = -np.unique(-np.concatenate([levels for levels, _ in curves] or [np.zeros(0)]))
    total = np.zeros(len(levels))
    for own, score in curves:
        total += np.append(0.0, score)[np.searchsorted(-own, -levels, side="right")]
    return levels, total / max(1, len(curves))


def _best(levels: np.ndarray, score: np.ndarray) -> float | None:
    """Threshold of the highest F score, halfway to the next lower level; None where F is zero at any."""
    if len(score) == 0 or not score.max() > 0:
        return None
    index = int(score.argmax())
    level = levels[index]
    # Scores above the threshold are events. Below the lowest score there is nothing to be halfway to.
    lower = levels[index + 1] if index + 1 < len(levels) else np.nextafter(level, -np.inf)
    middle = (level + lower) / 2
    return float(middle if middle < level else lower)


def _logit(score: float) -> float:
    return float(logit(np.clip(score, _LEAST, 1 - _LEAST)))


def _right(found: Intervals, reference: Reference) -> tuple[np.ndarray, ...]:
    """How the number of events found changes as the threshold falls: column, score, change, and zeros."""
    wanted, detected = collar_pairs(found.column, found.onset, found.offset, reference)
    order = np.argsort(found.column[detected], kind="stable")
    wanted, detected = wanted[order], detected[order]
    columns, first = np.unique(found.column[detected], return_index=True)
    rows: list[tuple[int, float, int]] = []
    for column, one, other in zip(columns, np.split(wanted, first[1:]), np.split(detected, first[1:])):
        level, floor = found.level[other], found.floor[other]
        before = 0
        for score in np.unique(np.concatenate((level, floor[floor > -np.inf])))[::-1]:
            there = (floor < score) & (score <= level)
            now = len(most_matches(one[there], other[there]))
            rows.append((column, score, now - before))
            before = now
    table = np.array(rows, np.float64).reshape(-1, 3)
    return table[:, 0].astype(np.int64), table[:, 1], table[:, 2], np.zeros(len(table))
