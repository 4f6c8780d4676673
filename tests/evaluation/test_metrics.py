import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from pmam_plugin.errors import InputError
from pmam_plugin.evaluation import (
    evaluate_events,
    evaluate_operating_points,
    evaluate_scores,
    psd_roc,
    read_durations,
    read_events,
    read_operating_points,
)
from tests.evaluation.examples import LABELS, events_table, random_set, scores_table
from tests.support import shared

KEYS = {
    *("psds1", "psds1_mean", "psds2", "clip_f1_macro", "mpauc", "segment_f1_optimal"),
    *("event_f1_macro", "event_f1_micro", "event_f1_500ms", "event_f1_1s", "segment_f1_macro", "segment_f1_micro"),
}


def published():
    folder = shared("desed_metadata") / "validation"
    return read_events(folder / "validation.tsv"), read_durations(folder / "validation_durations.tsv")


def test_published_detections_get_the_figures_of_sed_eval():
    truth, durations = published()
    detections = read_events(shared("published_predictions/predictions0.5.csv"))
    results = evaluate_events(detections, truth, durations, bootstrap=100, sed_eval=True)
    wanted = {"event_f1_micro": 40.95, "event_f1_macro": 39.87, "segment_f1_micro": 75.47, "segment_f1_macro": 69.36}
    for key, percent in wanted.items():
        assert 100 * results[key] == pytest.approx(percent, abs=0.01), key
        low, high = results[f"{key}_ci"]
        assert low < results[key] < high
        assert 0.005 < high - low < 0.08
    # From the published class-wise report of the segment-based metrics, in percent.
    published_f1 = {"Dog": 65.0, "Speech": 88.9, "Dishes": 46.9, "Frying": 64.0, "Blender": 61.2}
    for label, percent in published_f1.items():
        assert 100 * results["per_class"][label]["segment_f1"] == pytest.approx(percent, abs=0.05)


def test_published_operating_points_give_a_psds_below_that_of_their_scores():
    truth, durations = published()
    points = read_operating_points(shared("published_predictions/operating_points"))
    few = set(sorted(durations)[::4])
    truth, durations = truth[truth["filename"].isin(few)], {clip: durations[clip] for clip in few}
    points = {threshold: table[table["filename"].isin(few)] for threshold, table in list(points.items())[4::10]}
    results = evaluate_operating_points(points, truth, durations, bootstrap=0)
    # The same detections as scores: the highest threshold at which each moment is detected, on the detector's grid.
    labels, rows = sorted(truth["event_label"].dropna().unique()), 157
    grid = {clip: np.full((rows, len(labels)), -np.inf) for clip in durations}
    for threshold, table in points.items():
        first = (table["onset"] / 0.064).round().astype(int)
        last = (table["offset"] / 0.064).round().astype(int)
        for clip, start, stop, label in zip(table["filename"], first, last, table["event_label"].map(labels.index)):
            grid[clip][start:stop, label] = threshold
    tables = {clip: scores_table(scores, 0.064, tuple(labels)) for clip, scores in grid.items()}
    for key in ("psds1", "psds2"):
        assert results[key] == pytest.approx(psd_roc(tables, truth, durations, scenario=key).value, abs=0.002)


def test_all_figures_have_intervals_and_classes_and_are_plain_json():
    results = evaluate_scores(*random_set(0), bootstrap=20)
    assert {key for key in results if key != "per_class"} == KEYS | {f"{key}_ci" for key in KEYS}
    assert set(results["per_class"]) == set(LABELS)
    assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_without_resamples_there_are_no_intervals():
    assert {key for key in evaluate_scores(*random_set(0), bootstrap=0) if key != "per_class"} == KEYS


def test_scores_and_their_thresholded_events_have_the_same_f1():
    scores, events, durations = random_set(2)
    rows = []
    for clip, table in scores.items():
        for label in LABELS:
            active = (table[label] > 0.6).to_numpy().astype(int)
            edges = np.flatnonzero(np.diff(np.concatenate(([0], active, [0]))))
            rows += [
                (clip, table["onset"][start], table["offset"][stop - 1], label)
                for start, stop in zip(edges[::2], edges[1::2])
            ]
    by_scores = evaluate_scores(scores, events, durations, threshold=0.6, bootstrap=0)
    by_events = evaluate_events(events_table(rows), events, durations, LABELS, bootstrap=0)
    for key in KEYS & set(by_events):
        assert by_scores[key] == by_events[key]


def test_a_threshold_per_class_applies_to_its_class():
    scores, events, durations = random_set(2)
    results = evaluate_scores(scores, events, durations, threshold={"Cat": 0.6, "Dog": 2.0, "Speech": 0.6}, bootstrap=0)
    whole = evaluate_scores(scores, events, durations, threshold=0.6, bootstrap=0)
    assert results["per_class"]["Dog"]["event_f1"] == 0.0
    assert results["per_class"]["Cat"] == whole["per_class"]["Cat"]


