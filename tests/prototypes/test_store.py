from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import re
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays

from pmam_plugin.errors import InputError
from pmam_plugin.nn.interpolate import Grid, interpolate_frames
from pmam_plugin.prototypes import ArrayStore


def rows(value: float, frames: int = 4) -> np.ndarray:
    return np.full((frames, 3), value, dtype=np.float32)


def test_rows_come_back_and_short_rows_keep_their_length(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path, 4, 3)
    store.extend(["b", "a"], [rows(2), rows(1, frames=2)])
    assert store.ids() == ["a", "b"]
    assert np.array_equal(store["a"], rows(1, frames=2))
    assert np.array_equal(ArrayStore(tmp_path, 4, 3)["b"], rows(2))
    assert store.missing(["c", "a", "d"]) == ["c", "d"]
    assert "a" in store
    assert len(store) == 2


def test_another_process_s_rows_appear_without_reopening(tmp_path: Path) -> None:
    reader, writer = (ArrayStore(tmp_path, 4, 3) for _ in range(2))
    writer.extend(["a"], [rows(1)])
    assert np.array_equal(reader["a"], rows(1))
    writer.extend(["b"], [rows(2)])
    assert reader.missing(["a", "b"]) == []
    assert np.array_equal(reader["b"], rows(2))


def test_the_last_writing_of_an_id_counts(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path, 4, 3)
    for value in (1, 2, 3):
        store.extend(["a"], [rows(value)])
    assert np.array_equal(ArrayStore(tmp_path, 4, 3)["a"], rows(3))


def test_the_places_of_many_clips_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmam_plugin.prototypes.store._RECENT_CLIPS", 7)
    writer, reader = (ArrayStore(tmp_path, 4, 3) for _ in range(2))
    written: dict[str, int] = {}
    for value in range(60):
        name = f"clip{value * 7 % 25}"
        writer.extend([name], [rows(value)])
        written[name] = value
        reader.refresh()
    assert (tmp_path / "places.npy").exists()
    for store in (reader, ArrayStore(tmp_path, 4, 3), pickle.loads(pickle.dumps(reader))):
        assert {name: store[name][0, 0] for name in store.ids()} == written
        assert len(store) == len(written) == 25
        assert store.missing(["clip24", "clip25"]) == ["clip25"]
    assert len(pickle.dumps(reader)) < 2000
    (tmp_path / "index.tsv").write_text("")
    with pytest.raises(InputError, match="does not belong to the index beside it; delete it"):
        ArrayStore(tmp_path, 4, 3)


FORK = multiprocessing.get_context("fork")  # the children touch no tensor, and start at once


def append_forty(folder: Path, name: int) -> None:
    store = ArrayStore(folder, 50, 20)
    for clip in range(40):
        store.extend([f"{name}/{clip}"], [np.full((50, 20), 100.0 * name + clip)])


def stop_before_the_index(folder: Path, reached: Any) -> None:
    def wait(_: int) -> None:
        reached.set()
        time.sleep(60)

    os.fdatasync = wait
    ArrayStore(folder, 50, 20).extend(["killed"], [np.full((50, 20), 7.0)])


def test_several_processes_append_at_once(tmp_path: Path) -> None:
    processes = [FORK.Process(target=append_forty, args=(tmp_path, name)) for name in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    store = ArrayStore(tmp_path, 50, 20)
    assert len(store) == 160
    for name in range(4):
        for clip in range(40):
            assert (store[f"{name}/{clip}"] == 100.0 * name + clip).all()


def test_a_killed_writer_leaves_the_store_usable(tmp_path: Path) -> None:
    ArrayStore(tmp_path, 50, 20).extend(["before"], [np.ones((50, 20))])
    reached = FORK.Event()
    process = FORK.Process(target=stop_before_the_index, args=(tmp_path, reached))
    process.start()
    assert reached.wait(30)
    process.kill()
    process.join()
    with open(tmp_path / "index.tsv", "ab") as index:
        index.write(b"2\t50\tdead")  # and one killed in the middle of its line
    store = ArrayStore(tmp_path, 50, 20)
    assert store.ids() == ["before"]
    assert store.missing(["killed"]) == ["killed"]
    store.extend(["after"], [np.full((50, 20), 5.0)])
    again = ArrayStore(tmp_path, 50, 20)
    assert again.ids() == ["after", "before"]
    assert (again["after"] == 5).all()
    assert (again["before"] == 1).all()


def test_opens_in_milliseconds(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path, 1, 1, "uint8")
    store.extend([f"clip_{number:05d}.wav" for number in range(20000)], [np.zeros((1, 1))] * 20000)
    begin = time.process_time()  # a loaded machine must not fail it
    assert len(ArrayStore(tmp_path, 1, 1, "uint8")) == 20000
    assert time.process_time() - begin < 0.5  # about 40 ms on an idle core


def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path, 4, 3)
    with pytest.raises(InputError, match="has no row for 'a'"):
        store["a"]
    with pytest.raises(InputError, match=r"shape \(5, 3\), expected at most 4 frames"):
        store.extend(["a"], [rows(1, frames=5)])
    with pytest.raises(InputError, match="cannot be a clip's name"):
        store.extend(["a\nb"], [rows(1)])
    with pytest.raises(InputError, match="'loud' are not all numbers between -65504 and 65504"):
        store.extend(["loud"], [rows(1e6)])
    with pytest.raises(InputError, match="width"):
        ArrayStore(tmp_path, 4, 2)
    with pytest.raises(InputError, match="codec"):
        ArrayStore(tmp_path, 4, 3, "uint8")
    with pytest.raises(InputError, match="float16 or uint8"):
        ArrayStore(tmp_path / "other", 4, 3, "float64")
    with pytest.raises(InputError, match="no such file"):
        ArrayStore.open(tmp_path / "nowhere")
    store.extend(["a"], [rows(1)])
    os.truncate(tmp_path / "rows.bin", 5)
    with pytest.raises(InputError, match="truncated"):
        ArrayStore.open(tmp_path)["a"]


