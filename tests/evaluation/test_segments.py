"""mpAUC and F1 at the best thresholds, and classes that some clips are not asked for."""

import warnings

import numpy as np
import pandas as pd
import pytest

from pmam_plugin.errors import InputError
from pmam_plugin.evaluation import evaluate_scores, psd_roc, tune_segments, tune_thresholds
from pmam_plugin.evaluation.alignment import aligned
from pmam_plugin.evaluation.segments import segment_figures, segments_of
from pmam_plugin.evaluation.tuning import GRID
from tests.evaluation.examples import LABELS, events_table, ground_truth_lists, random_set, scores_table

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sed_scores_eval import segment_based


@pytest.mark.parametrize("seed", range(3))
def test_segment_figures_are_those_of_sed_scores_eval(seed):
    scores, events, _ = random_set(seed, clips=12, frames=55, decimals=1 + seed)
    seconds = {f"clip{clip}": 5.3 for clip in range(12)}
    ours = evaluate_scores(scores, events, seconds, bootstrap=0)
    truth = ground_truth_lists(events)
    areas, _ = segment_based.auroc(scores, truth, seconds, segment_length=1.0, max_fpr=0.1)
    f1, *_ = segment_based.best_fscore(scores, truth, seconds, segment_length=1.0)
    assert ours["mpauc"] == pytest.approx(areas["mean"])
    assert ours["segment_f1_optimal"] == pytest.approx(f1["macro_average"])
    for label in LABELS:
        assert ours["per_class"][label]["pauc"] == pytest.approx(areas[label])
        assert ours["per_class"][label]["segment_f1_optimal"] == pytest.approx(f1[label])
    assert ours["segment_f1_optimal"] >= ours["segment_f1_macro"]


def test_a_resample_is_a_set_with_clips_in_it_twice():
    scores, events, durations = random_set(4, clips=3)
    tables, reference = aligned(scores, events, durations, None)
    area, best = segment_figures(segments_of(tables, reference.for_intersection()), np.array([[2, 0, 1]]))
    copies = {f"{name}{copy}": scores[name] for name, copy in (("clip0", 0), ("clip0", 1), ("clip2", 0))}
    rows = [
        (f"{name}{copy}", *row[1:])
        for name, copy in (("clip0", 0), ("clip0", 1), ("clip2", 0))
        for row in events[events.filename == f"{name}.wav"].itertuples(index=False)
    ]
    twice = evaluate_scores(copies, events_table(rows), dict.fromkeys(copies, 400.0), bootstrap=0)
    assert twice["mpauc"] == pytest.approx(float(area.mean()))
    assert twice["segment_f1_optimal"] == pytest.approx(float(best.mean()))


def test_a_class_that_sounds_in_every_segment_is_never_found_where_it_is_not():
    table = scores_table(np.linspace(0, 1, 30)[:, None])
    figures = evaluate_scores({"a": table}, events_table([("a", 0, 3, "Cat")]), {"a": 3.0}, bootstrap=3)
    assert (figures["mpauc"], figures["segment_f1_optimal"]) == (1.0, 1.0)
    assert figures["mpauc_ci"] == [1.0, 1.0]


def test_a_class_is_judged_on_the_corpora_alone_that_annotate_it():
    """Clips 0 to 3 know Cat and Dog, clips 4 to 7 Dog and Speech; every figure of a class is that of its own clips."""
    scores, events, durations = random_set(7, clips=8, frames=60)
    known = {clip: LABELS[:2] if int(clip[4:]) < 4 else LABELS[1:] for clip in scores}
    seconds = {clip: durations[f"{clip}.wav"] / (1 + int(clip[4:])) for clip in scores}
    pairs = zip(events["filename"], events["event_label"])
    heard = np.array([not isinstance(label, str) or label in known[name.removesuffix(".wav")] for name, label in pairs])
    asked = {clip: table[["onset", "offset", *known[clip]]] for clip, table in scores.items()}
    tags = {clip: [1.0, 1.0, 1.0] for clip in scores}  # also where nobody asked
    mixed = evaluate_scores(asked, events[heard], seconds, LABELS, clip_scores=tags, bootstrap=20)
    thresholds = tune_thresholds(asked, events[heard], seconds, LABELS, prior_events=0)
    boxes = tune_segments(asked, events[heard], seconds, LABELS, GRID[:6], prior_events=0)
    for label, clips in (("Cat", range(4)), ("Speech", range(4, 8)), ("Dog", range(8))):
        names = {f"clip{number}" for number in clips}
        own = heard & events["filename"].isin({f"{name}.wav" for name in names})
        ours = (
            {name: scores[name][["onset", "offset", label]] for name in names},
            events[own & (events["event_label"] == label)],
            {name: seconds[name] for name in names},
        )
        alone = evaluate_scores(*ours, clip_scores={name: [1.0] for name in names}, bootstrap=0)
        assert thresholds[label] == tune_thresholds(*ours, [label], prior_events=0)[label]
        assert boxes.filter_seconds[label] == tune_segments(*ours, grid=GRID[:6], prior_events=0).filter_seconds[label]
        for key, value in alone["per_class"][label].items():
            if key != "psds2":  # other classes cross
                assert mixed["per_class"][label][key] == pytest.approx(value, abs=1e-9), (label, key)
    low, high = mixed["psds1_mean_ci"]
    assert low <= mixed["psds1_mean"] <= high
    assert mixed["mpauc"] == pytest.approx(np.mean([mixed["per_class"][label]["pauc"] for label in LABELS]))
    whole = evaluate_scores(scores, events[heard], seconds, LABELS, bootstrap=0)
    assert whole["per_class"]["Cat"]["pauc"] != mixed["per_class"]["Cat"]["pauc"]
    with pytest.raises(InputError, match="clip0: no column for Dog, of which the ground truth has an event there"):
        evaluate_scores({**asked, "clip0": asked["clip0"].drop(columns="Dog")}, events[heard], seconds, LABELS)


def test_cross_triggers_count_against_the_time_in_which_the_class_is_judged():
    """Clip b knows Dog alone: for Cat, neither its hour nor its Dog is there."""
    times = {"onset": [0.0, 100.0, 150.0, 250.0], "offset": [100.0, 150.0, 250.0, 3600.0]}
    both = pd.DataFrame({**times, "Cat": [0.9, 0.0, 0.5, 0.0], "Dog": [1.0, 0.0, 0.0, 0.0]})
    asked = {"a": both, "b": both.drop(columns="Cat")}
    events = events_table([("a", 0, 100, "Dog"), ("a", 150, 250, "Cat"), ("b", 0, 100, "Dog")])
    given = asked, events, dict.fromkeys(asked, 3600.0), ("Cat", "Dog")
    # One false alarm in an hour, and half of one cross trigger in 100 s of Dog, before Cat is found.
    assert psd_roc(*given, scenario="psds2").class_values == pytest.approx({"Cat": 1 - (1 + 18) / 100, "Dog": 1.0})
