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
    # Off the frame grid: at a deviation of just 200 ms, the tools differ by how floats round.
    events = events.assign(onset=events["onset"] + 0.013, offset=events["offset"] + 0.013)
    tuned = event_f1(scores, events, durations, tune_thresholds(scores, events, durations, LABELS))
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
    thresholds = tune_thresholds(rows, events, durations, LABELS, measure="clip")
    tuned = clip_f1(scores, events, durations, clips, thresholds)
    for threshold in np.arange(0.005, 1.0, 0.05):
        assert (clip_f1(scores, events, durations, clips, threshold) <= tuned + 1e-9).all()


def test_a_class_that_cannot_be_tuned_keeps_the_default():
    scores, events, durations = random_set(0)
    never = {clip: table.assign(Cat=-np.inf) for clip, table in scores.items()}
    tuned = tune_thresholds(never, events[events["event_label"] != "Dog"], durations, LABELS, default=0.4)
    assert (tuned["Cat"], tuned["Dog"]) == (0.4, 0.4)
    assert 0 < tuned["Speech"] < 1


def test_without_its_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sed_scores_eval", None)
    with pytest.raises(InputError, match=r"pip install 'pmam-plugin\[eval\]'"):
        tune_thresholds(*random_set(0), LABELS)
