import json

import numpy as np
import pandas as pd
import pytest

from pmam_plugin.config import from_config, to_config
from pmam_plugin.errors import InputError
from pmam_plugin.postprocessing import PostProcessing, SoundEventBoxes
from tests.evaluation.examples import scores_table
from tests.support import shared

# Frames of the reference's median filter for each class; 156 frames are 10 s.
REFERENCE_FILTERS = (5, 20, 5, 5, 5, 20, 20, 20, 5, 20)


@pytest.mark.parametrize("rule", ["scipy", "odd"])
def test_both_median_filters_of_the_reference_are_reproduced(rule):
    from safetensors.numpy import load_file

    data = load_file(shared("reference_outputs/pmam_components.safetensors"))
    labels = tuple(f"class {index}" for index in range(10))
    seconds = {label: units * 10 / 156 for label, units in zip(labels, REFERENCE_FILTERS)}
    filtering = PostProcessing(median_seconds=seconds, median_rule=rule)
    wanted = data[f"post.median_{'scipy' if rule == 'scipy' else 'torch'}"]
    for scores, filtered in zip(data["post.scores"], wanted):
        result = filtering(scores_table(scores, 0.01, labels))
        np.testing.assert_array_equal(result[list(labels)].to_numpy(np.float32), filtered)


def test_seconds_become_frames_at_any_frame_rate():
    for frame in (0.01, 0.04, 0.064):
        scores = np.zeros((round(4 / frame), 1))
        scores[round(1 / frame) : round(2 / frame)] = 1.0  # one second survives a filter of less than two
        for seconds, survives in ((0.5, True), (1.7, True), (2.3, False)):
            result = PostProcessing(median_seconds=seconds)(scores_table(scores, frame))
            assert result["Cat"].sum() * frame == pytest.approx(1.0 if survives else 0.0, abs=2 * frame)


def test_each_class_has_its_own_length_and_zero_leaves_it_alone():
    rng = np.random.default_rng(0)
    table = scores_table(rng.random((50, 3)))
    result = PostProcessing(median_seconds={"Cat": 0.5, "Dog": 0.0, "Speech": 4.9})(table)
    np.testing.assert_array_equal(result["Dog"], table["Dog"])
    assert result["Speech"].std() < result["Cat"].std() < table["Cat"].std()


def test_weak_masks_scale_or_silence_a_class():
    table = scores_table(np.full((4, 3), 0.8))
    clip_scores = {"Speech": 0.5, "Cat": 0.25, "Dog": 0.49}
    soft, hard = (PostProcessing(weak_mask=mask)(table, clip_scores) for mask in ("soft", "hard"))
    np.testing.assert_allclose(soft.iloc[0, 2:], [0.2, 0.392, 0.4])
    np.testing.assert_allclose(hard.iloc[0, 2:], [0.0, 0.0, 0.8])
    in_order = PostProcessing(weak_mask="soft")(table, np.array([0.25, 0.49, 0.5], np.float32))
    np.testing.assert_allclose(in_order.iloc[:, 2:], soft.iloc[:, 2:], rtol=1e-6)


def test_the_input_table_is_not_changed():
    table = scores_table(np.random.default_rng(0).random((50, 3)))
    before = table.copy()
    PostProcessing(weak_mask="soft", median_seconds=0.5, segments=SoundEventBoxes())(table, [0.5, 0.5, 0.5])
    pd.testing.assert_frame_equal(table, before)


def test_events_exceed_the_threshold_and_carry_their_mean_score():
    scores = np.array([[0.5, 0.9, 0], [0.6, 0.1, 0], [0.8, 0.1, 0], [0.2, 0.7, 0]])
    table = scores_table(scores)
    table.loc[3, "offset"] = 0.35  # a recording that ends within a frame
    events = PostProcessing().events(table, "a.wav")
    assert events["event_label"].tolist() == ["Dog", "Cat", "Dog"]
    np.testing.assert_allclose(events[["onset", "offset", "score"]], [[0, 0.1, 0.9], [0.1, 0.3, 0.7], [0.3, 0.35, 0.7]])
    assert set(events["filename"]) == {"a.wav"}


def test_a_silent_clip_has_an_empty_table_of_events():
    events = PostProcessing().events(scores_table(np.full((5, 3), -np.inf)), "a.wav")
    assert len(events) == 0
    assert list(events.columns) == ["filename", "onset", "offset", "event_label", "score"]


def test_a_threshold_per_class():
    events = PostProcessing(threshold={"Cat": 0.2, "Dog": 0.4, "Speech": 0.3}).events(
        scores_table(np.full((2, 3), 0.3)), "a.wav"
    )
    assert events["event_label"].tolist() == ["Cat"]


def test_boxes_carry_their_confidence_into_the_events():
    scores = np.full((100, 3), 0.05)
    scores[20:60, 0] = np.tile([0.8, 0.7], 20)
    processing = PostProcessing(segments=SoundEventBoxes())
    events = processing.events(processing(scores_table(scores)), "a.wav")
    np.testing.assert_allclose(events[["onset", "offset", "score"]], [[2.0, 6.0, 0.75]])


def test_it_is_rebuilt_from_plain_json():
    processing = PostProcessing(
        weak_mask="soft",
        median_seconds={"Cat": 0.5, "Dog": 0.3, "Speech": 0.1},
        segments=SoundEventBoxes(0.4, None, {"Cat": 1.5, "Dog": None, "Speech": 2.0}),
        threshold={"Cat": 0.5, "Dog": 0.4, "Speech": 0.3},
    )
    again = from_config(json.loads(json.dumps(to_config(processing), allow_nan=False)))
    table = scores_table(np.random.default_rng(0).random((50, 3)))
    pd.testing.assert_frame_equal(again(table, [0.9, 0.8, 0.7]), processing(table, [0.9, 0.8, 0.7]))
    pd.testing.assert_frame_equal(again.events(table, "a"), processing.events(table, "a"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"weak_mask": "maybe"}, "weak_mask must be one of none, soft, hard"),
        ({"median_rule": "mean"}, "median_rule must be one of"),
        ({"median_seconds": -1}, "median_seconds must be"),
        ({"median_seconds": {"Cat": float("nan")}}, "median_seconds must be"),
        ({"median_seconds": 1e9}, "median_seconds must be within 0 and 600 s"),
        ({"threshold": "high"}, "threshold must be a number, or one per class, not 'high'"),
        ({"threshold": {"Cat": float("nan")}}, "threshold must be a number"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        PostProcessing(**arguments)


def test_a_class_without_a_setting_is_named():
    table = scores_table(np.zeros((5, 3)))
    with pytest.raises(InputError, match="median_seconds has no value for Dog"):
        PostProcessing(median_seconds={"Cat": 0.5, "Speech": 0.5})(table)
    with pytest.raises(InputError, match="threshold has no value for Dog"):
        PostProcessing(threshold={"Cat": 0.5, "Speech": 0.5}).events(table, "a.wav")


def test_a_weak_mask_needs_one_clip_score_per_class():
    table = scores_table(np.zeros((5, 3)))
    with pytest.raises(ValueError, match="needs clip scores"):
        PostProcessing(weak_mask="hard")(table)
    with pytest.raises(ValueError, match="3 clip scores"):
        PostProcessing(weak_mask="hard")(table, [0.5])
