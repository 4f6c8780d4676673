"""The figures of a results table: PSDS1, PSDS2, event, segment and clip F1, mpAUC, with bootstrap intervals.

All take tables (:mod:`pmam_plugin.tables.scores`) and return plain numbers in [0, 1] under these keys:

* ``psds1, psds2``: DCASE scenarios; ``psds1_mean``: PSDS1 without the class-instability penalty (alpha_st = 0);
* ``event_f1_macro, event_f1_micro``: 200 ms collars, 20 % of the length for offsets; ``event_f1_500ms,
  event_f1_1s``: the macro average with collars of that width; ``segment_f1_*``: 1 s segments;
* ``clip_f1_macro``: classes present in a clip;
* ``mpauc``: area under the ROC of 1 s segments up to a false positive rate of 0.1, mean over classes;
  ``segment_f1_optimal``: segment F1, macro, each class at the threshold that is best for it on these very clips;
* ``<key>_ci``: ``[low, high]``, the central 95 % of the same figure over bootstrap resamples;
* ``<key>_draws``, where asked for: the figure of every resample, ``(bootstrap,)``;
* ``per_class``: per class ``events`` (their number), ``psds1, psds2, event_f1, event_precision, event_recall,
  segment_f1, clip_f1, pauc, segment_f1_optimal``, None for a class without ground truth, which no average includes.

The set of clips is that of ``durations``: clips without events belong to it, and detections in them are false. Where
clips come from corpora that annotate different classes, a class is judged in those alone whose scores have a column for
it: neither detections nor the time elsewhere count.

A bootstrap resample draws as many clips as there are, with replacement, and weighs each clip's counts by how often it
was drawn: per-clip counts are taken once, so a resample costs milliseconds, and all figures see the same resamples.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pmam_plugin.audio.names import clip_name
from pmam_plugin.errors import InputError, Progress
from pmam_plugin.evaluation import counts, psds
from pmam_plugin.evaluation.alignment import aligned
from pmam_plugin.evaluation.intersection import Changes, count_changes
from pmam_plugin.evaluation.intervals import events_above, operating_point_intervals
from pmam_plugin.evaluation.psds import SCENARIOS
from pmam_plugin.evaluation.reference import EventArray, Reference, event_array
from pmam_plugin.evaluation.segments import Segments, segment_figures, segments_of
from pmam_plugin.postprocessing.per_class import PerClass, per_class
from pmam_plugin.tables import warn_of_look_alikes

logger = logging.getLogger(__name__)

CONFIDENCE = 0.95
RESAMPLES = 200


def evaluate_scores(
    scores: Mapping[str, pd.DataFrame],
    events: pd.DataFrame,
    durations: Mapping[str, float],
    labels: Sequence[str] | None = None,
    clip_scores: Mapping[str, Sequence[float]] | None = None,
    threshold: PerClass = 0.5,
    clip_threshold: PerClass = 0.5,
    bootstrap: int = RESAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
    segment_scores: bool = True,
    draws: bool = False,
) -> dict[str, Any]:
    """All figures of a system that gives scores.

    Args:
        scores: post-processed table ``onset, offset, <class>...`` of every clip.
        events: ground truth (:func:`~pmam_plugin.tables.read_events`).
        durations: seconds of every clip of the set.
        labels: the classes; default the columns of the tables, which then must all be alike. A table that lacks one of
            these classes is of a clip in which it is not judged.
        clip_scores: score of every class for every clip, in the order of ``labels``; default the highest frame score.
        threshold: scores above it are detections, for F1; one for all classes or one per class.
        clip_threshold: clip scores above it count as present, for the clip F1; one for all classes or one per class.
        bootstrap: number of resamples; 0 for no intervals.
        seed: of the resamples.
        progress: a progress hook.
        segment_scores: ``mpauc`` and ``segment_f1_optimal`` too, which take longer than all the rest.
        draws: the figures of every resample too. Two systems scored on the same clips with one seed see the same ones.

    Raises:
        InputError: a clip without scores or without a duration, an unknown class, a malformed table, no ground truth.
    """
    tables, reference = aligned(scores, events, durations, labels)
    limits = per_class(threshold, reference.labels, "threshold")
    weights = _resamples(len(reference.clips), bootstrap, seed)
    detected = events_above(tables, reference.clips, reference.labels, limits)
    if clip_scores is None:
        present = detected.tally(reference.judged.shape) > 0
    else:
        present = _clip_matrix(clip_scores, reference) > per_class(clip_threshold, reference.labels, "clip_threshold")
    results = _f1(detected, present & reference.judged, reference, weights)
    united = reference.for_intersection()
    if segment_scores:
        _add_segment_figures(results, segments_of(tables, united), united, weights)
    for key, changes in psds.score_changes(tables, united, tuple(SCENARIOS), progress).items():
        _add_psds(results, key, changes, united, weights, progress)
    return _ordered(results, draws)


def evaluate_events(
    events: pd.DataFrame,
    ground_truth: pd.DataFrame,
    durations: Mapping[str, float],
    labels: Sequence[str] | None = None,
    bootstrap: int = RESAMPLES,
    seed: int = 0,
    sed_eval: bool = False,
) -> dict[str, Any]:
    """F1 figures of a list of detections.

    Events are fitted into their clips, as in training, and an event that is late by just the collar is in time.

    Args:
        events: detections; a clip without any need not be listed.
        ground_truth: events as annotated.
        durations: seconds of every clip of the set.
        labels: the classes; default all that occur in either table.
        bootstrap: number of resamples; 0 for no intervals.
        seed: of the resamples.
        sed_eval: leave events as annotated and collars without tolerance: the figures of sed_eval to the last digit.

    Raises:
        InputError: a clip without a duration, an unknown class, no ground truth.
    """
    reference = Reference.from_tables(ground_truth, durations, _labels(labels, ground_truth, events), not sed_eval)
    ends = None if sed_eval else reference.durations
    detected = event_array(events, reference.clips, reference.labels, "the detections", ends)
    weights = _resamples(len(reference.clips), bootstrap, seed)
    tolerance = 0.0 if sed_eval else counts.TOLERANCE
    present = detected.tally(reference.judged.shape) > 0
    return _ordered(_f1(detected, present, reference, weights, tolerance))


def evaluate_operating_points(
    detections: Mapping[float, pd.DataFrame],
    ground_truth: pd.DataFrame,
    durations: Mapping[str, float],
    labels: Sequence[str] | None = None,
    bootstrap: int = RESAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """PSDS from detections at some thresholds (as psds_eval takes it): a lower bound of the exact one.

    Args:
        detections: events per threshold (:func:`~pmam_plugin.tables.scores.read_operating_points`).
        ground_truth: events as annotated.
        durations: seconds of every clip of the set.
        labels: the classes; default all that occur in any table.
        bootstrap: number of resamples; 0 for no intervals.
        seed: of the resamples.
        progress: a progress hook.

    Raises:
        InputError: no thresholds, a clip without a duration, an unknown class, no ground truth.
    """
    if not detections:
        raise InputError("no detections at any threshold were given, so there is no curve to measure")
    known = _labels(labels, ground_truth, *detections.values())
    reference = Reference.from_tables(ground_truth, durations, known)
    united = reference.for_intersection()
    points = {
        float(threshold): _only(
            event_array(table, reference.clips, known, f"detections at {threshold}", reference.durations), known, united
        )
        for threshold, table in detections.items()
    }
    intervals = operating_point_intervals(points, len(united.labels))
    weights = _resamples(len(reference.clips), bootstrap, seed)
    results: dict[str, Any] = {"per_class": _empty_classes(reference)}
    for key, changes in zip(SCENARIOS, count_changes([intervals], united, psds.criteria(tuple(SCENARIOS), united))):
        _add_psds(results, key, changes, united, weights, progress)
    return _ordered(results)


def _add_psds(
    results: dict[str, Any],
    key: str,
    changes: Sequence[Changes],
    united: Reference,
    weights: np.ndarray,
    progress: Progress | None,
) -> None:
    scenario = SCENARIOS[key]
    roc = psds.psd_roc_of(changes, united, scenario)
    for label, value in roc.class_values.items():
        results["per_class"][label][key] = value
    results[key] = roc.value

    def told(done: int) -> None:
        if progress is not None:
            progress(f"{key}: bootstrap", done, len(weights))

    areas, means = psds.resampled_areas(changes, united, scenario, weights, told)
    _add_interval(results, key, areas)
    if key == "psds1":
        results["psds1_mean"] = roc.mean
        _add_interval(results, "psds1_mean", means)


def _add_segment_figures(
    results: dict[str, Any], segments: list[Segments], united: Reference, weights: np.ndarray
) -> None:
    whole, drawn = (segment_figures(segments, each) for each in (np.ones((1, len(united.clips))), weights))
    with np.errstate(invalid="ignore"):  # a resample without any event
        means = np.nansum(drawn, axis=2) / (~np.isnan(drawn)).sum(axis=2)
    for place, (key, class_key) in enumerate((("mpauc", "pauc"), ("segment_f1_optimal", "segment_f1_optimal"))):
        for label, value in zip(united.labels, whole[place][0].tolist()):
            results["per_class"][label][class_key] = value
        results[key] = float(whole[place].mean())
        _add_interval(results, key, means[place])


def _f1(
    detected: EventArray,
    present: np.ndarray,
    reference: Reference,
    weights: np.ndarray,
    tolerance: float = counts.TOLERANCE,
) -> dict[str, Any]:
    results: dict[str, Any] = {"per_class": _empty_classes(reference)}
    for kind, tally in (
        ("event", counts.event_counts(detected, reference, tolerance)),
        ("segment", counts.segment_counts(detected, reference)),
        ("clip", counts.clip_counts(present, reference)),
    ):
        whole = counts.f1_scores(tally.sum(axis=0))
        drawn = counts.f1_scores(np.tensordot(weights, tally, axes=1))
        averages = ("macro",) if kind == "clip" else ("macro", "micro")
        for average in averages:
            results[f"{kind}_f1_{average}"] = float(getattr(whole, average))
            _add_interval(results, f"{kind}_f1_{average}", getattr(drawn, average))
        measures = ("f1", "precision", "recall") if kind == "event" else ("f1",)
        for measure in measures:
            for label, value in zip(reference.labels, getattr(whole, measure)):
                if not np.isnan(value):
                    results["per_class"][label][f"{kind}_{measure}"] = float(value)
    for width, collar in counts.WIDE_COLLARS.items():
        tally = counts.event_counts(detected, reference, tolerance, collar)
        results[f"event_f1_{width}"] = float(counts.f1_scores(tally.sum(axis=0)).macro)
        if len(weights):
            _add_interval(results, f"event_f1_{width}", counts.f1_scores(np.tensordot(weights, tally, axes=1)).macro)
    return results


def _empty_classes(reference: Reference) -> dict[str, dict[str, Any]]:
    return {label: {"events": int(count)} for label, count in zip(reference.labels, reference.counts.sum(axis=0))}


def _ordered(results: dict[str, Any], draws: bool = False) -> dict[str, Any]:
    """Averages first, classes last, every class with the same keys (None where there is no ground truth)."""
    classes = results.pop("per_class")
    if not draws:
        results = {key: value for key, value in results.items() if not key.endswith("_draws")}
    measures = list(dict.fromkeys(key for values in classes.values() for key in values))
    results["per_class"] = {label: {key: values.get(key) for key in measures} for label, values in classes.items()}
    return results


def _resamples(clips: int, resamples: int, seed: int) -> np.ndarray:
    """How often each clip is drawn in each resample, ``(resamples, clips)``."""
    return np.random.default_rng(seed).multinomial(clips, np.full(clips, 1.0 / clips), size=resamples)


def _add_interval(results: dict[str, Any], key: str, values: np.ndarray) -> None:
    if not len(values):
        return
    tail = 100 * (1 - CONFIDENCE) / 2
    # NaN: a resample without any event, in which nothing can be measured.
    results[f"{key}_ci"] = [float(bound) for bound in np.nanpercentile(values, (tail, 100 - tail))]
    results[f"{key}_draws"] = values


def _labels(labels: Sequence[str] | None, *tables: pd.DataFrame) -> tuple[str, ...]:
    if labels is not None:
        return tuple(labels)
    found = [set(table["event_label"].dropna().astype(str)) for table in tables]
    united = set().union(*found)
    warn_of_look_alikes(united, "ground truth and detections")
    if found[0] and (invented := sorted(united - found[0])):
        logger.warning("no ground-truth event of %s: its detections count for no figure", ", ".join(invented))
    return tuple(sorted(united))


def _only(events: EventArray, labels: Sequence[str], united: Reference) -> EventArray:
    """Events of the classes that ``united`` keeps, under its class numbers."""
    number = np.array([united.labels.index(label) if label in united.labels else -1 for label in labels])
    kept = events.select(number[events.label] >= 0)
    return EventArray(kept.clip, number[kept.label], kept.onset, kept.offset)


def _clip_matrix(clip_scores: Mapping[str, Sequence[float]], reference: Reference) -> np.ndarray:
    vectors = {clip_name(clip): vector for clip, vector in clip_scores.items()}
    matrix = np.zeros((len(reference.clips), len(reference.labels)))
    for index, clip in enumerate(reference.clips):
        if clip not in vectors or len(vectors[clip]) != len(reference.labels):
            raise InputError(f"clip {clip} needs a clip score for each of the {len(reference.labels)} classes")
        matrix[index] = np.asarray(vectors[clip], dtype=np.float64)
    return matrix
