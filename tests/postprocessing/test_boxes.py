import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pmam_plugin.errors import InputError
from pmam_plugin.evaluation import evaluate_scores, tune_segments
from pmam_plugin.evaluation.tuning import GRID
from pmam_plugin.postprocessing import ScoreRows, SoundEventBoxes
from tests.evaluation.examples import LABELS, random_set, scores_table


def boxed(table, **settings):
    return SoundEventBoxes(**settings)(ScoreRows.of(table)).table()


def boxes_of(scores, frame=0.1, **settings):
    """Onset, offset (s) and confidence of the boxes of one class."""
    table = boxed(scores_table(np.asarray(scores, float)[:, None], frame), **settings)
    values = table["Cat"].to_numpy()
    changes = np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1, [len(values)]))
    return [
        (round(float(table["onset"][a]), 6), round(float(table["offset"][b - 1]), 6), round(float(values[a]), 6))
        for a, b in itertools.pairwise(changes)
        if values[a] > -np.inf
    ]


def test_a_step_up_and_down_is_one_box_with_the_mean_score():
    scores = np.concatenate((np.full(20, 0.1), np.full(30, 0.9), np.full(20, 0.1)))
    # Before and after it the low score makes weak boxes of its own, which a threshold drops.
    assert (2.0, 5.0, 0.9) in boxes_of(scores)
    assert all(confidence < 0.5 for onset, _, confidence in boxes_of(scores) if onset != 2.0)


def test_the_confidence_is_the_mean_score():
    rng = np.random.default_rng(0)
    scores = np.zeros(60)
    scores[20:40] = rng.uniform(0.7, 0.9, 20)
    ((onset, offset, confidence),) = boxes_of(scores, absolute_threshold=1.0, relative_threshold=2.0)
    assert (onset, offset) == (2.0, 4.0)
    assert confidence == pytest.approx(scores[20:40].mean(), abs=1e-6)


def test_events_at_the_borders_of_a_clip_reach_them():
    scores = np.zeros(50)
    scores[:10] = scores[40:] = 0.8
    assert boxes_of(scores) == [(0.0, 1.0, 0.8), (4.0, 5.0, 0.8)]


def test_silence_has_no_box_and_a_constant_score_has_one():
    assert boxes_of(np.zeros(30)) == []
    assert boxes_of(np.full(30, 0.3)) == [(0.0, 3.0, 0.3)]
    assert boxes_of([0.4]) == [(0.0, 0.1, 0.4)]


def two_bumps(valley):
    return np.concatenate((np.zeros(10), np.full(20, 0.8), np.full(10, valley), np.full(20, 0.6), np.zeros(10)))


def test_a_gap_closes_when_it_is_shallow_seen_from_the_higher_peak():
    apart, united = 2, 1
    assert len(boxes_of(two_bumps(0.45), absolute_threshold=0.3, relative_threshold=None)) == apart
    assert len(boxes_of(two_bumps(0.55), absolute_threshold=0.3, relative_threshold=None)) == united
    assert len(boxes_of(two_bumps(0.38), absolute_threshold=None, relative_threshold=2.0)) == apart
    assert len(boxes_of(two_bumps(0.42), absolute_threshold=None, relative_threshold=2.0)) == united
    assert len(boxes_of(two_bumps(0.42), absolute_threshold=0.3, relative_threshold=2.0)) == apart


def test_a_closed_gap_counts_in_the_mean():
    ((onset, offset, confidence),) = boxes_of(two_bumps(0.55), absolute_threshold=0.3, relative_threshold=None)
    assert (onset, offset) == (1.0, 6.0)
    assert confidence == pytest.approx((20 * 0.8 + 10 * 0.55 + 20 * 0.6) / 50)


