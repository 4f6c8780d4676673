from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes import EmbeddingStore, PosteriorStore


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@settings(max_examples=30, deadline=None)
@given(values=arrays.arrays(np.float32, (5, 3), elements=st.floats(0, 1, width=32)))
def test_rounding_keeps_every_posterior_within_a_512th(dtype: str, values: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = PosteriorStore(folder, 5, 3, dtype=dtype)
        store.append("clip", values)
        assert store["clip"].dtype == np.float32
        assert np.abs(store["clip"] - values).max() <= 1 / 512


@pytest.mark.parametrize(("dtype", "kib"), [("float16", 64), ("uint8", 32)])
def test_a_clip_of_ten_seconds_takes_at_most_64_kib(dtype: str, kib: int, tmp_path: Path) -> None:
    store = PosteriorStore(tmp_path, 1000, 30, dtype=dtype)
    store.extend((f"clip {number}", torch.full((1000, 30), 1 / 30)) for number in range(10))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size <= 10 * kib * 1024


def test_a_store_describes_itself(tmp_path: Path) -> None:
    store = PosteriorStore(tmp_path, 8, 3, dtype="uint8", description={"prototypes": "abc"})
    store.append("short", np.full((5, 3), 1 / 3))
    opened = PosteriorStore.open(tmp_path)
    assert opened["short"].shape == (5, 3)
    assert (opened.frames, opened.components, opened.ids(), len(opened)) == (8, 3, ["short"], 1)
    assert "short" in pickle.loads(pickle.dumps(opened))
    assert opened.missing(["x", "short"]) == ["x"]
    with pytest.raises(InputError, match="description"):
        PosteriorStore(tmp_path, 8, 3, dtype="uint8", description={"prototypes": "other"})
    with pytest.raises(InputError, match="holds no embeddings"):
        EmbeddingStore.open(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        PosteriorStore.open(tmp_path / "nowhere")


@pytest.mark.parametrize("bad", [float("nan"), 1.5, -0.2])
def test_what_is_no_posterior_is_refused(bad: float, tmp_path: Path) -> None:
    store = PosteriorStore(tmp_path, 2, 3)
    with pytest.raises(InputError, match="'clip' are not all between 0 and 1"):
        store.append("clip", np.full((2, 3), bad))
    with pytest.raises(InputError, match="float16 or uint8"):
        PosteriorStore(tmp_path, 2, 3, dtype="float64")
