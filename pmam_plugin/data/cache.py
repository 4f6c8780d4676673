"""Decoded waveforms on disk, so that epochs after the first do not decode compressed audio again.

A cache is two files: one row of int16 samples per clip, and one record per row (scale, length, checksum) that is
written after it. Rows are filled when they are first read, by any number of processes: two that fill the same row
write the same bytes. Nothing is held in memory but the operating system's pages.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pmam_plugin.data.manifest import Clip
from pmam_plugin.errors import InputError

_RECORD = np.dtype([("scale", "<f4"), ("length", "<u4"), ("checksum", "<u4"), ("filled", "<u4")])


class WaveformCache:
    """Waveforms of a list of clips at one sample rate, as int16 with a scale per clip.

    A stored waveform differs from the original by at most half a step of its peak / 32767 (98 dB below it);
    :meth:`put` returns the stored form, so that a clip sounds the same the first time and later.

    Args:
        folder: is created when absent; caches of other clip lists or rates may share it.
        name: prefix of the files.
        clips: whose waveforms it holds; file sizes and names identify them.
        sample_rate: in Hz.
        samples: longest waveform.

    Raises:
        InputError: the folder cannot be written or the disk is full.
    """

    def __init__(
        self, folder: str | PathLike[str], name: str, clips: Sequence[Clip], sample_rate: int, samples: int
    ) -> None:
        identity = [(clip.id, clip.path.name, clip.size, clip.start, clip.seconds) for clip in clips]
        key = hashlib.sha256(json.dumps([sample_rate, samples, identity]).encode()).hexdigest()[:16]
        self.rows, self.samples = len(clips), samples
        self.path = Path(folder) / f"{name}-{sample_rate}-{key}.i16"
        self.records_path = self.path.with_suffix(".rec")
        _create(self.path, self.rows * samples * 2)
        _create(self.records_path, self.rows * _RECORD.itemsize)
        self._waves: np.ndarray | None = None
        self._records: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Workers map the files anew; a pickled memory map would be a copy of everything.
        return {**vars(self), "_waves": None, "_records": None}

    def get(self, row: int) -> Tensor | None:
        """The waveform in a row, ``(samples,)`` float32, or None when it is not (soundly) there yet."""
        waves, records = self._maps()
        record = records[row]
        if record["filled"] != 1 or not 0 < record["length"] <= self.samples:
            return None
        stored = waves[row, : record["length"]]
        # A power cut may leave the record on disk without its row.
        if zlib.crc32(stored.data) != record["checksum"]:
            return None
        return _decoded(stored, record["scale"])

    def put(self, row: int, wave: Tensor) -> Tensor:
        """Store a waveform of at most ``samples`` values and return its stored form.

        Raises:
            InputError: the disk is full.
        """
        values = wave.numpy()[: self.samples]
        peak = float(np.abs(values).max())
        # Silence gets a scale too: it must not divide by zero, nor look like a row that was never filled.
        scale = np.float32(max(peak, 1e-30) / 32767)
        stored = np.rint(values / scale).astype(np.int16)
        record = np.array([(scale, len(stored), zlib.crc32(stored.data), 1)], dtype=_RECORD)
        # Plain writes, not the memory map: a full disk is then an error and not a killed process.
        _write_at(self.path, row * self.samples * 2, stored.tobytes())
        _write_at(self.records_path, row * _RECORD.itemsize, record.tobytes())
        return _decoded(stored, scale)

    def _maps(self) -> tuple[np.ndarray, np.ndarray]:
        if self._waves is None or self._records is None:
            self._waves = np.memmap(self.path, dtype=np.int16, mode="r", shape=(self.rows, self.samples))
            self._records = np.memmap(self.records_path, dtype=_RECORD, mode="r", shape=(self.rows,))
        return self._waves, self._records


def _decoded(stored: np.ndarray, scale: np.float32) -> Tensor:
    return torch.from_numpy(np.multiply(stored, scale, dtype=np.float32))


def _create(path: Path, size: int) -> None:
    """An empty file of the given size (sparse: it takes no room yet), unless it is there already."""
    if path.exists():
        return
    mine = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mine.touch()
        os.truncate(mine, size)
        # A link, not a rename: another process may have made the file meanwhile, and filled rows of it.
        with contextlib.suppress(FileExistsError):
            os.link(mine, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        mine.unlink(missing_ok=True)


def _write_at(path: Path, position: int, content: bytes) -> None:
    try:
        with open(path, "rb+") as file:
            file.seek(position)
            file.write(content)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be written ({error.strerror}); free some space, or train without the waveform cache"
    )
