import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from pmam_plugin.inference.long_audio import Cutter, Grid, Joiner

# The grid of ATST-SED scaled down: a clip is not a whole number of frames.
ODD = Grid(clip_samples=1000, clip_frames=15, samples_per_frame=64.0, reach=15)


def cut(grid: Grid, samples: int, piece: int):
    wave = torch.arange(samples, dtype=torch.float32)
    cutter = Cutter(grid)
    windows = [window for start in range(0, samples, piece) for window in cutter.feed(wave[start : start + piece])]
    return wave, [*windows, *cutter.finish()]


grids = st.builds(
    lambda frames, per_frame, extra, reach: Grid(
        frames * per_frame + extra % per_frame, frames, float(per_frame), min(reach, frames)
    ),
    st.integers(2, 30),
    st.integers(1, 12),
    st.integers(0, 11),
    st.integers(2, 30),
)


@settings(deadline=None)
@given(grids, st.integers(1, 1500), st.integers(1, 700))
def test_windows_hold_the_samples_their_frames_stand_for(grid, samples, piece):
    wave, windows = cut(grid, samples, piece)
    for window in windows:
        start = grid.sample_of(window.first_frame)
        assert len(window.samples) <= grid.clip_samples
        assert torch.equal(window.samples, wave[start : start + len(window.samples)])
        assert window.frames <= grid.clip_frames


@settings(deadline=None)
@given(grids, st.integers(1, 1500), st.integers(1, 700))
def test_every_frame_comes_out_once_and_scores_that_agree_are_kept(grid, samples, piece):
    """A model whose score of a frame depends on the frame alone is joined without any trace of the windows."""
    _, windows = cut(grid, samples, piece)
    joiner = Joiner(classes=1)
    rows = [joiner.add(w, np.arange(w.first_frame, w.end_frame, dtype=np.float32)[:, None]) for w in windows]
    joined = np.concatenate(rows)[:, 0]
    # The last frames are those of the last whole clip: less than a frame and the clip's remainder may be missing.
    missing = math.ceil(samples / grid.samples_per_frame) - len(joined)
    assert -1 <= missing <= 2
    np.testing.assert_array_equal(joined, np.arange(len(joined), dtype=np.float32))


@given(grids, st.integers(1, 1500), st.integers(1, 700), st.integers(1, 700))
@settings(deadline=None)
def test_the_size_of_the_pieces_does_not_matter(grid, samples, piece, other):
    _, windows = cut(grid, samples, piece)
    _, again = cut(grid, samples, other)
    assert [(w.first_frame, w.frames, w.fade_from, w.settled) for w in windows] == [
        (w.first_frame, w.frames, w.fade_from, w.settled) for w in again
    ]
    assert all(torch.equal(a.samples, b.samples) for a, b in zip(windows, again, strict=True))


@pytest.mark.parametrize("samples", [1, 500, 1000, 1063])
def test_up_to_a_clip_and_less_than_a_frame_is_one_window(samples):
    _, windows = cut(ODD, samples, 100)
    assert len(windows) == 1
    assert len(windows[0].samples) == min(samples, 1000)


def test_windows_overlap_by_half_and_the_last_ends_with_the_audio():
    _, windows = cut(ODD, 2100, 300)
    assert [window.first_frame for window in windows] == [0, 7, 14, 17]
    assert ODD.sample_of(17) + 1000 <= 2100 < ODD.sample_of(18) + 1000


def test_a_cutter_holds_little_more_than_a_clip():
    cutter = Cutter(ODD)
    for _ in range(200):
        cutter.feed(torch.zeros(100))
    assert len(cutter._buffer) <= 1000 + 64 + 1 + 100 + 64 * ODD.hop


def test_neighbours_fade_into_each_other():
    """Two windows that disagree give a ramp, not a step."""
    grid = Grid(20, 20, 1.0, 20)
    _, windows = cut(grid, 30, 30)
    joiner = Joiner(classes=1)
    joined = np.concatenate([joiner.add(w, np.full((w.frames, 1), float(i))) for i, w in enumerate(windows)])[:, 0]
    assert (joined[:10] == 0).all()
    assert (np.diff(joined[10:20]) > 0).all()
    assert np.abs(np.diff(joined)).max() < 0.11
    assert (joined[20:] == 1).all()


def test_a_frame_heard_once_comes_out_exactly():
    _, (window,) = cut(ODD, 900, 900)
    scores = np.random.default_rng(0).random((window.frames, 4), dtype=np.float32)
    np.testing.assert_array_equal(Joiner(classes=4).add(window, scores), scores)
