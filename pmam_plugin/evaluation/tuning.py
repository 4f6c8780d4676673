"""Choose bounding-box settings on a selection set, class by class."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pmam_plugin.errors import InputError
from pmam_plugin.evaluation.intersection import count_changes
from pmam_plugin.evaluation.intervals import Intervals
from pmam_plugin.evaluation.metrics import aligned
from pmam_plugin.evaluation.psds import SCENARIOS, psd_roc_of
from pmam_plugin.evaluation.reference import Reference
from pmam_plugin.postprocessing.boxes import Boxes, SoundEventBoxes, candidates, merge
from pmam_plugin.postprocessing.rows import ScoreRows
from pmam_plugin.tables.scores import Progress

_LOG = logging.getLogger(__name__)

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


def tune_segments(
    scores: Mapping[str, pd.DataFrame],
    events: pd.DataFrame,
    durations: Mapping[str, float],
    labels: Sequence[str] | None = None,
    grid: Sequence[Setting] = GRID,
    progress: Progress | None = None,
) -> SoundEventBoxes:
    """The setting of the highest PSDS1 for every class, the first of equals.

    Use a set that is not the one reported on (DCASE: a part of the training data, or the synthetic validation set).

    Args:
        scores: frame scores ``onset, offset, <class>...`` of every clip, weak mask applied, no filter.
        events: ground truth.
        durations: seconds of every clip of the set.
        labels: the classes; default the columns of the tables.
        grid: settings to try.
        progress: a progress hook.

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
                boxes = merge(found, _limit(absolute, classes), _limit(relative, classes))
                changes = count_changes([_intervals(boxes, united)], united, [SCENARIOS["psds1"].criteria])[0]
                areas[index] = list(psd_roc_of(changes, united, SCENARIOS["psds1"]).class_values.values())
                done += 1
                if progress is not None:
                    progress("tuning bounding boxes", done, len(grid))
    chosen: dict[str, Setting] = dict.fromkeys(reference.labels, DEFAULT)
    for number, (label, index) in enumerate(zip(united.labels, areas.argmax(axis=0).tolist())):
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


def _limit(value: float | None, classes: int) -> np.ndarray:
    return np.full(classes, np.inf if value is None else value)