def test_clip_scores_replace_the_highest_frame_score():
    scores, events, durations = random_set(2)
    truth = events.dropna().groupby("filename")["event_label"].agg(set)
    perfect = {
        filename: [float(label in truth.get(filename, ())) for label in LABELS]
        for filename in events["filename"].unique()
    }
    assert evaluate_scores(scores, events, durations, clip_scores=perfect, bootstrap=0)["clip_f1_macro"] == 1.0
    assert evaluate_scores(scores, events, durations, bootstrap=0)["clip_f1_macro"] < 1.0


def test_columns_may_stand_in_any_order_in_each_table():
    scores, events, durations = random_set(2)
    shuffled = dict(scores)
    shuffled["clip2"] = scores["clip2"][["onset", "offset", "Speech", "Cat", "Dog"]]
    assert evaluate_scores(shuffled, events, durations, bootstrap=0) == evaluate_scores(
        scores, events, durations, bootstrap=0
    )


def test_progress_is_reported_to_the_end():
    seen = {}
    evaluate_scores(*random_set(0), bootstrap=5, progress=lambda what, done, of: seen.update({what: (done, of)}))
    assert seen == {
        "comparing scores with the ground truth": (5, 5),
        "psds1: bootstrap": (5, 5),
        "psds2: bootstrap": (5, 5),
    }


def spoiled(change):
    scores, events, durations = random_set(0)
    return change(scores, events, durations)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s, e, d: ({}, e, d), "no scores were given"),
        (lambda s, e, d: ({k: v for k, v in s.items() if k != "clip3"}, e, d), "clip3 have a duration but no scores"),
        (lambda s, e, d: ({**s, "extra": s["clip3"]}, e, d), "extra have scores but no duration"),
        (lambda s, e, d: ({**s, "clip3.wav": s["clip3"]}, e, d), "name one clip"),
        (lambda s, e, d: ({**s, "clip3": s["clip3"].drop(columns="Dog")}, e, d), "clip3: no column for Dog"),
        (lambda s, e, d: ({**s, "clip3": s["clip3"].iloc[::2]}, e, d), "scores of clip3, line 3"),
        (lambda s, e, d: ({k: v.drop(columns="Dog") for k, v in s.items()}, e, d), "unknown class Dog"),
        (lambda s, e, d: (s, e, {k: v for k, v in d.items() if k != "clip3.wav"}), "clip3.wav have no duration"),
        (lambda s, e, d: (s, e[:0], d), "no event"),
    ],
)
def test_a_set_that_does_not_fit_together_is_refused(change, said):
    with pytest.raises(InputError, match=said):
        evaluate_scores(*spoiled(change))


def test_clip_scores_and_thresholds_must_be_complete():
    scores, events, durations = random_set(0)
    with pytest.raises(InputError, match="clip0 needs a clip score for each of the 3 classes"):
        evaluate_scores(scores, events, durations, clip_scores={"clip0": [0.5]})
    with pytest.raises(InputError, match="threshold has no value for Dog"):
        evaluate_scores(scores, events, durations, threshold={"Cat": 0.5, "Speech": 0.5})


def test_detections_of_an_unlisted_clip_or_class_are_refused():
    truth, durations = events_table([("a.wav", 0, 1, "Dog")]), {"a.wav": 10.0}
    with pytest.raises(InputError, match=r"the detections: .* such as b\.wav have no duration"):
        evaluate_events(events_table([("b.wav", 0, 1, "Dog")]), truth, durations)
    with pytest.raises(InputError, match="the detections: unknown class Cat"):
        evaluate_events(events_table([("a.wav", 0, 1, "Cat")]), truth, durations, labels=["Dog"])
    with pytest.raises(InputError, match="no detections at any threshold"):
        evaluate_operating_points({}, truth, durations)


def test_segment_figures_alone_need_another_package_and_say_which(monkeypatch):
    for name in ("segment_based.intermediate_statistics", "intersection_based"):
        monkeypatch.setitem(sys.modules, f"sed_scores_eval.{name}", None)
    assert psd_roc(*random_set(0)).value >= 0
    with pytest.raises(InputError, match=r"pip install 'pmam-plugin\[eval\]'"):
        evaluate_scores(*random_set(0), bootstrap=0)


def test_importing_the_room_stays_light():
    heavy = ("torch", "sed_scores_eval", "scipy.ndimage", "scipy.sparse", "matplotlib")
    code = f"import pmam_plugin.evaluation, sys; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_inputs_stay_as_they_are():
    scores, events, durations = random_set(0)
    copies = {clip: table.copy() for clip, table in scores.items()}
    kept = events.copy()
    evaluate_scores(scores, events, durations, bootstrap=2)
    pd.testing.assert_frame_equal(events, kept)
    for clip, table in scores.items():
        pd.testing.assert_frame_equal(table, copies[clip])
