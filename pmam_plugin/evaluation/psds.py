"""PSDS, the area under the PSD-ROC (Bilen et al., ICASSP 2020), with its bootstrap.

From counts to area it is one step, which the bootstrap repeats some hundred times with other clip weights; the figure
itself is the same step with every clip once. sed_scores_eval's ``bootstrapped_psds`` leaves out one of five folds in
turn, a subsample without replacement whose spread is half that of samples as large as the set, and takes up to a second
for each; so the step is written here in numpy, and tests hold it to ``sed_scores_eval.intersection_based.psds``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pmam_plugin.errors import Progress
from pmam_plugin.evaluation.alignment import aligned
from pmam_plugin.evaluation.intersection import Changes, Criteria, count_changes
from pmam_plugin.evaluation.intervals import Intervals, score_intervals
from pmam_plugin.evaluation.reference import Reference

SECONDS_PER_HOUR = 3600.0
MAX_RATE = 100.0  # effective false positives per hour up to which the area is taken


@dataclass(frozen=True)
class Scenario:
    """A parametrisation of PSDS.

    Attributes:
        criteria: intersection tolerances.
        cross_trigger_weight: weight of the mean cross-trigger rate in the effective false positive rate (alpha_ct).
        instability_weight: weight of the spread between classes, taken off the mean over classes (alpha_st).
    """

    criteria: Criteria
    cross_trigger_weight: float
    instability_weight: float

    def for_classes(self, classes: int) -> Scenario:
        """This scenario, without cross triggers where there is no second class to trigger."""
        if classes > 1:
            return self
        single = Criteria(self.criteria.detection, self.criteria.ground_truth)
        return Scenario(single, 0.0, self.instability_weight)


SCENARIOS = {
    "psds1": Scenario(Criteria(detection=0.7, ground_truth=0.7), 0.0, 1.0),
    "psds2": Scenario(Criteria(detection=0.1, ground_truth=0.1, cross_trigger=0.3), 0.5, 1.0),
}
"""The two scenarios of DCASE task 4: precise times, and confusions between classes (max. 100 false positives/hour)."""


@dataclass(frozen=True, eq=False)
class PSDROC:
    """A PSD-ROC: true positive ratio over effective false positives per hour, a staircase from 0 to 100 of them.

    Attributes:
        value: area under the curve up to 100 false positives per hour, in [0, 1].
        mean: the same without the instability penalty: the mean of ``class_values``.
        rate: effective false positives per hour, ``(points,)``.
        ratio: effective true positive ratio, ``(points,)``.
        class_values: area per class.
        class_curves: ``(rate, ratio)`` per class.
    """

    value: float
    mean: float
    rate: np.ndarray
    ratio: np.ndarray
    class_values: dict[str, float]
    class_curves: dict[str, tuple[np.ndarray, np.ndarray]]


def psd_roc(
    scores: Mapping[str, pd.DataFrame],
    events: pd.DataFrame,
    durations: Mapping[str, float],
    labels: Sequence[str] | None = None,
    scenario: str = "psds1",
) -> PSDROC:
    """The PSD-ROC of all classes and of each, for drawing.

    Args:
        scores: as in :func:`evaluate_scores`.
        events: ground truth.
        durations: seconds of every clip of the set.
        labels: the classes; default the columns of the tables.
        scenario: ``psds1`` or ``psds2``.

    Raises:
        InputError: as :func:`evaluate_scores`.
    """
    tables, reference = aligned(scores, events, durations, labels)
    united = reference.for_intersection()
    changes = score_changes(tables, united, (scenario,))[scenario]
    return psd_roc_of(changes, united, SCENARIOS[scenario])


def score_changes(
    tables: Mapping[str, pd.DataFrame], united: Reference, keys: Sequence[str], progress: Progress | None = None
) -> dict[str, list[Changes]]:
    """Counts of every class for every scenario of ``keys``, from score tables aligned with the ground truth."""

    def portions() -> Iterator[Intervals]:
        for done, intervals in score_intervals(tables, united.clips, united.labels):
            yield intervals
            if progress is not None:
                progress("comparing scores with the ground truth", done, len(united.clips))

    return dict(zip(keys, count_changes(portions(), united, criteria(keys, united))))


def criteria(keys: Sequence[str], united: Reference) -> list[Criteria]:
    """Tolerances of scenarios, for as many classes as there are."""
    return [SCENARIOS[key].for_classes(len(united.labels)).criteria for key in keys]


def psd_roc_of(changes: Sequence[Changes], reference: Reference, scenario: Scenario) -> PSDROC:
    """PSD-ROC and its areas.

    Args:
        changes: counts per class for this scenario's criteria.
        reference: ground truth ready for intersection, with an event of every class.
        scenario: weights; the same one the changes were counted for.
    """
    staircases = _Staircases(changes, reference, scenario)
    curves = dict(zip(reference.labels, staircases(np.ones(len(reference.clips)))))
    whole = staircases.over_classes(list(curves.values()))
    values = {label: _area(*curve) for label, curve in curves.items()}
    drawn = {label: _to_the_end(*curve) for label, curve in curves.items()}
    return PSDROC(_area(*whole), float(np.mean(list(values.values()))), *_to_the_end(*whole), values, drawn)


def resampled_areas(
    changes: Sequence[Changes],
    reference: Reference,
    scenario: Scenario,
    weights: np.ndarray,
    progress: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """PSDS with every clip counted ``weights`` times, for every row of ``weights`` ``(resamples, clips)``.

    Args:
        changes: counts per class for this scenario's criteria.
        reference: ground truth ready for intersection.
        scenario: the same one the changes were counted for.
        weights: how often each clip is drawn.
        progress: called with the number of resamples done.

    Returns:
        :attr:`PSDROC.value` and :attr:`PSDROC.mean` over the classes with events in each resample, ``(resamples,)``
        both; NaN where there are none.
    """
    staircases = _Staircases(changes, reference, scenario)
    value, mean = np.full((2, len(weights)), np.nan)
    for index, weight in enumerate(weights.astype(np.float64)):
        curves = staircases(weight)
        if curves:
            value[index] = _area(*staircases.over_classes(curves))
            mean[index] = np.mean([_area(*curve) for curve in curves])
        if progress is not None:
            progress(index + 1)
    return value, mean


class _Staircases:
    """The staircase of every class that occurs, with every clip counted so many times ``(clips,)``.

    A staircase is rising effective false positive rates up to :data:`MAX_RATE`, and the best ratio reached up to each.
    """

    def __init__(self, changes: Sequence[Changes], reference: Reference, scenario: Scenario) -> None:
        self.changes = changes
        self.scenario = scenario.for_classes(len(reference.labels))
        self.events, self.event_seconds = reference.counts.astype(np.float64), reference.event_seconds
        self.durations = reference.durations
        corpora, of = np.unique(reference.judged, axis=1, return_inverse=True)  # alike for most classes
        self.judged, self.corpus_of = corpora.T, of.ravel()

    def __call__(self, weight: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        count, covered = weight @ self.events, (weight * self.judged) @ self.event_seconds
        per_hour = SECONDS_PER_HOUR / np.maximum((weight * self.judged) @ self.durations, 1e-12)
        share = self.scenario.cross_trigger_weight / max(len(self.changes) - 1, 1)
        curves = []
        for label in np.flatnonzero(count).tolist():
            corpus = self.corpus_of[label]
            cross_per_second = share / np.maximum(covered[corpus], 1e-12)
            curves.append(_curve(self.changes[label], weight, count[label], cross_per_second, per_hour[corpus]))
        return curves

    def over_classes(self, curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """Their mean less the penalty on their spread."""
        rates = np.unique(np.concatenate([rate for rate, _ in curves]))
        ratios = np.stack([ratio[np.searchsorted(rate, rates, side="right") - 1] for rate, ratio in curves])
        return rates, np.maximum(ratios.mean(axis=0) - self.scenario.instability_weight * ratios.std(axis=0), 0.0)


def _curve(
    change: Changes, weight: np.ndarray, events: float, cross_per_second: np.ndarray, per_hour: float
) -> tuple[np.ndarray, np.ndarray]:
    drawn = weight[change.clip]
    rate = np.cumsum(change.wrong * drawn)[change.last] * per_hour
    if change.cross is not None:
        # Cross-trigger rates are per second of the other class's events.
        triggered = np.cumsum((change.cross @ cross_per_second) * drawn)[change.last]
        rate = np.maximum(rate + triggered * SECONDS_PER_HOUR, 0.0)
    inside = rate <= MAX_RATE
    found = np.cumsum(change.found * drawn)[change.last][inside]
    rate = rate[inside]
    order = np.argsort(rate, kind="stable")
    ratio = np.maximum.accumulate(np.append(0.0, found[order] / events))
    return np.append(0.0, rate[order]), ratio


def _to_the_end(rate: np.ndarray, ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.append(rate, MAX_RATE), np.append(ratio, ratio[-1])


def _area(rate: np.ndarray, ratio: np.ndarray) -> float:
    return float(ratio @ np.diff(np.append(rate, MAX_RATE))) / MAX_RATE
