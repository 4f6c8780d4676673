"""Events to frames and back, and the table that sed_scores_eval reads."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pmam_plugin.errors import InputError
from pmam_plugin.labels import LabelEncoder
from tests.support import shared

LABELS = ["Cat", "Dog", "Speech"]


def encoder(**changes):
    arguments = {"labels": LABELS, "frame_rate": 100.0, "frames": 1000}
    return LabelEncoder(**{**arguments, **changes})


def atst_encoder():
    return LabelEncoder(LABELS, frame_rate=15.625, frames=156, onset_rounding="floor")


def events(*rows):
    return pd.DataFrame(rows, columns=["onset", "offset", "event_label"])


def frames_of(array, label):
    return np.flatnonzero(array[:, LABELS.index(label)]).tolist()


def test_onsets_round_to_the_nearest_frame_and_offsets_up():
    array = encoder().encode_strong(events((0.014, 0.031, "Dog"), (0.505, 0.52, "Cat"), (0.515, 0.53, "Speech")))
    assert array.shape == (1000, 3)
    assert array.dtype == np.float32
    assert frames_of(array, "Dog") == [1, 2, 3]
    assert frames_of(array, "Cat") == [50, 51]  # 50.5 rounds to the even frame below
    assert frames_of(array, "Speech") == [52]  # 51.5 to the even frame above


def test_onsets_round_down_on_the_grid_of_atst_sed():
    array = atst_encoder().encode_strong(events((0.120, 0.130, "Dog")))
    assert frames_of(array, "Dog") == [1, 2]  # 1.875 to 2.03 frames of 64 ms


def test_a_time_on_a_frame_border_does_not_leak_into_the_next_frame():
    # 0.07 * 100 = 7.000000000000001 in binary
    assert frames_of(encoder().encode_strong(events((0.05, 0.07, "Cat"))), "Cat") == [5, 6]


@pytest.mark.parametrize("onset", [0.0, 0.018, 4.497, 9.998])
@pytest.mark.parametrize("make", [encoder, atst_encoder])
def test_an_event_shorter_than_a_frame_keeps_its_frame(make, onset):
    grid = make()
    active = frames_of(grid.encode_strong(events((onset, onset + 0.001, "Cat"))), "Cat")
    if onset < grid.frames / grid.frame_rate:
        assert active == [int(onset * grid.frame_rate)]
    else:
        assert active == []


def test_events_are_cut_at_the_borders_of_the_clip():
    array = encoder().encode_strong(events((-1.0, 0.02, "Cat"), (9.99, 10.115, "Dog"), (11.0, 12.0, "Speech")))
    assert frames_of(array, "Cat") == [0, 1]
    assert frames_of(array, "Dog") == [999]
    assert frames_of(array, "Speech") == []


def test_a_clip_without_events_is_all_zero():
    assert not encoder().encode_strong(events()).any()
    assert not encoder().encode_strong(events((np.nan, np.nan, np.nan))).any()
    assert not encoder().encode_strong(events((np.nan, np.nan, None))).any()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (events((0.0, 1.0, "Horse")), "unknown label 'Horse'"),
        (events((0.0, 1.0, np.nan)), "unknown label nan"),
        (events((1.0, 0.5, "Dog")), "row 0 .* after the onset"),
        (events((1.0, 1.0, "Dog")), "row 0 .* after the onset"),
        (events((0.0, 1.0, "Cat"), (np.nan, 1.0, "Dog")), "row 1"),
        (events((0.0, np.nan, "Dog")), "row 0"),
        (events(("soon", "later", "Dog")), "no number"),
        (events((0.0, 1.0, "Dog")).drop(columns="offset"), "'offset'"),
        (events((0.0, 1.0, "Dog")).drop(columns="event_label"), "'event_label'"),
    ],
)
def test_an_unusable_event_table_is_refused(table, says):
    with pytest.raises(InputError, match=says):
        encoder().encode_strong(table)


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


@given(active=arrays(bool, (156, 3)))
@pytest.mark.parametrize("make", [encoder, atst_encoder])
def test_decoded_events_encode_to_the_same_frames(make, active):
    grid = make()
    padded = np.zeros((grid.frames, 3), dtype=bool)
    padded[:156] = active
    assert (grid.encode_strong(grid.decode(padded)) == padded).all()


times = st.floats(0.0, 9.9).flatmap(
    lambda onset: st.tuples(st.just(onset), st.floats(onset + 1e-3, 10.0), st.sampled_from(LABELS))
)


@given(event=times)
@pytest.mark.parametrize("make", [encoder, atst_encoder])
def test_an_encoded_event_comes_back_within_a_frame(make, event):
    grid = make()
    decoded = grid.decode(grid.encode_strong(events(event)))
    assert len(decoded) == 1
    assert decoded.event_label[0] == event[2]
    frame = 1 / grid.frame_rate + 1e-6
    assert abs(decoded.onset[0] - event[0]) <= frame
    assert abs(decoded.offset[0] - event[1]) <= frame


def test_events_are_decoded_in_order_and_end_with_the_clip():
    active = torch.zeros(1000, 3, dtype=torch.bool)
    active[500:510, 0] = active[600:, 0] = active[100:200, 2] = active[500:700, 1] = True
    table = encoder(clip_seconds=9.995).decode(active)
    assert table.event_label.tolist() == ["Speech", "Cat", "Dog", "Cat"]
    assert table.onset.tolist() == [1.0, 5.0, 5.0, 6.0]
    assert table.offset.tolist() == [2.0, 5.1, 7.0, 9.995]
    assert encoder().decode(active, duration=4.0).event_label.tolist() == ["Speech"]


def test_no_activity_decodes_to_a_table_with_columns():
    assert list(encoder().decode(np.zeros((1000, 3))).columns) == ["onset", "offset", "event_label"]
    assert list(encoder().decode(np.zeros((0, 3))).columns) == ["onset", "offset", "event_label"]


@given(duration=st.floats(0.011, 10.0))
def test_the_score_table_covers_the_recording_without_gaps(duration):
    scores = np.random.default_rng(0).random((1000, 3)).astype(np.float32)
    table = encoder().scores_table(scores, duration)
    onsets, offsets = table.onset.to_numpy(), table.offset.to_numpy()
    assert onsets[0] == 0.0
    assert offsets[-1] == duration
    assert (onsets[1:] == offsets[:-1]).all()
    assert (offsets > onsets).all()
    assert abs(len(table) - np.ceil(duration * 100)) <= (abs(duration * 100 - round(duration * 100)) < 1e-5)
    assert (table[LABELS].to_numpy() == scores[: len(table)]).all()


def test_the_last_row_reaches_the_end_of_a_clip_just_longer_than_the_grid():
    table = atst_encoder().scores_table(np.zeros((156, 3)), 10.0)
    assert len(table) == 156
    assert table.offset.iloc[-1] == 10.0
    assert table.onset.iloc[-1] == pytest.approx(9.92)


@pytest.mark.parametrize(
    ("frames", "duration"), [(999, 10.0), (155, 10.0), (0, 0.001), (1000, 0.0), (1000, -1.0), (1000, np.nan)]
)
def test_scores_that_do_not_cover_the_recording_are_refused(frames, duration):
    with pytest.raises(ValueError, match="recording"):
        encoder().scores_table(np.zeros((frames, 3)), duration)


@pytest.mark.parametrize("shape", [(1000, 2), (1000,), (1, 1000, 3)])
def test_arrays_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="classes"):
        encoder().decode(np.zeros(shape))


def test_sed_scores_eval_accepts_the_table():
    evaluator = pytest.importorskip("sed_scores_eval")
    active = np.zeros((1000, 3), dtype=np.float32)
    active[100:300] = 0.9
    tables = {"a": encoder().scores_table(torch.from_numpy(active), 9.7034)}
    truth = {"a": [(1.0, 3.0, label) for label in LABELS]}
    fscore, *_ = evaluator.collar_based.fscore(
        tables, truth, threshold={label: 0.5 for label in LABELS}, onset_collar=0.2, offset_collar=0.2
    )
    assert [fscore[label] for label in LABELS] == [1.0, 1.0, 1.0]


def test_every_event_of_the_desed_metadata_is_encoded():
    table = pd.read_csv(shared("desed_metadata/validation/validation.tsv"), sep="\t")
    labels = sorted(table.event_label.dropna().unique())
    grid = LabelEncoder(labels, 100.0, 1000)
    for _, clip in table.groupby("filename"):
        array = grid.encode_strong(clip)
        present = set(clip.event_label.dropna())
        assert {labels[column] for column in np.flatnonzero(array.any(axis=0))} == present
