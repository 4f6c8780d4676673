"""Decoded waveforms on disk, so that epochs after the first do not decode compressed audio again.

One cache serves all experiments on this machine: a waveform is known by the content of its recording, so that runs with
other seeds, splits and output folders find it, and a recording that was replaced is not mistaken for the old one. Any
number of processes fill it; files appear whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import struct
import time
import zlib
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pmam_plugin.data.manifest import Clip

logger = logging.getLogger(__name__)

DEFAULT_GIGABYTES = 20.0

_HEAD = struct.Struct("<4sfII")  # magic, scale, samples, checksum
_MAGIC = b"PMWC"
_VERSION = 1  # raise when recordings are decoded or resampled otherwise
# Files used within a day belong to a run that may still go on.
_IN_USE_SECONDS = 24 * 3600.0
_TOUCH_SECONDS = 3600.0
_KEPT_FREE_BYTES = 1 << 30


def default_cache_folder() -> Path:
    """``$PMAM_AUDIO_CACHE``, or the user's cache folder."""
    given = os.environ.get("PMAM_AUDIO_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pmam_plugin" / "audio"


class WaveformCache:
    """Waveforms as int16 with a scale per clip.

    A stored waveform differs from the original by at most half a step of its peak / 32767 (98 dB below it);
    :meth:`put` returns the stored form, so that a clip sounds the same the first time and later, stored or not.

    Args:
        folder: is made when absent; caches at other rates share it.
        sample_rate: in Hz.
        samples: longest waveform.
        gigabytes: it may grow to; beyond that, files unused for a day make room, and what finds none is not kept.
    """

    def __init__(
        self, folder: str | PathLike[str], sample_rate: int, samples: int, gigabytes: float = DEFAULT_GIGABYTES
    ) -> None:
        self.folder, self.sample_rate, self.samples = Path(folder), sample_rate, samples
        self._limit = round(gigabytes * 1e9)
        self._size: int | None = None

    def get(self, clip: Clip) -> Tensor | None:
        """The waveform of a clip, ``(samples,)`` float32, or None when it is not (soundly) there."""
        path = self._path(clip)
        try:
            content = path.read_bytes()
            if time.time() - path.stat().st_mtime > _TOUCH_SECONDS:
                os.utime(path)
        except OSError:
            return None
        if len(content) < _HEAD.size:
            return None
        magic, scale, length, checksum = _HEAD.unpack_from(content)
        stored = np.frombuffer(content, "<i2", offset=_HEAD.size) if len(content) % 2 == 0 else np.zeros(0, "<i2")
        # A power cut may leave a file without its content.
        if magic != _MAGIC or len(stored) != length or zlib.crc32(stored.data) != checksum:
            return None
        return _decoded(stored, scale)

    def put(self, clip: Clip, wave: Tensor) -> Tensor:
        """Store a waveform of at most ``samples`` values and return its stored form."""
        values = wave.numpy()[: self.samples]
        scale = float(np.float32(max(float(np.abs(values).max(initial=0.0)), 1e-30) / 32767))  # silence: not 0
        stored = np.rint(values / np.float32(scale)).astype("<i2")
        self._write(
            self._path(clip), _HEAD.pack(_MAGIC, scale, len(stored), zlib.crc32(stored.data)) + stored.tobytes()
        )
        return _decoded(stored, scale)

    def _path(self, clip: Clip) -> Path:
        # Where no digest stands for the content, recordings of one name and size must not be taken for each other.
        source = clip.content if clip.content and ":" not in clip.content else [str(clip.path.absolute()), clip.content]
        identity = [source, clip.size, clip.start, clip.seconds, self.sample_rate, self.samples, _VERSION]
        key = hashlib.blake2b(json.dumps(identity).encode(), digest_size=16).hexdigest()
        return self.folder / key[:2] / f"{key}.i16"

    def _write(self, path: Path, content: bytes) -> None:
        mine = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._size is None:
                self._size = _make_room(self.folder, self._limit)
            if self._size + len(content) > self._limit:
                raise OSError(0, f"it has grown to its limit of {self._limit / 1e9:g} GB")
            mine.write_bytes(content)
            os.replace(mine, path)
            self._size += len(content)
        except OSError as error:
            with contextlib.suppress(OSError):
                mine.unlink(missing_ok=True)
            if self._size is None or self._size <= self._limit:
                logger.warning("%s: keeps no more waveforms (%s); decoding instead", self.folder, error.strerror)
            self._size = self._limit + 1  # said once, tried no more


def _make_room(folder: Path, limit: int) -> int:
    """The size of a cache in bytes; when it is nearly full, its longest unused files are removed first."""
    files = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in _entries(folder))
    size = sum(count for _, count, _ in files)
    limit = min(limit, size + shutil.disk_usage(folder).free - _KEPT_FREE_BYTES)
    if size > 0.9 * limit:
        for used, count, path in files:
            if size <= 0.8 * limit or time.time() - used < _IN_USE_SECONDS:
                break
            Path(path).unlink(missing_ok=True)
            size -= count
    return size


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    return [entry for part in os.scandir(folder) if part.is_dir() for entry in os.scandir(part.path)]


def _decoded(stored: np.ndarray, scale: float) -> Tensor:
    return torch.from_numpy(np.multiply(stored, np.float32(scale), dtype=np.float32))
