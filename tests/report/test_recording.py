"""What a player gets to show."""

from __future__ import annotations

import base64

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from pmam_plugin.report.media import SAMPLE_RATE
from pmam_plugin.report.recording import DetectedRecording, lane_top, recording_data, score_curve


def table(values: np.ndarray, rate: float, duration: float, label: str = "Cat") -> pd.DataFrame:
    onsets = np.arange(len(values)) / rate
    return pd.DataFrame({"onset": onsets, "offset": np.minimum(onsets + 1 / rate, duration), label: values})


def decoded(curve: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(curve["values"]), np.uint8) / 255 * curve["top"]


def test_a_curve_follows_the_frames() -> None:
    values = np.random.default_rng(0).random(250)
    curve = score_curve(table(values, 25, 10.0), "Cat", 10.0)
    assert curve["step"] == pytest.approx(0.04)
    np.testing.assert_allclose(decoded(curve), values, atol=0.003)


@settings(max_examples=20, deadline=None)
@given(st.integers(6001, 30_000), st.integers(0, 2**31))
def test_a_long_curve_keeps_every_peak_near_its_place(frames: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    values, peak = np.zeros(frames), int(random.integers(frames))
    values[peak] = 1.0
    duration = frames / 25
    curve = score_curve(table(values, 25, duration), "Cat", duration)
    shown = decoded(curve)
    assert len(shown) <= 6000
    assert shown.max() == 1.0
    middle = (peak + 0.5) / 25
    assert (np.flatnonzero(shown) * curve["step"] <= middle + 0.04).all()
    assert ((np.flatnonzero(shown) + 1) * curve["step"] >= middle - 0.04).all()


def test_segments_of_uneven_length_are_sampled_evenly() -> None:
    scores = pd.DataFrame({"onset": [0.0, 4.0, 4.5], "offset": [4.0, 4.5, 10.0], "Cat": [0.1, 0.9, 0.2]})
    curve = score_curve(scores, "Cat", 10.0)
    shown, step = decoded(curve), curve["step"]
    assert shown[int(2.0 / step)] == pytest.approx(0.1, abs=0.01)
    assert shown[int(4.25 / step)] == pytest.approx(0.9, abs=0.01)
    assert shown[int(9.0 / step)] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(
    ("highest", "threshold", "top"),
    [(0.9, None, 1.0), (0.4, None, 0.5), (0.03, None, 0.05), (0.03, 0.05, 0.1), (0.03, 0.5, 1.0), (0.0, None, 0.001)],
)
def test_a_lane_is_as_high_as_its_scores_and_threshold_need(highest: float, threshold: float, top: float) -> None:
    assert lane_top(highest, threshold) == top
    curve = score_curve(table(np.array([0.0, highest]), 1, 2.0), "Cat", 2.0, threshold)
    assert curve["top"] == top
    np.testing.assert_allclose(decoded(curve), [0.0, highest], atol=top / 255)


def test_a_threshold_may_be_one_for_all_classes_or_one_for_each() -> None:
    source = (np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE)
    nothing = pd.DataFrame(columns=["onset", "offset", "event_label"])
    for thresholds, expected in ((0.3, [0.3, 0.3]), ({"Cat": 0.2}, [0.2, None]), (None, [None, None])):
        data = recording_data(DetectedRecording("a", source, nothing, labels=["Cat", "Dog"], thresholds=thresholds))
        assert [lane["threshold"] for lane in data["lanes"]] == expected


def test_lanes_hold_their_own_events_inside_the_recording() -> None:
    events = pd.DataFrame(
        [[0.5, 9.0, "Cat", 0.7], [-0.2, 0.3, "Cat", 0.6], [0.1, 0.2, "Bird", 0.5]],
        columns=["onset", "offset", "event_label", "score"],
    )
    source = (np.zeros(SAMPLE_RATE * 2, np.float32), SAMPLE_RATE)
    data = recording_data(DetectedRecording("a", source, events, labels=["Cat", "Dog"]))
    cat, dog = data["lanes"]
    assert cat["detected"] == [[0.0, 0.3, 0.6], [0.5, 2.0, 0.7]]
    assert dog["detected"] == []
    assert cat["scores"] is None
    assert not data["annotated"]


def test_a_clip_annotated_as_empty_is_not_the_same_as_one_without_annotation() -> None:
    nothing = pd.DataFrame({"filename": ["a"], "onset": [np.nan], "offset": [np.nan], "event_label": [None]})
    source = (np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE)
    detected = pd.DataFrame(columns=["onset", "offset", "event_label"])
    data = recording_data(DetectedRecording("a", source, detected, labels=["Cat"], truth=nothing))
    assert data["annotated"]
    assert data["lanes"][0]["truth"] == []
