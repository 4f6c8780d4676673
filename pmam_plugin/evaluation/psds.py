"""PSDS, the area under the PSD-ROC (Bilen et al., ICASSP 2020), with its bootstrap.

The figure itself comes from ``sed_scores_eval.intersection_based.psds``. The bootstrap repeats its last step, from
counts to area, some hundred times with other clip weights. sed_scores_eval's own ``bootstrapped_psds`` leaves out one
of five folds in turn, a subsample without replacement whose spread is half that of samples as large as the set, and
takes up to a second for each; so that last step is written here in numpy, and tests hold both to the same area.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmam_plugin.errors import InputError
from pmam_plugin.evaluation.intersection import Changes, Criteria, to_deltas
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
    """A PSD-ROC: true positive ratio over effective false positives per hour, a staircase rising to the right.

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


def psd_roc_of(changes: Sequence[Changes], reference: Reference, scenario: Scenario) -> PSDROC:
    """PSD-ROC and its areas, by sed_scores_eval.

    Args:
        changes: counts per class for this scenario's criteria.
        reference: ground truth ready for intersection.
        scenario: weights; the same one the changes were counted for.

    Raises:
        InputError: sed_scores_eval is not installed.
    """
    scenario = scenario.for_classes(len(reference.labels))
    value, class_values, (ratio, rate), curves = _intersection_psds()(
        None,
        truth_lists(reference),
        dict(zip(reference.clips, reference.durations.tolist())),
        deltas=to_deltas(changes, reference),
        dtc_threshold=scenario.criteria.detection,
        gtc_threshold=scenario.criteria.ground_truth,
        cttc_threshold=scenario.criteria.cross_trigger,
        alpha_ct=scenario.cross_trigger_weight,
        alpha_st=scenario.instability_weight,
        max_efpr=MAX_RATE,
    )
    values = {label: float(class_values[label]) for label in reference.labels}
    return PSDROC(
        value=float(value),
        mean=float(np.mean(list(values.values()))),
        rate=rate,
        ratio=ratio,
        class_values=values,
        class_curves={label: (curves[label][1], curves[label][0]) for label in reference.labels},
    )


def truth_lists(reference: Reference) -> dict[str, list[tuple[float, float, str]]]:
    """Ground truth in sed_scores_eval's form: ``(onset, offset, class)`` by clip."""
    truth: dict[str, list[tuple[float, float, str]]] = {clip: [] for clip in reference.clips}
    events = reference.events
    for clip, label, onset, offset in zip(events.clip, events.label, events.onset.tolist(), events.offset.tolist()):
        truth[reference.clips[clip]].append((onset, offset, reference.labels[label]))
    return truth


@dataclass(frozen=True, eq=False)
class Areas:
    """PSDS of many resamples: ``value`` and ``mean`` ``(resamples,)``, ``classes`` ``(resamples, classes)``.

    A class without events in a resample is NaN in ``classes`` and left out of the others, NaN if none is left.
    """

    value: np.ndarray
    mean: np.ndarray
    classes: np.ndarray


def resampled_areas(
    changes: Sequence[Changes],
    reference: Reference,
    scenario: Scenario,
    weights: np.ndarray,
    progress: Callable[[int], None] | None = None,
) -> Areas:
    """PSDS with every clip counted ``weights`` times, for every row of ``weights`` ``(resamples, clips)``.

    Args:
        changes: counts per class for this scenario's criteria.
        reference: ground truth ready for intersection.
        scenario: the same one the changes were counted for.
        weights: how often each clip is drawn.
        progress: called with the number of resamples done.
    """
    scenario = scenario.for_classes(len(reference.labels))
    events, seconds = reference.counts.astype(np.float64), reference.event_seconds
    corpora, of = np.unique(reference.judged, axis=1, return_inverse=True)  # alike for most classes
    of = of.ravel()
    value, mean = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    classes = np.full((len(weights), len(reference.labels)), np.nan)
    for index, weight in enumerate(weights.astype(np.float64)):
        count, covered = weight @ events, (weight * corpora.T) @ seconds
        per_hour = SECONDS_PER_HOUR / np.maximum((weight * corpora.T) @ reference.durations, 1e-12)
        curves = []
        for label in np.flatnonzero(count).tolist():
            factors = scenario.cross_trigger_weight / np.maximum(covered[of[label]], 1e-12) / max(len(changes) - 1, 1)
            curve = _curve(changes[label], weight, count[label], factors, per_hour[of[label]])
            classes[index, label] = _area(*curve)
            curves.append(curve)
        if curves:
            value[index] = _area(*_over_classes(curves, scenario.instability_weight))
            mean[index] = np.nanmean(classes[index])
        if progress is not None:
            progress(index + 1)
    return Areas(value, mean, classes)


def _curve(
    change: Changes, weight: np.ndarray, events: float, factors: np.ndarray, per_hour: float
) -> tuple[np.ndarray, np.ndarray]:
    """Staircase of one class: rising effective false positive rates and the best ratio reached up to each."""
    drawn = weight[change.clip]
    false = np.cumsum(change.wrong * drawn)[change.last]
    if change.cross is not None:
        # Relative to the class's own false positives: cross rates are per second of the other class.
        triggered = np.cumsum((change.cross @ factors) * drawn)[change.last]
        rate = np.maximum(false * per_hour + triggered * SECONDS_PER_HOUR, 0.0)
    else:
        rate = false * per_hour
    inside = rate <= MAX_RATE
    found = np.cumsum(change.found * drawn)[change.last][inside]
    rate = rate[inside]
    order = np.argsort(rate, kind="stable")
    ratio = np.maximum.accumulate(np.append(0.0, found[order] / events))
    return np.append(0.0, rate[order]), ratio


def _over_classes(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], instability_weight: float
) -> tuple[np.ndarray, np.ndarray]:
    rates = np.unique(np.concatenate([rate for rate, _ in curves]))
    ratios = np.stack([ratio[np.searchsorted(rate, rates, side="right") - 1] for rate, ratio in curves])
    return rates, np.maximum(ratios.mean(axis=0) - instability_weight * ratios.std(axis=0), 0.0)


def _area(rate: np.ndarray, ratio: np.ndarray) -> float:
    return float(ratio @ np.diff(np.append(rate, MAX_RATE))) / MAX_RATE


def class_areas(changes: Sequence[Changes], reference: Reference, scenario: Scenario) -> np.ndarray:
    """Area under the curve of each class over the whole set, ``(classes,)``."""
    return resampled_areas(changes, reference, scenario, np.ones((1, len(reference.clips)))).classes[0]


def _intersection_psds() -> Callable[..., Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependency dcase_util imports pkg_resources
            from sed_scores_eval.intersection_based import psds
    except ImportError as error:
        raise InputError(f"PSDS needs sed_scores_eval ({error}); pip install 'pmam-plugin[eval]'") from error
    return psds
