from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes import EmbeddingStore
from pmam_plugin.prototypes.embedding_store import one_of_every_run


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    """Frame ``f`` of clip ``c`` is ``[c, f]``; clip 3 is shorter."""
    store = EmbeddingStore(tmp_path / "store", 10, 2, description={"layer": "encoder"})
    for clip in (5, 3, 4, 1, 2):
        frames = 7 if clip == 3 else 10
        store.append(f"clip{clip}", torch.stack([torch.full((frames,), clip), torch.arange(frames)], dim=1).float())
    return store


def test_batches_hold_every_frame_once_in_the_order_of_the_ids(store: EmbeddingStore) -> None:
    batches = store.batches(8)
    for _ in range(2):
        parts = list(batches)
        assert [len(part) for part in parts] == [8, 8, 8, 8, 8, 7]
        frames = torch.cat(parts)
        assert frames.dtype == torch.float32
        expected = [(clip, frame) for clip in range(1, 6) for frame in range(7 if clip == 3 else 10)]
        assert [tuple(row) for row in frames.tolist()] == expected


def test_processes_share_the_clips_without_overlap(store: EmbeddingStore) -> None:
    parts = [torch.cat(list(store.batches(8, subsample=3, seed=1, rank=rank, world=2))) for rank in range(2)]
    whole = torch.cat(list(store.batches(100, subsample=3, seed=1)))
    assert sorted(torch.cat(parts).tolist()) == sorted(whole.tolist())
    assert set(parts[0][:, 0].tolist()) == {1.0, 3.0, 5.0}


def test_subsampling_takes_one_frame_of_every_run(store: EmbeddingStore) -> None:
    frames = torch.cat(list(store.batches(100, subsample=4, seed=0)))
    assert len(frames) == 3 * 4 + 2
    runs = [(clip, frame // 4) for clip, frame in frames.tolist()]
    assert len(set(runs)) == len(runs)
    again = torch.cat(list(store.batches(3, subsample=4, seed=0)))
    assert torch.equal(frames, again)
    assert not torch.equal(frames, torch.cat(list(store.batches(100, subsample=4, seed=1))))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 5))
def test_a_draw_never_leaves_its_run_nor_the_clip(frames: int, run: int, seed: int) -> None:
    drawn = one_of_every_run(frames, run, np.random.default_rng(seed))
    assert list(drawn // run) == list(range(-(-frames // run)))
    assert (drawn < frames).all()


def test_draws_are_uniform_in_their_run() -> None:
    random = np.random.default_rng(0)
    drawn = np.concatenate([one_of_every_run(100, 5, random) for _ in range(500)])
    counts = np.bincount(drawn, minlength=100)
    assert abs(counts - 100).max() < 60


def test_only_named_clips_and_their_absence(store: EmbeddingStore) -> None:
    assert torch.cat(list(store.batches(50, clips=["clip2"])))[:, 0].unique().tolist() == [2.0]
    with pytest.raises(InputError, match="no embeddings of 'clip9'"):
        store.batches(50, clips=["clip9"])
    with pytest.raises(InputError, match="at least 1"):
        store.batches(50, subsample=0)


def test_values_that_float16_cannot_hold_are_refused(store: EmbeddingStore) -> None:
    with pytest.raises(InputError, match="exceed float16"):
        store.append("loud", np.full((10, 2), 1e6))
    with pytest.raises(InputError, match="NaN or infinite"):
        store.append("broken", np.full((10, 2), np.nan))
    assert store["clip3"].shape == (7, 2)
    opened = EmbeddingStore.open(store._store.folder)
    assert (opened.frames, opened.dim, len(opened)) == (10, 2, 5)
