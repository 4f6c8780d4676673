import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from pmam_plugin.evaluation import evaluate_operating_points, evaluate_scores, psd_roc
from pmam_plugin.evaluation.intersection import count_changes
from pmam_plugin.evaluation.intervals import active_runs, score_intervals
from pmam_plugin.evaluation.psds import SCENARIOS, psd_roc_of, resampled_areas
from pmam_plugin.evaluation.reference import Reference
from tests.evaluation.examples import LABELS, events_table, ground_truth_lists, random_set, runs, scores_table

SETTINGS = {
    "psds1": {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "cttc_threshold": None, "alpha_ct": 0.0, "alpha_st": 1.0},
    "psds2": {"dtc_threshold": 0.1, "gtc_threshold": 0.1, "cttc_threshold": 0.3, "alpha_ct": 0.5, "alpha_st": 1.0},
}


def by_sed_scores_eval(scores, events, durations, **arguments):
    """PSDS by the published package from end to end, its own statistics included."""
    from sed_scores_eval import intersection_based

    seconds = {name.removesuffix(".wav"): value for name, value in durations.items()}
    value, classes, _, _ = intersection_based.psds(scores, ground_truth_lists(events), seconds, **arguments)
    return value, classes


@pytest.mark.parametrize("key", ["psds1", "psds2"])
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 6]))
def test_psds_is_that_of_sed_scores_eval(key, seed, decimals):
    scores, events, durations = random_set(seed, decimals=decimals)
    value, classes = by_sed_scores_eval(scores, events, durations, max_efpr=100.0, **SETTINGS[key])
    ours = psd_roc(scores, events, durations, scenario=key)
    assert ours.value == pytest.approx(value, abs=1e-9)
    assert ours.class_values == pytest.approx(classes, abs=1e-9)
    assert ours.mean == pytest.approx(np.mean(list(classes.values())), abs=1e-9)


def test_psds_is_that_of_sed_scores_eval_where_the_rate_limit_cuts_the_curve():
    scores, events, _ = random_set(3, clips=30, frames=100)
    durations = {f"clip{clip}.wav": 25.0 for clip in range(30)}  # 100 false positives per hour are 20
    for key in SCENARIOS:
        value, _ = by_sed_scores_eval(scores, events, durations, max_efpr=100.0, **SETTINGS[key])
        assert 0 < value < 1
        assert psd_roc(scores, events, durations, scenario=key).value == pytest.approx(value, abs=1e-9)


def perfect(seed=0):
    _, events, durations = random_set(seed)
    scores = {}
    for name in durations:
        active = np.zeros((30, len(LABELS)))
        for _, onset, offset, label in events[events["filename"] == name].dropna().itertuples(index=False):
            active[round(onset * 10) : round(offset * 10), LABELS.index(label)] = 1.0
        scores[name.removesuffix(".wav")] = scores_table(active)
    return scores, events, durations


def test_perfect_scores_reach_one_everywhere():
    results = evaluate_scores(*perfect(), bootstrap=20)
    figures = {key: value for key, value in results.items() if key != "per_class" and not key.endswith("_ci")}
    assert figures == pytest.approx(dict.fromkeys(figures, 1.0))
    assert all(results[f"{key}_ci"] == pytest.approx([1.0, 1.0]) for key in figures)
    assert all(
        value == pytest.approx(1.0)
        for row in results["per_class"].values()
        for key, value in row.items()
        if key != "events"
    )


def test_silent_scores_give_zeros_not_nan():
    scores, events, durations = random_set(0)
    silent = {clip: scores_table(np.full((30, 3), -np.inf)) for clip in scores}
    results = evaluate_scores(silent, events, durations, bootstrap=10)
    for key, value in results.items():
        if key != "per_class":
            assert value == ([0.0, 0.0] if key.endswith("_ci") else 0.0), key


def test_false_alarms_in_clips_without_events_cost():
    scores, events, durations = perfect()
    noisy = {**scores, "clip1": scores_table(np.tile(np.repeat([[1.0], [0.0]], [3, 2], axis=0), (6, 3)))}
    clean, worse = (evaluate_scores(tables, events, durations, bootstrap=0) for tables in (scores, noisy))
    for key in ("psds1", "psds2", "event_f1_macro", "segment_f1_macro", "clip_f1_macro"):
        assert worse[key] < clean[key], key


def test_one_class_alone_has_no_cross_triggers():
    scores = {"a": scores_table(np.repeat([[0.1], [0.9], [0.1]], 10, axis=0)), "b": scores_table(np.full((30, 1), 0.2))}
    events = events_table([("a.wav", 1.0, 2.0, "Cat")])
    roc = psd_roc(scores, events, {"a.wav": 3.0, "b.wav": 3.0}, scenario="psds2")
    assert roc.value == pytest.approx(1.0)


