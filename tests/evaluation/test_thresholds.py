import numpy as np
import pandas as pd
import pytest

from pmam_plugin.errors import InputError
from pmam_plugin.evaluation import evaluate_scores, tune_thresholds
from tests.evaluation.examples import LABELS, random_set


def event_f1(scores, events, durations, threshold):
    classes = evaluate_scores(scores, events, durations, threshold=threshold, bootstrap=0)["per_class"]
    return np.array([classes[label]["event_f1"] for label in LABELS])


@pytest.mark.parametrize("seed", range(3))
def test_no_single_threshold_beats_the_tuned_one_of_its_class(seed):
    scores, events, durations = random_set(seed)
    tuned = event_f1(scores, events, durations, tune_thresholds(scores, events, durations, LABELS, prior_events=0))
    for threshold in np.arange(0.005, 1.0, 0.05):
        assert (event_f1(scores, events, durations, threshold) <= tuned + 1e-9).all()


def clip_f1(scores, events, durations, clip_scores, threshold):
    figures = evaluate_scores(
        scores, events, durations, LABELS, clip_scores=clip_scores, clip_threshold=threshold, bootstrap=0
    )
    return np.array([figures["per_class"][label]["clip_f1"] for label in LABELS])


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_of_clips_are_tuned_on_their_own_f1(seed):
    scores, events, durations = random_set(seed)
    clips = {clip: table[list(LABELS)].mean().tolist() for clip, table in scores.items()}
    rows = {
        clip: pd.DataFrame([{"onset": 0.0, "offset": 10.0, **dict(zip(LABELS, values, strict=True))}])
        for clip, values in clips.items()
    }
    thresholds = tune_thresholds(rows, events, durations, LABELS, measure="clip", prior_events=0)
    tuned = clip_f1(scores, events, durations, clips, thresholds)
    for threshold in np.arange(0.005, 1.0, 0.05):
        assert (clip_f1(scores, events, durations, clips, threshold) <= tuned + 1e-9).all()


def test_a_class_that_cannot_be_tuned_keeps_the_default():
    scores, events, durations = random_set(0)
    never = {clip: table.assign(Cat=-np.inf) for clip, table in scores.items()}
    tuned = tune_thresholds(never, events[events["event_label"] != "Dog"], durations, LABELS, default=0.4)
    assert (tuned["Cat"], tuned["Dog"]) == (0.4, 0.4)
    assert 0 < tuned["Speech"] < 1


def test_thresholds_are_tuned_on_the_events_that_f1_counts():
    """Two calls that touch are two events for F1, though PSDS sees one; what finds both pieces must win."""
    table = pd.DataFrame({"onset": np.arange(40) / 10, "offset": np.arange(1, 41) / 10, "Cat": 0.1, "Dog": 0.0})
    table.loc[10:29, "Cat"] = 0.4
    table.loc[10:18, "Cat"] = table.loc[21:29, "Cat"] = 0.8
    events = pd.DataFrame(
        {"filename": "a", "onset": [1.0, 2.0, 0.0], "offset": [2.0, 3.0, 1.0], "event_label": ["Cat", "Cat", "Dog"]}
    )
    tuned = tune_thresholds({"a": table}, events, {"a": 4.0}, ["Cat", "Dog"], prior_events=0)
    assert 0.4 <= tuned["Cat"] < 0.8
    figures = evaluate_scores({"a": table}, events, {"a": 4.0}, ["Cat", "Dog"], threshold=tuned, bootstrap=0)
    assert figures["per_class"]["Cat"]["event_f1"] == 1.0


def test_what_a_single_event_says_is_drawn_towards_what_all_say():
    """Thirty calls of a Cat stand at 0.6, the one Dog is found above 0.01 alone: that may be chance."""
    scores, rows = {}, []
    for clip in (f"clip_{number}" for number in range(30)):
        table = pd.DataFrame({"onset": np.arange(40) / 10, "offset": np.arange(1, 41) / 10, "Cat": 0.1, "Dog": 0.01})
        table.loc[10:19, "Cat"] = 0.6
        rows.append((clip, 1.0, 2.0, "Cat"))
        scores[clip] = table
    scores["clip_0"].loc[20:29, "Dog"] = 0.02
    rows.append(("clip_0", 2.0, 3.0, "Dog"))
    events = pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])
    durations = dict.fromkeys(scores, 4.0)
    alone = tune_thresholds(scores, events, durations, ["Cat", "Dog"], prior_events=0)
    assert alone == pytest.approx({"Cat": 0.35, "Dog": 0.015})
    tuned = tune_thresholds(scores, events, durations, ["Cat", "Dog"], prior_events=10)
    odds = (0.015 / 0.985) ** (1 / 11) * (0.35 / 0.65) ** (10 / 11)
    assert tuned == pytest.approx({"Cat": 0.35, "Dog": odds / (1 + odds)})


def test_a_small_beta_gives_up_a_doubtful_event_for_the_false_alarms_beside_it():
    """Six calls stand at 0.8; four more stand at 0.3, and so do five noises. F1 wants all ten, F0.5 the sure six."""
    table = pd.DataFrame({"onset": np.arange(300) / 10, "offset": np.arange(1, 301) / 10, "Cat": 0.1})
    for place in range(15):
        table.loc[20 * place : 20 * place + 9, "Cat"] = 0.8 if place < 6 else 0.3
    events = pd.DataFrame({"filename": "a", "onset": 2.0 * np.arange(10), "event_label": "Cat"})
    events["offset"] = events.onset + 1
    tuned = {
        beta: tune_thresholds({"a": table}, events, {"a": 30.0}, ["Cat"], beta=beta, prior_events=0)["Cat"]
        for beta in (1.0, 0.5)
    }
    assert tuned == pytest.approx({1.0: 0.2, 0.5: 0.55})  # F1 .80 against .75, F0.5 .71 against .88
    with pytest.raises(InputError, match="beta 0: must be more than 0"):
        tune_thresholds({"a": table}, events, {"a": 30.0}, ["Cat"], beta=0)
