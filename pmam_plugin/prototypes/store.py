"""Arrays of many clips in one growing memory-mapped file, shared by many processes: embeddings and pseudo-labels.

A folder with three files, and a fourth where there are many clips:

    store.json   what a row is: frames, width, codec and grid; written once, atomically
    rows.bin     the rows, one after the other
    index.tsv    one line per finished row: row number, valid frames, checksum of the line, clip
    places.npy   the index up to some line, sorted by digests of the names, to be mapped; its first record says how far

A writer reserves a row under a lock (the file grows), writes it, and only then appends its line to the index. A writer
that is killed leaves at worst a reserved row that no line names, or the beginning of a line, which readers ignore and
the next writer ends. When a clip is written again, its last line counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path, read_json, write_json
from pmam_plugin.nn.interpolate import Grid

_FORMAT = 2
_PLACE = np.dtype([("key", np.uint64), ("row", np.uint32), ("length", np.uint32)])
_RECENT_CLIPS = 1 << 16


@dataclass(frozen=True)
class Codec:
    """How values lie on disk.

    Attributes:
        dtype: NumPy type.
        bounds: smallest and largest value it takes.
        encode: float32 values to stored ones.
        decode: and back.
    """

    dtype: type[np.generic]
    bounds: tuple[float, float]
    encode: Callable[[NDArray[np.float32]], NDArray[Any]]
    decode: Callable[[NDArray[Any]], NDArray[np.float32]]


_LARGEST = float(np.finfo(np.float16).max)
CODECS = {
    # Embeddings, and posteriors within 1/2048; zero and one exactly.
    "float16": Codec(np.float16, (-_LARGEST, _LARGEST), lambda x: x.astype(np.float16), lambda x: x.astype(np.float32)),
    # Posteriors within 1/512 in half the space: the midpoints of 256 equal cells. Sums may exceed 1 by rounding.
    "uint8": Codec(
        np.uint8,
        (-1e-4, 1 + 1e-4),
        lambda x: np.clip(np.floor(x * 256), 0, 255).astype(np.uint8),
        lambda x: (x.astype(np.float32) + np.float32(0.5)) / np.float32(256),
    ),
}


class ArrayStore:
    """Values ``(frames, width)`` under the names of clips.

    Args:
        folder: where the three files lie; made where there is none.
        frames: most frames per clip.
        width: values per frame.
        codec: ``float16`` or ``uint8`` (values in [0, 1], within 1/512).
        columns: rows hold so many columns of an encoder's own, slower grid, and are interpolated when they are read.
        grid: how those columns lie among the frames; needed with ``columns``.

    Raises:
        InputError: the folder holds a store of other rows, or something that is no store.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        frames: int,
        width: int,
        codec: str = "float16",
        columns: int | None = None,
        grid: Grid | None = None,
    ):
        if codec not in CODECS:
            raise InputError(f"arrays are stored as {' or '.join(CODECS)}, not {codec!r}")
        self.folder, self.frames, self.width = Path(folder), int(frames), int(width)
        self.columns, self.grid, self._codec = columns, grid, CODECS[codec]
        header = {
            "format": _FORMAT,
            "frames": self.frames,
            "width": self.width,
            "codec": codec,
            "columns": columns,
            "grid": None if grid is None else asdict(grid),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            if not (self.folder / "store.json").exists():
                (self.folder / "rows.bin").touch()
                (self.folder / "index.tsv").touch()
                write_json(self.folder / "store.json", header)
        found = _read_header(self.folder)
        if found != header:
            key = next(name for name in header if found.get(name) != header[name])
            raise InputError(
                f"{self.folder}: holds rows with {key} {found.get(key)!r} where {header[key]!r} is asked for; choose "
                "another folder or delete this one"
            )
        self._shape = (self.frames if columns is None else columns, self.width)
        self._row_bytes = int(np.prod(self._shape)) * np.dtype(self._codec.dtype).itemsize
        self._places: NDArray[Any] = np.zeros(1, _PLACE)
        self._recent: dict[str, tuple[int, int]] = {}
        self._index_read = 0
        self._map: NDArray[Any] | None = None
        self._open_places()
        self.refresh()

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> ArrayStore:
        """Open a store that exists, as it describes itself.

        Raises:
            InputError: there is none.
        """
        found = _read_header(Path(folder))
        grid = None if found["grid"] is None else Grid(**found["grid"])
        return cls(folder, found["frames"], found["width"], found["codec"], found["columns"], grid)

    def __len__(self) -> int:
        return len(self._places) - 1 + sum(self._settled(clip) is None for clip in self._recent)

    def __contains__(self, clip: str) -> bool:
        return self._find(clip) is not None

    def __getitem__(self, clip: str) -> NDArray[np.float32]:
        """Values of one clip, float32 ``(valid frames, width)``.

        Raises:
            InputError: the clip has not been written.
        """
        row, length = self._place(clip)
        stored = self._mapped(row)[row]
        if self.grid is None:
            return self._codec.decode(stored[:length])
        columns = torch.from_numpy(self._codec.decode(stored))
        return self.grid.interpolate(columns[None], length)[0].numpy()

    def ids(self) -> list[str]:
        """Clips in the store, sorted, so that their order does not depend on who wrote first."""
        return sorted({clip for clip, _, _, end in self._lines(0) if end <= self._index_read})

    def length(self, clip: str) -> int:
        """Valid frames of one clip."""
        return self._place(clip)[1]

    def missing(self, clips: Iterable[str]) -> list[str]:
        """Those of ``clips`` not in the store yet, in the order given; asks the disk."""
        self.refresh()
        return [clip for clip in clips if clip not in self]

    def refresh(self) -> None:
        """Read what other processes have finished since."""
        for clip, row, length, end in self._lines(self._index_read):
            self._recent[clip], self._index_read = (row, length), end
            if len(self._recent) == _RECENT_CLIPS:
                self._settle()

    def extend(
        self,
        clips: Sequence[str],
        values: Sequence[Tensor | NDArray[Any]] | Tensor,
        lengths: Sequence[int] | None = None,
    ) -> None:
        """Write several clips at once; they are on disk and in the index when this returns.

        Args:
            clips: their names.
            values: ``(frames, width)`` each, or ``(columns, width)`` in a store of columns.
            lengths: valid frames of each; by default all of them. What lies behind is padding and not read back.

        Raises:
            InputError: a wrong shape, NaN or values the codec cannot hold, a name with a line break or tab, or a full
                disk.
        """
        full = self.frames if self.grid is not None else None
        prepared = []
        for position, clip in enumerate(clips):
            length = lengths[position] if lengths is not None else full
            prepared.append((clip, *self._prepare(clip, values[position], length)))
        if not prepared:
            return
        try:
            self._append(prepared)
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot be written ({error.strerror}); free some space or choose another folder"
            ) from error
        self.refresh()

    def _prepare(self, clip: str, values: Tensor | NDArray[Any], length: int | None) -> tuple[NDArray[Any], int]:
        if not clip or any(character in clip for character in "\n\r\t"):
            raise InputError(f"{clip!r} cannot be a clip's name: it is empty or holds a line break or tab")
        array = torch.as_tensor(values).detach().float().cpu().numpy()
        length = len(array) if length is None else int(length)
        if self.grid is None:
            array = array[:length]
        wrong = array.ndim != 2 or array.shape[1] != self.width or not 0 < len(array) <= self._shape[0]
        if wrong or not 0 < length <= self.frames or (self.grid is not None and len(array) != self._shape[0]):
            raise InputError(
                f"{self.folder}: the values of {clip!r} have the shape {array.shape}, expected at most "
                f"{self._shape[0]} frames of {self.width} values"
            )
        low, high = self._codec.bounds
        if not (np.isfinite(array).all() and array.min() >= low and array.max() <= high):
            raise InputError(
                f"the values of {clip!r} are not all numbers between {low:g} and {high:g}; for embeddings, choose a "
                "layer after a normalisation"
            )
        return np.ascontiguousarray(self._codec.encode(array)), length

    def _append(self, prepared: list[tuple[str, NDArray[Any], int]]) -> None:
        with open(self.folder / "rows.bin", "rb+") as rows:
            with self._lock():
                first = -(-rows.seek(0, os.SEEK_END) // self._row_bytes)
                rows.truncate((first + len(prepared)) * self._row_bytes)
            for offset, (_, values, _) in enumerate(prepared):
                rows.seek((first + offset) * self._row_bytes)
                rows.write(values.tobytes())
            rows.flush()
            os.fdatasync(rows.fileno())
        lines = [_line(first + offset, length, clip) for offset, (clip, _, length) in enumerate(prepared)]
        with self._lock(), open(self.folder / "index.tsv", "ab+") as index:
            if index.tell():
                index.seek(-1, os.SEEK_END)
                if index.read(1) != b"\n":  # a killed writer's half line: end it, its checksum makes it void
                    index.write(b"\n")
            index.write("".join(lines).encode())
            index.flush()
            os.fsync(index.fileno())

    def _place(self, clip: str) -> tuple[int, int]:
        place = self._find(clip)
        if place is None:
            self.refresh()
            place = self._find(clip)
        if place is None:
            raise InputError(f"{self.folder}: has no row for {clip!r}; run the stage that writes it")
        return place

    def _find(self, clip: str) -> tuple[int, int] | None:
        if clip in self._recent:
            return self._recent[clip]
        return self._settled(clip)

    def _settled(self, clip: str) -> tuple[int, int] | None:
        key = _key(clip)
        at = 1 + int(np.searchsorted(self._places["key"][1:], key))
        if at == len(self._places) or self._places["key"][at] != key:
            return None
        return int(self._places["row"][at]), int(self._places["length"][at])

    def _open_places(self) -> None:
        path = self.folder / "places.npy"
        if path.exists():
            places = np.load(path, mmap_mode="r")
            if places.dtype != _PLACE or int(places["key"][0]) > (self.folder / "index.tsv").stat().st_size:
                raise InputError(f"{path}: does not belong to the index beside it; delete it")
            self._places, self._index_read = np.asarray(places), int(places["key"][0])

    def _settle(self) -> None:
        """Write a new ``places.npy`` with what is recent in it."""
        recent = np.array(sorted((_key(clip), *place) for clip, place in self._recent.items()), _PLACE)
        at = np.searchsorted(self._places["key"][1:], recent["key"]) + 1
        again = self._places["key"][np.minimum(at, len(self._places) - 1)] == recent["key"]
        again &= at < len(self._places)
        new = at[~again] + np.arange(np.count_nonzero(~again))
        earlier = np.ones(len(self._places) + len(new), dtype=bool)
        earlier[new] = False
        with self._lock():  # so that what is opened is what was written
            with atomic_path(self.folder / "places.npy") as temporary:
                places = np.lib.format.open_memmap(temporary, "w+", _PLACE, earlier.shape)
                with open(temporary, "rb+") as file:  # a mapped page that the disk has no room for ends the process
                    os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
                places[earlier] = self._places
                places[new] = recent[~again]
                if again.any():  # the line written last counts
                    places[np.flatnonzero(earlier)[at[again]]] = recent[again]
                places["key"][0] = self._index_read
                places.flush()
            self._open_places()
        self._recent = {}

    def _lines(self, begin: int) -> Iterator[tuple[str, int, int, int]]:
        """Clip, row, valid frames and where its line ends, of every whole line of the index from ``begin`` on."""
        with open(self.folder / "index.tsv", "rb") as index:
            index.seek(begin)
            for line in index:
                begin += len(line)
                text = line.decode("utf-8", errors="replace")
                parts = text.rstrip("\n").split("\t")
                if text.endswith("\n") and len(parts) == 4 and parts[0].isdigit() and parts[1].isdigit():
                    row, length, clip = int(parts[0]), int(parts[1]), parts[3]
                    if text == _line(row, length, clip):
                        yield clip, row, length, begin

    def _mapped(self, row: int) -> NDArray[Any]:
        if self._map is None or row >= len(self._map):
            path = self.folder / "rows.bin"
            count = path.stat().st_size // self._row_bytes
            if row >= count:
                raise InputError(
                    f"{path}: ends before row {row}; it was truncated; delete the folder and write it again"
                )
            self._map = np.memmap(path, self._codec.dtype, mode="r", shape=(count, *self._shape))
        return self._map

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with open(self.folder / "lock", "ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def __getstate__(self) -> dict[str, Any]:
        places = {"_places": np.zeros(1, _PLACE), "_recent": {}, "_index_read": 0}
        return {**self.__dict__, **places, "_map": None, "_codec": None, "_dtype": np.dtype(self._codec.dtype).name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Workers of a data loader map the files themselves."""
        codec = CODECS[state.pop("_dtype")]
        self.__dict__.update(state, _codec=codec)
        self._open_places()
        self.refresh()


def _read_header(folder: Path) -> dict[str, Any]:
    path = folder / "store.json"
    header = read_json(path)
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise InputError(f"{path}: not a store this version reads; delete the folder and write it again")
    return header


def _key(clip: str) -> np.uint64:
    """Stands for a name; among ten million, two share one with a probability of 3e-6."""
    return np.frombuffer(hashlib.blake2b(clip.encode(), digest_size=8).digest(), np.uint64)[0]


def _line(row: int, length: int, clip: str) -> str:
    checksum = zlib.crc32(f"{row}\t{length}\t{clip}".encode())
    return f"{row}\t{length}\t{checksum:08x}\t{clip}\n"