def test_a_low_threshold_does_not_make_boxes_longer():
    rng = np.random.default_rng(1)
    ramp = np.concatenate((np.linspace(0, 1, 30), np.linspace(1, 0, 30))) * 0.8 + 0.1 * rng.random(60)
    table = boxed(scores_table(ramp[:, None]), relative_threshold=5.0)
    levels = np.unique(table["Cat"][table["Cat"] > -np.inf])
    frames = [(table["Cat"] >= level).sum() for level in levels]
    assert len(levels) <= 3
    assert frames[-1] > 15  # the strongest box is whole at the highest threshold that shows it


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.25, 1.3))
def test_time_reversed_scores_give_time_reversed_boxes(seed, filter_seconds):
    scores = np.random.default_rng(seed).random(40)
    forward = boxes_of(scores, filter_seconds=filter_seconds)
    backward = boxes_of(scores[::-1], filter_seconds=filter_seconds)
    mirrored = sorted(
        (round(4.0 - offset, 6), round(4.0 - onset, 6), confidence) for onset, offset, confidence in backward
    )
    assert forward == mirrored


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.4, 0.8]))
def test_the_frame_rate_does_not_matter(seed, filter_seconds):
    scores = np.random.default_rng(seed).random(40)
    coarse = boxes_of(scores, filter_seconds=filter_seconds)
    fine = boxes_of(np.repeat(scores, 3), 0.1 / 3, filter_seconds=filter_seconds)
    np.testing.assert_allclose(fine, coarse, atol=1e-6)


def test_every_gap_is_judged_by_the_candidates_next_to_it_alone():
    # Seen from the united box of the first two, the last gap would be too deep: the highest score is 0.9 then.
    scores = np.repeat([0.9, 0.5, 0.6, 0.32, 0.5], 20)
    assert boxes_of(scores, filter_seconds=0.4, absolute_threshold=0.45, relative_threshold=None) == [
        (0.0, 10.0, pytest.approx(scores.mean()))
    ]


@pytest.mark.parametrize(("scale", "ratio", "valley"), [(1.0, 2.0, 0.3995), (0.01, 2.0, 0.0035), (0.01, 3.0, 0.002)])
def test_the_smoothing_acts_on_both_scores_of_a_ratio(scale, ratio, valley):
    """0.8 and 0.6, or a hundredth of that, unite from (peak + 0.001) / (valley + 0.001) = ratio on."""
    found = [
        len(boxes_of(bumps, absolute_threshold=None, relative_threshold=ratio))
        for bumps in (scale * two_bumps((valley + less) / scale) for less in (-1e-5, 1e-5))
    ]
    assert found == [2, 1]


def test_near_silence_is_not_cut_up():
    scores = 1e-4 + 1e-4 * np.random.default_rng(3).random(100)
    assert len(boxes_of(scores)) == 1


def test_a_flat_edge_is_where_the_box_is_longest():
    """As the published package answers for 2 s at 0.1, 3 s at 0.9 and 2 s at 0.2, with a filter of 0.4 s."""
    scores = np.repeat([0.1, 0.9, 0.2], [20, 30, 20])
    assert boxes_of(scores, filter_seconds=0.4) == [(0.0, 1.8, 0.1), (2.0, 5.0, 0.9), (5.2, 7.0, 0.2)]


# Boxes of the published package (sebbs 1.0.2) for default_rng(seed).random(24) at 8 frames per second.
PUBLISHED = {
    (0, 4, 0.3, 2.0): [
        (0.0, 0.25, 0.453372),
        (0.5, 0.75, 0.863009),
        (1.125, 1.375, 0.875459),
        (1.5, 1.625, 0.857397),
        (2.0, 2.25, 0.702317),
        (2.375, 2.5, 0.422684),
        (2.75, 3.0, 0.658904),
    ],
    (1, 4, 0.3, 2.0): [
        (0.0, 0.25, 0.73114),
        (0.375, 0.5, 0.948642),
        (0.75, 1.0, 0.618448),
        (1.25, 1.5, 0.645826),
        (1.625, 1.875, 0.54581),
        (2.125, 2.25, 0.40311),
        (2.5, 2.625, 0.750359),
        (2.75, 3.0, 0.732961),
    ],
    (0, 6, None, 2.5): [
        (0.0, 0.125, 0.636957),
        (0.5, 1.375, 0.765243),
        (1.5, 1.625, 0.857397),
        (1.75, 1.875, 0.72965),
        (2.0, 2.375, 0.568116),
        (2.75, 3.0, 0.658904),
    ],
    (1, 8, 0.6, None): [
        (0.0, 0.25, 0.73114),
        (0.375, 0.5, 0.948642),
        (0.75, 1.125, 0.595497),
        (1.25, 2.0, 0.527751),
        (2.5, 3.0, 0.624174),
    ],
}


