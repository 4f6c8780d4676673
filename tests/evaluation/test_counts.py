import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pmam_plugin.evaluation import evaluate_events
from pmam_plugin.evaluation.counts import f1_scores
from tests.evaluation.examples import LABELS, events_table

CLIPS = ("a.wav", "b.wav", "c.wav")
# Times on a grid of 50 ms meet the collar of 200 ms exactly now and then.
times = st.tuples(st.integers(0, 60), st.integers(1, 40)).map(lambda pair: (pair[0] * 0.05, (pair[0] + pair[1]) * 0.05))
event = st.tuples(st.sampled_from(CLIPS), times, st.sampled_from(LABELS)).map(lambda e: (e[0], *e[1], e[2]))
jitter = st.integers(-5, 5)


@st.composite
def truth_and_guesses(draw):
    truth = draw(st.lists(event, min_size=1, max_size=12))
    guesses = draw(st.lists(event, max_size=4))
    for clip, onset, offset, label in truth:
        if draw(st.booleans()):
            early, late = draw(jitter) * 0.05, draw(jitter) * 0.05
            guesses.append((clip, max(onset + early, 0.0), max(offset + late, onset + early, 0.05), label))
    return truth, guesses


def by_sed_eval(truth, guesses):
    """Macro and micro F1 of both kinds, by the reference implementation."""
    sed_eval = pytest.importorskip("sed_eval").sound_event
    measures = {
        "event": sed_eval.EventBasedMetrics(
            list(LABELS), t_collar=0.2, percentage_of_length=0.2, empty_system_output_handling="zero_score"
        ),
        "segment": sed_eval.SegmentBasedMetrics(list(LABELS), time_resolution=1.0),
    }
    for width, collar in (("500ms", 0.5), ("1s", 1.0)):
        measures[width] = sed_eval.EventBasedMetrics(
            list(LABELS), t_collar=collar, percentage_of_length=0.2, empty_system_output_handling="zero_score"
        )
    measures["segment"].empty_system_output_handling = "zero_score"
    for clip in CLIPS:
        lists = [
            [
                {"file": clip, "onset": onset, "offset": offset, "event_label": label}
                for name, onset, offset, label in rows
                if name == clip
            ]
            for rows in (truth, guesses)
        ]
        for measure in measures.values():
            measure.evaluate(*lists)
    figures = {}
    for width in ("500ms", "1s"):
        average = measures.pop(width).results_class_wise_average_metrics()
        figures[f"event_f1_{width}"] = average["f_measure"]["f_measure"]
    for kind, measure in measures.items():
        figures[f"{kind}_f1_macro"] = measure.results_class_wise_average_metrics()["f_measure"]["f_measure"]
        figures[f"{kind}_f1_micro"] = measure.results_overall_metrics()["f_measure"]["f_measure"]
    return figures


@settings(max_examples=40, deadline=None)
@given(truth_and_guesses())
def test_event_and_segment_f1_are_those_of_sed_eval(example):
    truth, guesses = example
    durations = dict.fromkeys(CLIPS, 10.0)
    ours = evaluate_events(events_table(guesses), events_table(truth), durations, LABELS, bootstrap=0, sed_eval=True)
    theirs = by_sed_eval(truth, guesses)
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, abs=1e-12), key


def evaluate(truth, guesses, labels=None):
    durations = dict.fromkeys(CLIPS, 10.0)
    return evaluate_events(events_table(guesses), events_table(truth), durations, labels, bootstrap=0)


def test_an_event_matches_within_its_collars_only():
    truth = [("a.wav", 1.0, 5.0, "Dog")]  # offset collar: 20 % of 4 s
    assert evaluate(truth, [("a.wav", 1.19, 5.79, "Dog")])["event_f1_macro"] == 1.0
    assert evaluate(truth, [("a.wav", 1.21, 5.0, "Dog")])["event_f1_macro"] == 0.0
    assert evaluate(truth, [("a.wav", 1.0, 5.81, "Dog")])["event_f1_macro"] == 0.0
    assert evaluate(truth, [("b.wav", 1.0, 5.0, "Dog")])["event_f1_macro"] == 0.0


def test_matching_finds_the_most_pairs_where_greedy_does_not():
    truth = [("a.wav", 1.0, 2.0, "Dog"), ("a.wav", 1.3, 2.3, "Dog")]
    guesses = [("a.wav", 1.15, 2.15, "Dog"), ("a.wav", 0.85, 1.85, "Dog")]
    # The first guess fits both events, the second only the first event.
    assert evaluate(truth, guesses)["event_f1_micro"] == 1.0


def test_an_event_is_matched_once():
    results = evaluate([("a.wav", 1.0, 2.0, "Dog")], [("a.wav", 1.0, 2.0, "Dog"), ("a.wav", 1.1, 2.1, "Dog")])
    assert results["event_f1_micro"] == pytest.approx(2 / 3)
    assert results["per_class"]["Dog"]["event_precision"] == 0.5
    assert results["per_class"]["Dog"]["event_recall"] == 1.0


def test_a_class_without_ground_truth_counts_in_the_micro_average_only():
    truth = [("a.wav", 1.0, 2.0, "Dog")]
    guesses = [("a.wav", 1.0, 2.0, "Dog"), ("a.wav", 4.0, 5.0, "Cat")]
    results = evaluate(truth, guesses)
    assert results["event_f1_macro"] == results["segment_f1_macro"] == results["clip_f1_macro"] == 1.0
    assert results["event_f1_micro"] == results["segment_f1_micro"] == pytest.approx(2 / 3)
    assert results["per_class"]["Cat"] == {**dict.fromkeys(results["per_class"]["Dog"]), "events": 0}


def test_no_detections_are_zeros():
    results = evaluate([("a.wav", 1.0, 2.0, "Dog")], [])
    assert {value for key, value in results.items() if key != "per_class"} == {0.0}


def test_clip_f1_asks_only_whether_a_class_occurs():
    truth = [("a.wav", 1.0, 2.0, "Dog"), ("b.wav", 0.0, 1.0, "Dog")]
    guesses = [("a.wav", 7.0, 9.0, "Dog"), ("c.wav", 0.0, 1.0, "Dog")]
    assert evaluate(truth, guesses)["clip_f1_macro"] == pytest.approx(0.5)


def test_scores_of_counts_keep_leading_dimensions():
    counts = np.array([[[1, 2, 2], [0, 0, 0]], [[0, 0, 0], [0, 3, 0]]])
    scores = f1_scores(counts)
    np.testing.assert_allclose(scores.f1, [[0.5, np.nan], [np.nan, np.nan]])
    np.testing.assert_allclose(scores.macro, [0.5, np.nan])
    np.testing.assert_allclose(scores.micro, [0.5, np.nan])
