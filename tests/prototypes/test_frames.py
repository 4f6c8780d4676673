from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes import ArrayStore, draw_frames
from pmam_plugin.prototypes.frames import Frames, one_of_every_run


def test_arrays_files_and_tensors_hold_the_same_frames(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.save(tmp_path / "frames.npy", data)
    for source in (data, data.astype(np.float64), torch.from_numpy(data), np.load(tmp_path / "frames.npy", "r")):
        frames = Frames(source, batch_frames=16)
        for _ in range(2):
            parts = list(frames)
            assert [len(part) for part in parts] == [16, 16, 16, 2]
            assert torch.equal(torch.cat(parts), torch.from_numpy(data))
        assert torch.equal(torch.cat(list(Frames(source, transform=lambda x: 2 * x))), 2 * torch.from_numpy(data))


def test_the_sample_is_distinct_uniform_and_repeats_itself() -> None:
    data = np.arange(400.0)[:, None].repeat(2, axis=1)
    times = np.zeros(400)
    for seed in range(200):
        sample = Frames(data, batch_frames=64).sample(40, seed)[:, 0].astype(int)
        assert len(set(sample)) == 40
        times[sample] += 1
    assert abs(times[:200].sum() / times.sum() - 0.5) < 0.02
    assert times.std() < 2 * (200 * 0.1 * 0.9) ** 0.5
    assert np.array_equal(Frames(data).sample(40, 3), Frames(data, batch_frames=7).sample(40, 3))
    assert len(Frames(data).sample(1000, 0)) == 400


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros(5), r"shape \(n, dimensions\)"),
        (np.zeros((0, 3)), "0 frames to fit on where at least 4"),
        (np.zeros((3, 3)), "3 frames to fit on where at least 4"),
        (np.full((9, 2), np.nan), "frame 0, dimension 0 is nan"),
    ],
)
def test_what_holds_no_frames_is_refused_in_one_sentence(frames: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(Frames(frames, at_least=4))


@pytest.fixture
def store(tmp_path: Path) -> ArrayStore:
    """Frame ``f`` of clip ``c`` is ``[c, f]``; clip 3 is shorter."""
    store = ArrayStore(tmp_path / "store", 10, 2)
    for clip in (5, 3, 4, 1, 2):
        frames = 7 if clip == 3 else 10
        store.extend([f"clip{clip}"], [torch.stack([torch.full((frames,), clip), torch.arange(frames)], dim=1)])
    return store


def test_one_frame_of_every_run_is_drawn_once_into_a_file(store: ArrayStore, tmp_path: Path) -> None:
    drawn = draw_frames(store, store.ids(), 4, 0, tmp_path / "drawn.npy")
    assert isinstance(drawn, np.memmap)
    runs = [(clip, frame // 4) for clip, frame in drawn.tolist()]
    assert runs == [(clip, run) for clip in range(1, 6) for run in range(2 if clip == 3 else 3)]
    other = draw_frames(store, store.ids(), 4, 1, tmp_path / "other.npy")
    assert not np.array_equal(drawn, other)
    # A finished file is taken as it is, and the draws of a clip do not depend on the other clips.
    assert np.array_equal(draw_frames(store, [], 4, 1, tmp_path / "drawn.npy"), drawn)
    assert np.array_equal(draw_frames(store, ["clip2"], 4, 0, tmp_path / "two.npy"), drawn[3:6])


def test_every_frame_is_drawn_without_subsampling(store: ArrayStore, tmp_path: Path) -> None:
    assert len(draw_frames(store, store.ids(), 1, 0, tmp_path / "drawn.npy")) == 47


def test_clips_without_embeddings_are_named(store: ArrayStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row for 'clip9'"):
        draw_frames(store, ["clip9"], 4, 0, tmp_path / "drawn.npy")
    with pytest.raises(InputError, match="at least 1"):
        draw_frames(store, ["clip1"], 0, 0, tmp_path / "drawn.npy")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 5))
def test_a_draw_never_leaves_its_run_nor_the_clip(frames: int, run: int, seed: int) -> None:
    drawn = one_of_every_run(frames, run, np.random.default_rng(seed))
    assert list(drawn // run) == list(range(-(-frames // run)))
    assert (drawn < frames).all()


def test_draws_are_uniform_in_their_run() -> None:
    random = np.random.default_rng(0)
    drawn = np.concatenate([one_of_every_run(100, 5, random) for _ in range(500)])
    assert abs(np.bincount(drawn, minlength=100) - 100).max() < 60
