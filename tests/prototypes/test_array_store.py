from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes.array_store import ArrayStore


def rows(value: float, frames: int = 4) -> np.ndarray:
    return np.full((frames, 3), value, dtype=np.float32)


def test_rows_come_back_and_short_rows_keep_their_length(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path, (4, 3), "float32")
    store.write([("b", rows(2)), ("a", rows(1, frames=2))])
    assert store.ids() == ["a", "b"]
    assert np.array_equal(store.read("a"), rows(1, frames=2))
    assert np.array_equal(ArrayStore(tmp_path, (4, 3), "float32").read("b"), rows(2))
    assert store.missing(["c", "a", "d"]) == ["c", "d"]
    assert "a" in store
    assert len(store) == 2


def test_another_process_s_rows_appear_without_reopening(tmp_path: Path) -> None:
    reader, writer = (ArrayStore(tmp_path, (4, 3), "float32") for _ in range(2))
    writer.write([("a", rows(1))])
    assert np.array_equal(reader.read("a"), rows(1))
    writer.write([("b", rows(2))])
    assert reader.missing(["a", "b"]) == []
    assert np.array_equal(reader.read("b"), rows(2))


def test_the_last_writing_of_an_id_counts(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path, (4, 3), "float32")
    for value in (1, 2, 3):
        store.write([("a", rows(value))])
    assert np.array_equal(ArrayStore(tmp_path, (4, 3), "float32").read("a"), rows(3))


FORK = multiprocessing.get_context("fork")  # the children touch no tensor, and start at once


def append_forty(folder: Path, name: int) -> None:
    store = ArrayStore(folder, (50, 20), "float32")
    for clip in range(40):
        store.write([(f"{name}/{clip}", np.full((50, 20), 1000.0 * name + clip))])


def stop_before_the_index(folder: Path, reached: Any) -> None:
    def wait(_: int) -> None:
        reached.set()
        time.sleep(60)

    os.fdatasync = wait
    ArrayStore(folder, (50, 20), "float32").write([("killed", np.full((50, 20), 7.0))])


def test_several_processes_append_at_once(tmp_path: Path) -> None:
    processes = [FORK.Process(target=append_forty, args=(tmp_path, name)) for name in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    store = ArrayStore(tmp_path, (50, 20), "float32")
    assert len(store) == 160
    for name in range(4):
        for clip in range(40):
            assert (store.read(f"{name}/{clip}") == 1000.0 * name + clip).all()


def test_a_killed_writer_leaves_the_store_usable(tmp_path: Path) -> None:
    ArrayStore(tmp_path, (50, 20), "float32").write([("before", np.ones((50, 20)))])
    reached = FORK.Event()
    process = FORK.Process(target=stop_before_the_index, args=(tmp_path, reached))
    process.start()
    assert reached.wait(30)
    process.kill()
    process.join()
    with open(tmp_path / "index.tsv", "ab") as index:
        index.write(b"2\t50\tdead")  # and one killed in the middle of its line
    store = ArrayStore(tmp_path, (50, 20), "float32")
    assert store.ids() == ["before"]
    assert store.missing(["killed"]) == ["killed"]
    store.write([("after", np.full((50, 20), 5.0))])
    again = ArrayStore(tmp_path, (50, 20), "float32")
    assert again.ids() == ["after", "before"]
    assert (again.read("after") == 5).all()
    assert (again.read("before") == 1).all()


def test_opens_in_milliseconds(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path, (1, 1), "uint8")
    store.write((f"clip_{number:05d}.wav", np.zeros((1, 1))) for number in range(20000))
    begin = time.process_time()  # a loaded machine must not fail it
    assert len(ArrayStore(tmp_path, (1, 1), "uint8")) == 20000
    assert time.process_time() - begin < 0.5  # about 40 ms on an idle core


def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path, (4, 3), "float32", {"layer": "encoder"})
    with pytest.raises(InputError, match="has no row for 'a'"):
        store.read("a")
    with pytest.raises(InputError, match=r"shape \(5, 3\), expected at most 4 frames"):
        store.write([("a", rows(1, frames=5))])
    with pytest.raises(InputError, match="cannot be an id"):
        store.write([("a\nb", rows(1))])
    with pytest.raises(InputError, match="description"):
        ArrayStore(tmp_path, (4, 3), "float32", {"layer": "context_1"})
    with pytest.raises(InputError, match="row_shape"):
        ArrayStore(tmp_path, (4, 2), "float32", {"layer": "encoder"})
    store.write([("a", rows(1))])
    os.truncate(tmp_path / "rows.bin", 5)
    with pytest.raises(InputError, match="truncated"):
        ArrayStore(tmp_path, (4, 3), "float32", {"layer": "encoder"}).read("a")


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArrayStore(tmp_path, (4, 3), "float32")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(InputError, match="No space left on device"):
        store.write([("a", rows(1))])
    monkeypatch.undo()
    assert store.missing(["a"]) == ["a"]
    store.write([("a", rows(1))])
    assert np.array_equal(store.read("a"), rows(1))
