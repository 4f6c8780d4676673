"""Arrays of equal shape, one per clip, in one memory-mapped file: pseudo-labels and embeddings.

A store is a folder: ``store.json`` (shape and type), ``rows.bin`` (the rows, one after the other) and ``index.txt``
(one quoted clip id per line; line n names row n). A row is written before its line, both under a file lock, so several
processes may append at once, and a process that is killed leaves nothing behind but bytes that no line names.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np

from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json, write_json

Self = TypeVar("Self", bound="ArrayStore")


class ArrayStore:
    """Clip id -> array, all of one shape. Use :meth:`create` or :meth:`open`.

    Args:
        folder: of the store.
        shape: of a row.
        dtype: what is stored; subclasses may decode it.
    """

    dtypes: ClassVar[tuple[str, ...]] = ("float16", "float32")

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.folder, self.shape, self.dtype = folder, shape, np.dtype(dtype)
        self._bytes = int(np.prod(shape)) * self.dtype.itemsize
        self._rows: dict[str, int] = {}
        self._read_to = 0
        self._map: np.memmap | None = None
        self.refresh()

    @classmethod
    def create(cls: type[Self], folder: str | os.PathLike[str], *shape: int, dtype: str = "float16") -> Self:
        """A new, empty store; an existing one of the same shape and type is opened instead.

        Raises:
            InputError: a store of another shape or type is there, or ``dtype`` cannot be stored.
        """
        if dtype not in cls.dtypes:
            raise InputError(f"a {cls.__name__} holds {' or '.join(cls.dtypes)}, not {dtype}")
        folder = Path(folder)
        wanted = {"kind": cls.__name__, "shape": list(shape), "dtype": dtype}
        if cls.exists(folder):
            if read_json(folder / "store.json") != wanted:
                raise InputError(f"{folder}: holds a store of another shape; remove it or choose another folder")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("rows.bin", "index.txt"):
                (folder / name).touch()
            write_json(folder / "store.json", wanted)
        return cls.open(folder)

    @classmethod
    def exists(cls, folder: str | os.PathLike[str]) -> bool:
        """Whether a store is there."""
        return (Path(folder) / "store.json").exists()

    @classmethod
    def open(cls: type[Self], folder: str | os.PathLike[str]) -> Self:
        """Open a store for reading and appending.

        Raises:
            InputError: there is none, or one of another kind.
        """
        folder = Path(folder)
        if not cls.exists(folder):
            raise InputError(f"{folder}: no {cls.__name__} here (store.json is missing)")
        described = read_json(folder / "store.json")
        if described.get("kind") != cls.__name__:
            raise InputError(f"{folder}: holds a {described.get('kind')}, not a {cls.__name__}")
        return cls(folder, tuple(described["shape"]), described["dtype"])

    def refresh(self) -> None:
        """Learn of rows that other processes have appended since."""
        with open(self.folder / "index.txt", "rb") as index:
            index.seek(self._read_to)
            for line in index:
                if not line.endswith(b"\n"):
                    break  # a writer is at it, or was killed
                self._rows[json.loads(line)] = len(self._rows)
                self._read_to += len(line)
        self._map = None

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, clip: object) -> bool:
        return clip in self._rows

    def __getitem__(self, clip: str) -> np.ndarray:
        """The array of a clip, float32.

        Raises:
            InputError: the store has none for it.
        """
        if clip not in self._rows:
            raise InputError(f"{self.folder}: nothing stored for clip {clip!r}; run the stage that fills it again")
        if self._map is None:
            self._map = np.memmap(
                self.folder / "rows.bin", self.dtype, mode="r", shape=(len(self._rows), *self.shape)
            )
        return self._decode(self._map[self._rows[clip]])

    def ids(self) -> list[str]:
        """Clips in the order of their rows."""
        return list(self._rows)

    def missing(self, clips: Iterable[str]) -> list[str]:
        """Those of ``clips`` that the store does not hold yet, in their order."""
        return [clip for clip in clips if clip not in self._rows]

    def append(self, clip: str, values: np.ndarray) -> None:
        """Add the array of a clip; one that is there already stays.

        Raises:
            ValueError: the shape is not the store's.
            InputError: it cannot be written.
        """
        if values.shape != self.shape:
            raise ValueError(f"this store holds arrays of shape {self.shape}, got {values.shape}")
        row = np.ascontiguousarray(self._encode(values), dtype=self.dtype).tobytes()
        try:
            with open(self.folder / "index.txt", "rb+") as index, open(self.folder / "rows.bin", "rb+") as rows:
                fcntl.flock(index, fcntl.LOCK_EX)
                self.refresh()
                if clip in self._rows:
                    return
                rows.seek(len(self._rows) * self._bytes)
                rows.write(row)
                rows.flush()
                index.seek(self._read_to)
                index.write(json.dumps(clip).encode() + b"\n")
                index.truncate()
                index.flush()
                self.refresh()
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be written ({error.strerror}); free some space") from error

    def _encode(self, values: np.ndarray) -> np.ndarray:
        return values

    def _decode(self, row: np.ndarray) -> np.ndarray:
        return row.astype(np.float32)


class PosteriorStore(ArrayStore):
    """Clip id -> posteriors ``(frames, prototypes)``, every value within 1/512 of what was appended.

    ``float16`` rounds by at most 2^-12; ``uint8`` is half the size and stores the middle of 256 equal intervals,
    ``(floor(256 p) + 1/2) / 256``. At 30 prototypes and 1000 frames a clip takes 60 or 30 kB.
    """

    dtypes: ClassVar[tuple[str, ...]] = ("float16", "uint8")

    def _encode(self, values: np.ndarray) -> np.ndarray:
        if self.dtype == np.uint8:
            return np.minimum(np.floor(values * 256), 255)
        return values

    def _decode(self, row: np.ndarray) -> np.ndarray:
        if self.dtype == np.uint8:
            return (row.astype(np.float32) + 0.5) / 256
        return row.astype(np.float32)


class EmbeddingStore(ArrayStore):
    """Clip id -> embeddings ``(frames, dim)``, read back clip by clip or as a stream of subsampled frames."""

    def batches(
        self,
        seconds: Mapping[str, float],
        clip_seconds: float,
        subsample: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[np.ndarray]:
        """Frames of clips for a fit, ``(n, dim)`` float32, one clip at a time; the same ones on every pass.

        Of every run of ``subsample`` frames one is drawn uniformly (the last run may be shorter). What is drawn depends
        on the seed and the clip alone, not on order or number of processes.

        Args:
            seconds: the clips wanted, with the length of their recordings; frames beyond it are padding and left out.
            clip_seconds: what all frames of a row span.
            subsample: length of a run.
            seed: of the draw.
            rank, world: this process's share of the clips.
        """
        for clip in sorted(seconds)[rank::world]:
            valid = min(self.shape[0], max(1, int(np.ceil(seconds[clip] / clip_seconds * self.shape[0] - 1e-3))))
            digest = hashlib.blake2b(f"{seed}/{clip}".encode(), digest_size=8).digest()
            random = np.random.default_rng(int.from_bytes(digest, "little"))
            starts = np.arange(0, valid, subsample)
            chosen = starts + (random.random(len(starts)) * np.minimum(subsample, valid - starts)).astype(int)
            yield self[clip][chosen]


