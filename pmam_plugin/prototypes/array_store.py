"""One growing memory-mapped array of equal rows plus an index from ids to rows, shared by many processes.

A folder with three files:

    store.json   what a row is: shape, type, and the writer's description; written once, atomically
    rows.bin     the rows, one after the other
    index.tsv    one line per finished row: row number, valid length, checksum of the line, id

A writer reserves a row under a lock (the file grows), writes it, and only then appends its line to the index. A writer
that is killed leaves at worst a reserved row that no line names, or the beginning of a line, which readers ignore and
the next writer ends. When an id is written again, its last line counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json, write_json

_FORMAT = 1


class ArrayStore:
    """Rows of one shape and type under string ids.

    Args:
        folder: where the three files lie.
        row_shape: shape of a full row, ``(frames, width)``; a row may hold fewer frames.
        dtype: NumPy type name of the stored values.
        description: anything else that must agree for rows to be comparable (plain JSON).

    Raises:
        InputError: the folder holds a store of other rows, or something that is no store.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        row_shape: tuple[int, int],
        dtype: str,
        description: Mapping[str, Any] | None = None,
    ):
        self.folder = Path(folder)
        self.row_shape = (int(row_shape[0]), int(row_shape[1]))
        self.dtype = np.dtype(dtype)
        self.description = dict(description or {})
        header = {
            "format": _FORMAT,
            "row_shape": list(self.row_shape),
            "dtype": self.dtype.name,
            "description": self.description,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            if not (self.folder / "store.json").exists():
                (self.folder / "rows.bin").touch()
                (self.folder / "index.tsv").touch()
                write_json(self.folder / "store.json", header)
        found = read_header(self.folder)
        if found != header:
            key = next(name for name in header if found.get(name) != header[name])
            raise InputError(
                f"{self.folder}: holds rows with {key} {found.get(key)!r} where {header[key]!r} is asked for; choose "
                "another folder or delete this one"
            )
        self._row_bytes = int(np.prod(self.row_shape)) * self.dtype.itemsize
        self._rows: dict[str, tuple[int, int]] = {}
        self._index_read = 0
        self._map: NDArray[Any] | None = None
        self.refresh()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, identifier: str) -> bool:
        return identifier in self._rows

    def ids(self) -> list[str]:
        """Ids of all finished rows, sorted, so that their order does not depend on who wrote first."""
        return sorted(self._rows)

    def missing(self, identifiers: Iterable[str]) -> list[str]:
        """Those of ``identifiers`` that have no finished row, in the order given."""
        self.refresh()
        return [identifier for identifier in identifiers if identifier not in self._rows]

    def refresh(self) -> None:
        """Read what other processes have finished since."""
        with open(self.folder / "index.tsv", "rb") as index:
            index.seek(self._index_read)
            new = index.read()
        complete = new.rfind(b"\n") + 1
        for line in new[:complete].decode("utf-8", errors="replace").split("\n")[:-1]:
            self._read_line(line)
        self._index_read += complete

    def read(self, identifier: str, frames: slice | NDArray[np.int64] | None = None) -> NDArray[Any]:
        """The stored values of one id, ``(frames, width)``, in the stored type; a view of the file where possible.

        Args:
            identifier: the id.
            frames: only these frames of the row.

        Raises:
            InputError: no finished row with this id.
        """
        if identifier not in self._rows:
            self.refresh()
        if identifier not in self._rows:
            raise InputError(f"{self.folder}: has no row for {identifier!r}; run the stage that writes it")
        row, length = self._rows[identifier]
        values = self._mapped(row)[row, :length]
        return values if frames is None else values[frames]

    def length(self, identifier: str) -> int:
        """Number of frames stored for one id."""
        return len(self.read(identifier))

    def write(self, items: Iterable[tuple[str, NDArray[Any]]]) -> None:
        """Append rows ``(frames <= row_shape[0], width)``; they are on disk and in the index when this returns.

        Raises:
            InputError: a row of the wrong shape, an id with a line break or tab, or a full disk.
        """
        prepared = [(identifier, self._prepare(identifier, values)) for identifier, values in items]
        if not prepared:
            return
        try:
            self._append(prepared)
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot be written ({error.strerror}); free some space or choose another folder"
            ) from error
        self.refresh()

    def _append(self, prepared: list[tuple[str, NDArray[Any]]]) -> None:
        descriptor = os.open(self.folder / "rows.bin", os.O_RDWR)
        try:
            with self._lock():
                first = -(-os.fstat(descriptor).st_size // self._row_bytes)
                os.ftruncate(descriptor, (first + len(prepared)) * self._row_bytes)
            for offset, (_, values) in enumerate(prepared):
                _write_all(descriptor, values.tobytes(), (first + offset) * self._row_bytes)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        lines = [_line(first + offset, len(values), identifier) for offset, (identifier, values) in enumerate(prepared)]
        with self._lock(), open(self.folder / "index.tsv", "ab+") as index:
            if index.tell():
                index.seek(-1, os.SEEK_END)
                if index.read(1) != b"\n":  # a killed writer's half line: end it, its checksum makes it void
                    index.write(b"\n")
            index.write("".join(lines).encode())
            index.flush()
            os.fsync(index.fileno())

    def _prepare(self, identifier: str, values: NDArray[Any]) -> NDArray[Any]:
        if not identifier or any(character in identifier for character in "\n\r\t"):
            raise InputError(f"{identifier!r} cannot be an id: it is empty or holds a line break or tab")
        array = np.ascontiguousarray(values, dtype=self.dtype)
        frames, width = self.row_shape
        if array.ndim != 2 or array.shape[1] != width or not 0 < len(array) <= frames:
            raise InputError(
                f"{self.folder}: the row of {identifier!r} has the shape {array.shape}, expected at most {frames} "
                f"frames of {width} values"
            )
        return array

    def _read_line(self, line: str) -> None:
        parts = line.split("\t")
        if len(parts) == 4 and parts[0].isdigit() and parts[1].isdigit():
            row, length, identifier = int(parts[0]), int(parts[1]), parts[3]
            if line + "\n" == _line(row, length, identifier):
                self._rows[identifier] = (row, length)

    def _mapped(self, row: int) -> NDArray[Any]:
        if self._map is None or row >= len(self._map):
            path = self.folder / "rows.bin"
            count = path.stat().st_size // self._row_bytes
            if row >= count:
                raise InputError(
                    f"{path}: ends before row {row}; it was truncated; delete the folder and write it again"
                )
            self._map = np.memmap(path, self.dtype, mode="r", shape=(count, *self.row_shape))
        return self._map

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with open(self.folder / "lock", "ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}  # workers of a data loader map the file themselves


def read_header(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The description of the store in a folder.

    Raises:
        InputError: there is none, or of another version.
    """
    path = Path(folder) / "store.json"
    header = read_json(path)
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise InputError(f"{path}: not a store this version reads; delete the folder and write it again")
    return header


def _line(row: int, length: int, identifier: str) -> str:
    checksum = zlib.crc32(f"{row}\t{length}\t{identifier}".encode())
    return f"{row}\t{length}\t{checksum:08x}\t{identifier}\n"


def _write_all(descriptor: int, data: bytes, position: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], position + written)
