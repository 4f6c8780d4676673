"""Events to frames."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from pmam_plugin.errors import InputError
from pmam_plugin.labels import LabelEncoder
from tests.support import shared

LABELS = ["Cat", "Dog", "Speech"]


def encoder(**changes):
    arguments = {"labels": LABELS, "frame_rate": 100.0, "frames": 1000}
    return LabelEncoder(**{**arguments, **changes})


def atst_encoder():
    return LabelEncoder(LABELS, frame_rate=15.625, frames=156, onset_rounding="floor")


def frames_of(array, label):
    return np.flatnonzero(array[:, LABELS.index(label)]).tolist()


def test_onsets_round_to_the_nearest_frame_and_offsets_up():
    array = encoder().encode_strong([(0.014, 0.031, "Dog"), (0.505, 0.52, "Cat"), (0.515, 0.53, "Speech")])
    assert array.shape == (1000, 3)
    assert array.dtype == np.float32
    assert frames_of(array, "Dog") == [1, 2, 3]
    assert frames_of(array, "Cat") == [50, 51]  # 50.5 rounds to the even frame below
    assert frames_of(array, "Speech") == [52]  # 51.5 to the even frame above


def test_onsets_round_down_on_the_grid_of_atst_sed():
    array = atst_encoder().encode_strong([(0.120, 0.130, "Dog")])
    assert frames_of(array, "Dog") == [1, 2]  # 1.875 to 2.03 frames of 64 ms


def test_a_time_on_a_frame_border_does_not_leak_into_the_next_frame():
    # 0.07 * 100 = 7.000000000000001 in binary
    assert frames_of(encoder().encode_strong([(0.05, 0.07, "Cat")]), "Cat") == [5, 6]


@pytest.mark.parametrize("onset", [0.0, 0.018, 4.497, 9.998])
@pytest.mark.parametrize("make", [encoder, atst_encoder])
def test_an_event_shorter_than_a_frame_keeps_its_frame(make, onset):
    grid = make()
    active = frames_of(grid.encode_strong([(onset, onset + 0.001, "Cat")]), "Cat")
    if onset < grid.frames / grid.frame_rate:
        assert active == [int(onset * grid.frame_rate)]
    else:
        assert active == []


def test_events_are_cut_at_the_borders_of_the_clip():
    array = encoder().encode_strong([(-1.0, 0.02, "Cat"), (9.99, 10.115, "Dog"), (11.0, 12.0, "Speech")])
    assert frames_of(array, "Cat") == [0, 1]
    assert frames_of(array, "Dog") == [999]
    assert frames_of(array, "Speech") == []


def test_a_clip_without_events_is_all_zero():
    assert not encoder().encode_strong([]).any()


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ((0.0, 1.0, "Horse"), "unknown label 'Horse'"),
        ((0.0, 1.0, np.nan), "unknown label nan"),
        ((1.0, 0.5, "Dog"), "event of Dog .* after the onset"),
        ((1.0, 1.0, "Dog"), "event of Dog .* after the onset"),
        ((np.nan, 1.0, "Dog"), "event of Dog .* after the onset"),
        ((0.0, np.nan, "Dog"), "event of Dog .* after the onset"),
    ],
)
def test_an_unusable_event_is_refused(event, says):
    with pytest.raises(InputError, match=says):
        encoder().encode_strong([(0.0, 1.0, "Cat"), event])


def test_a_soft_label_is_the_target_of_all_its_frames_and_of_several_the_highest_counts():
    array = encoder().encode_strong([(0.0, 0.04, "Cat", 0.75), (0.02, 0.06, "Cat", 0.25)])
    assert array[:7, 0].tolist() == [0.75] * 4 + [0.25] * 2 + [0]


def test_what_lies_before_the_clip_is_no_part_of_it():
    assert not encoder().encode_strong([(-1.0, -0.5, "Cat")]).any()


def test_weak_labels_mark_the_classes_present():
    assert encoder().encode_weak(["Speech", "Cat", "Cat"]).tolist() == [1, 0, 1]
    assert encoder().encode_weak([]).tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="Horse"):
        encoder().encode_weak(["Horse"])


@pytest.mark.parametrize(
    "changes",
    [{"labels": []}, {"labels": ["Cat", "Cat"]}, {"frames": 0}, {"frame_rate": 0.0}, {"onset_rounding": "ceil"}],
)
def test_an_impossible_grid_is_refused(changes):
    with pytest.raises(ValueError, match="must be"):
        encoder(**changes)


times = st.floats(0.0, 9.9).flatmap(
    lambda onset: st.tuples(st.just(onset), st.floats(onset + 1e-3, 10.0), st.sampled_from(LABELS))
)


@given(event=times)
@pytest.mark.parametrize("make", [encoder, atst_encoder])
def test_an_event_stands_within_a_frame_of_its_times(make, event):
    grid = make()
    active = frames_of(grid.encode_strong([event]), event[2])
    assert active == list(range(active[0], active[-1] + 1))
    frame = 1 / grid.frame_rate + 1e-6
    assert abs(active[0] / grid.frame_rate - event[0]) <= frame
    assert abs((active[-1] + 1) / grid.frame_rate - event[1]) <= frame


def test_every_event_of_the_desed_metadata_is_encoded():
    table = pd.read_csv(shared("desed_metadata/validation/validation.tsv"), sep="\t")
    labels = sorted(table.event_label.dropna().unique())
    grid = LabelEncoder(labels, 100.0, 1000)
    for _, clip in table.groupby("filename"):
        rows = clip.dropna()[["onset", "offset", "event_label"]].itertuples(index=False)
        array = grid.encode_strong(rows)
        present = set(clip.event_label.dropna())
        assert {labels[column] for column in np.flatnonzero(array.any(axis=0))} == present