@pytest.mark.parametrize("setting", PUBLISHED)
def test_boxes_are_those_of_the_published_package(setting):
    seed, frames, absolute, relative = setting
    scores = np.random.default_rng(seed).random(24)
    found = boxes_of(scores, 0.125, filter_seconds=frames / 8, absolute_threshold=absolute, relative_threshold=relative)
    np.testing.assert_allclose(found, PUBLISHED[setting], atol=1e-5)  # its means are low by up to 1e-5


def test_each_class_has_its_own_settings():
    table = scores_table(np.stack([two_bumps(0.5)] * 3, axis=1))
    result = boxed(table, absolute_threshold={"Cat": 0.1, "Dog": 0.4, "Speech": None}, relative_threshold=None)
    assert [len(result[label][result[label] > -np.inf].unique()) for label in LABELS] == [2, 1, 1]


def test_a_shorter_last_row_weighs_less():
    table = scores_table(np.concatenate((np.full(10, 0.8), [0.6]))[:, None])
    table.loc[10, "offset"] = 1.05
    result = boxed(table)
    assert result["Cat"].to_numpy() == pytest.approx(np.full(11, (10 * 0.1 * 0.8 + 0.05 * 0.6) / 1.05))


def test_boxes_of_boxes_are_refused():
    with pytest.raises(ValueError, match="finite score"):
        boxed(scores_table(np.full((5, 3), -np.inf)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"filter_seconds": 0.0}, "filter_seconds must be greater than 0"),
        ({"absolute_threshold": {"Cat": 0.0}}, "absolute_threshold must be greater than 0"),
        ({"relative_threshold": 0.5}, "must be 1 or more"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        SoundEventBoxes(**arguments)


def test_tuning_is_never_worse_than_any_setting_of_the_grid_on_its_own_set():
    scores, events, durations = random_set(4, clips=12, frames=100)
    tuned = tune_segments(scores, events, durations, prior_events=0)

    def areas(boxes):
        tables = {clip: boxes(ScoreRows.of(table)).table() for clip, table in scores.items()}
        classes = evaluate_scores(tables, events, durations, bootstrap=0)["per_class"]
        return np.array([classes[label]["psds1"] for label in LABELS])

    best = areas(tuned)
    others = np.array([areas(SoundEventBoxes(*setting)) for setting in GRID])
    np.testing.assert_allclose(best, others.max(axis=0), atol=1e-9)
    assert (best > others.min(axis=0)).any()


def test_where_a_class_has_few_events_the_setting_is_the_best_of_all():
    scores, events, durations = random_set(4, clips=12, frames=100)
    rows = {clip: ScoreRows.of(table) for clip, table in scores.items()}
    boxes = [{clip: SoundEventBoxes(*setting)(found).table() for clip, found in rows.items()} for setting in GRID]
    means = [evaluate_scores(tables, events, durations, bootstrap=0)["psds1_mean"] for tables in boxes]
    best = GRID[int(np.argmax(means))]
    tuned = tune_segments(scores, events, durations, prior_events=1e6)
    assert set(tuned.filter_seconds.values()) == {best[0]}
    assert set(tuned.absolute_threshold.values()) == {best[1]}
    assert set(tuned.relative_threshold.values()) == {best[2]}
    alone = tune_segments(scores, events, durations, prior_events=0)
    assert alone != tuned


def test_a_class_without_ground_truth_keeps_the_defaults():
    scores, events, durations = random_set(4)
    tuned = tune_segments(scores, events[events["event_label"] != "Dog"], durations, grid=[(0.3, 0.2, None)])
    assert tuned.filter_seconds == {"Cat": 0.3, "Dog": 0.5, "Speech": 0.3}
    assert tuned.absolute_threshold == {"Cat": 0.2, "Dog": 1.0, "Speech": 0.2}


def test_tuning_reports_progress_and_needs_a_grid():
    seen = []
    tune_segments(*random_set(4), grid=GRID[:3], progress=lambda *step: seen.append(step))
    assert seen == [("tuning bounding boxes", done, 3) for done in (1, 2, 3)]
    with pytest.raises(InputError, match=r"grid .* is empty"):
        tune_segments(*random_set(4), grid=[])