@pytest.mark.parametrize("codec", ["float16", "uint8"])
@settings(max_examples=30, deadline=None)
@given(values=arrays.arrays(np.float32, (5, 3), elements=st.floats(0, 1, width=32)))
def test_rounding_keeps_every_posterior_within_a_512th(codec: str, values: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = ArrayStore(folder, 5, 3, codec)
        store.extend(["clip"], [values])
        assert store["clip"].dtype == np.float32
        assert np.abs(store["clip"] - values).max() <= 1 / 512


@pytest.mark.parametrize("bad", [float("nan"), 1.5, -0.2])
def test_bytes_hold_probabilities_only(bad: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'clip' are not all numbers between"):
        ArrayStore(tmp_path, 2, 3, "uint8").extend(["clip"], [np.full((2, 3), bad)])


@pytest.mark.parametrize(("codec", "kib"), [("float16", 64), ("uint8", 32)])
def test_the_posteriors_of_ten_seconds_take_at_most_64_kib(codec: str, kib: int, tmp_path: Path) -> None:
    store = ArrayStore(tmp_path, 1000, 30, codec)
    store.extend([f"clip {number}" for number in range(10)], torch.full((10, 1000, 30), 1 / 30))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10 * kib * 1024


def test_columns_are_kept_and_frames_read(tmp_path: Path) -> None:
    """99 columns on disk, 1000 frames out of them, a short clip only as far as it sounds; pickled to workers, too."""
    columns = torch.randn(2, 99, 8).half().float()
    store = ArrayStore(tmp_path, 1000, 8, columns=99, grid=Grid(10.0, 3.0))
    store.extend(["whole", "short"], columns, [1000, 420])
    frames = interpolate_frames(columns, 1000, 10.0, 3.0).numpy()
    for opened in (store, ArrayStore.open(tmp_path), pickle.loads(pickle.dumps(store))):
        np.testing.assert_allclose(opened["whole"], frames[0], atol=1e-6)
        assert opened["short"].shape == (420, 8)
        np.testing.assert_allclose(opened["short"], frames[1, :420], atol=1e-6)
    assert (tmp_path / "rows.bin").stat().st_size == 2 * 99 * 8 * 2


@pytest.mark.parametrize("stored", [0, 2])
def test_a_file_that_may_not_grow_is_named(tmp_path: Path, stored: int) -> None:
    """Files may grow no further, at the first row or at a later one; what stood there stays, and writing goes on."""
    store, values = ArrayStore(tmp_path, 4, 64), np.ones((4, 64), dtype=np.float32)  # half a KiB a row
    store.extend(["a", "b"][:stored], [values, values][:stored])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (stored * 512, hard))
    try:
        with pytest.raises(InputError, match=f"{re.escape(str(tmp_path))}.*File too large"):
            store.extend(["c"], [2 * values])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.missing(["a", "b", "c"]) == ["a", "b", "c"][stored:]
    store.extend(["c"], [2 * values])
    assert np.array_equal(store["c"], 2 * values)


def test_a_disk_that_fills_while_rows_are_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Growing a file takes no room, so a full disk shows only when its rows go out: they count as missing."""
    store = ArrayStore(tmp_path, 4, 3)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", full)
        with pytest.raises(InputError, match="No space left on device"):
            store.extend(["a"], [rows(1)])
    assert store.missing(["a"]) == ["a"]
    store.extend(["a"], [rows(2)])
    assert np.array_equal(store["a"], rows(2))