def test_the_curve_rises_and_its_area_is_the_value():
    roc = psd_roc(*random_set(5, clips=30, frames=100))
    for rate, ratio in [(roc.rate, roc.ratio), *roc.class_curves.values()]:
        assert (np.diff(rate) >= 0).all()
        assert rate[0] == 0
        assert ((ratio >= 0) & (ratio <= 1)).all()
    assert np.sum(roc.ratio[:-1] * np.diff(roc.rate)) / 100 == pytest.approx(roc.value)


def changes_of(scores, events, durations):
    reference = Reference.from_tables(events, durations, LABELS).for_intersection()
    portions = [part for _, part in score_intervals(scores, reference.clips, reference.labels)]
    return reference, count_changes(portions, reference, [scenario.criteria for scenario in SCENARIOS.values()])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_drawing_every_clip_once_gives_the_figure_itself(seed):
    reference, counted = changes_of(*random_set(seed, clips=12, frames=60))
    for changes, scenario in zip(counted, SCENARIOS.values()):
        roc = psd_roc_of(changes, reference, scenario)
        assert np.ravel(resampled_areas(changes, reference, scenario, np.ones((1, 12)))).tolist() == [
            roc.value,
            roc.mean,
        ]


@pytest.mark.parametrize("key", ["psds1", "psds2"])
def test_drawing_a_clip_twice_is_having_two_of_it(key):
    scores, events, durations = random_set(7, clips=6, frames=60)
    weights = np.array([2, 1, 0, 3, 1, 1])
    reference, counted = changes_of(scores, events, durations)
    area = resampled_areas(dict(zip(SCENARIOS, counted))[key], reference, SCENARIOS[key], weights[None])[0][0]
    copies, rows, seconds = {}, [], {}
    for clip, weight in enumerate(weights):
        for copy in range(weight):
            copies[f"clip{clip}-{copy}"] = scores[f"clip{clip}"]
            rows.append(events[events["filename"] == f"clip{clip}.wav"].assign(filename=f"clip{clip}-{copy}.wav"))
            seconds[f"clip{clip}-{copy}.wav"] = durations[f"clip{clip}.wav"]
    assert area == pytest.approx(psd_roc(copies, pd.concat(rows), seconds, scenario=key).value, abs=1e-9)


def test_a_resample_without_any_event_is_left_out():
    reference, counted = changes_of(*random_set(0))
    weights = np.zeros((2, 5))
    weights[0, 1], weights[1] = 5, 1  # clip 1 is the one without events
    value, mean = resampled_areas(counted[0], reference, SCENARIOS["psds1"], weights)
    assert np.isnan(value).tolist() == np.isnan(mean).tolist() == [True, False]


def test_an_interval_holds_the_figure_and_narrows_with_more_clips():
    few, many = (evaluate_scores(*random_set(1, clips=clips, frames=60), bootstrap=100) for clips in (8, 80))
    for key in ("psds1_mean", "event_f1_macro", "segment_f1_micro"):
        low, high = many[f"{key}_ci"]
        assert low <= many[key] <= high
        assert high - low < few[f"{key}_ci"][1] - few[f"{key}_ci"][0]


def test_the_same_seed_gives_the_same_intervals():
    first, again, other = (evaluate_scores(*random_set(1), bootstrap=20, seed=seed) for seed in (4, 4, 5))
    assert first == again
    assert first != other


def test_operating_points_at_every_score_give_the_exact_psds():
    scores, events, durations = random_set(11, clips=8, decimals=1)
    points = {}
    for threshold in np.round(np.arange(0, 1.05, 0.1), 1):
        rows = []
        for clip, table in scores.items():
            rows += runs(table[list(LABELS)].to_numpy() >= threshold, 0.1, f"{clip}.wav")
        points[float(threshold)] = events_table(rows)
    sampled = evaluate_operating_points(points, events, durations, bootstrap=10)
    exact = evaluate_scores(scores, events, durations, bootstrap=10)
    for key in ("psds1", "psds1_mean", "psds2", "psds1_ci", "psds2_ci"):
        assert sampled[key] == pytest.approx(exact[key], abs=1e-9), key


def test_fewer_operating_points_never_raise_the_mean():
    scores, events, durations = random_set(11, clips=8)
    rows = {
        threshold: events_table(
            [
                row
                for clip, table in scores.items()
                for row in runs(table[list(LABELS)].to_numpy() >= threshold, 0.1, clip)
            ]
        )
        for threshold in (0.2, 0.5, 0.8)
    }
    exact = psd_roc(scores, events, durations).mean
    assert evaluate_operating_points(rows, events, durations, bootstrap=0)["psds1_mean"] <= exact + 1e-12


def test_active_runs_are_found_at_both_ends():
    label, first, last = active_runs(np.array([[1, 0], [0, 1], [1, 1]], dtype=bool))
    assert list(zip(label, first, last)) == [(0, 0, 0), (0, 2, 2), (1, 1, 2)]
