"""Look at every recording once: how long it is, whether it can be read at all, and whether it is still the same."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pmam_plugin.audio.reader import AudioReader
from pmam_plugin.audio.shards import AudioFile
from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json, write_json

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_REPORTS = 10.0
UNSETTLED_NS = 2_000_000_000
"""File systems keep times to 2 s or better; what was written just before it was looked at may be written again."""
Item = TypeVar("Item")
Source = TypeVar("Source", Path, AudioFile)
Found = TypeVar("Found")


class Stamp(NamedTuple):
    """How to notice that a file was replaced.

    Attributes:
        size: in bytes.
        modified: time of the last change, ns.
        settled: whether a later change must show in that time.
        digest: of the content; empty where nobody needed it.
    """

    size: int = 0
    modified: int = 0
    settled: bool = False
    digest: str = ""

    @property
    def content(self) -> str:
        """Stands for the content: its digest, or else size and time."""
        return self.digest or f"{self.size}:{self.modified}"


@dataclass(frozen=True)
class Recording:
    """One audio file.

    Attributes:
        path: of the file; in a shard, below it.
        seconds: length; 0 when it cannot be read.
        sample_rate: in Hz.
        problem: why it cannot be used, None when it can.
        notes: what is odd about it and was made good.
    """

    path: Path
    seconds: float
    sample_rate: int
    problem: str | None = None
    notes: tuple[str, ...] = ()


def examine(files: Iterable[Source], decode: bool = True) -> dict[Source, Recording]:
    """Read headers, and the samples too, of many files at a time.

    Args:
        files: which.
        decode: also decode them, which finds what a header hides (cut files, NaN) and counts what comes.

    Returns:
        A recording per file, problems included.
    """
    return _each(list(files), lambda file: _examine(file, decode), "checked")


def stamp_files(files: Iterable[Path], content: bool, earlier: Mapping[Path, Stamp]) -> dict[Path, Stamp]:
    """Stamps of files as they are now; what has an earlier one that still holds is not read again.

    Args:
        files: which; one that is gone has an empty stamp.
        content: digest all of them, so that a copy with other times is still the same; else only where the time is not
            to be relied on.
        earlier: stamps of the last time.
    """
    return _each(list(files), lambda path: _stamp(path, content, earlier.get(path)), "compared")


def load_stamps(path: Path, root: Path) -> dict[Path, Stamp]:
    """What :func:`save_stamps` wrote; nothing where that is missing or damaged."""
    try:
        return {root / name: Stamp(*map(_plain, values)) for name, values in read_json(path).items()}
    except (InputError, AttributeError, TypeError):
        return {}


def save_stamps(path: Path, root: Path, stamps: Mapping[Path, Stamp]) -> None:
    """Write stamps by the files' places below ``root``."""
    rows = {file.relative_to(root).as_posix(): list(stamp) for file, stamp in stamps.items()}
    write_json(path, rows)


def _plain(value: Any) -> Any:
    if not isinstance(value, int | str):
        raise TypeError(value)
    return value


def _each(items: list[Item], look: Callable[[Item], Found], what: str) -> dict[Item, Found]:
    found: dict[Item, Found] = {}
    reported = time.monotonic()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for item, result in zip(items, pool.map(look, items)):
            found[item] = result
            if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
                reported = time.monotonic()
                logger.info("%s %d of %d recordings", what, len(found), len(items))
    return found


def _examine(file: AudioFile, decode: bool) -> Recording:
    try:
        with AudioReader(file) as reader:
            frames = reader.frames
            if decode or not frames:
                frames = sum(len(block) for block in reader.blocks())
            if not frames:
                raise InputError(f"{file}: no samples (zero length); leave the recording out or record it again")
            return Recording(Path(file), frames / reader.sample_rate, reader.sample_rate, notes=tuple(reader.notes))
    except InputError as error:
        return Recording(Path(file), 0.0, 0, str(error))


def _stamp(path: Path, content: bool, earlier: Stamp | None) -> Stamp:
    try:
        now, status = time.time_ns(), path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would not let go of whoever opens it
            return Stamp()
        unchanged = earlier and earlier.settled and earlier[:2] == (status.st_size, status.st_mtime_ns)
        if earlier and unchanged and (earlier.digest or not content):
            return earlier
        settled = 0 < status.st_mtime_ns < now - UNSETTLED_NS
        digest = ""
        if content or not settled:
            whole = hashlib.blake2b(digest_size=16)
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    whole.update(block)
            digest = whole.hexdigest()
        return Stamp(status.st_size, status.st_mtime_ns, settled, digest)
    except OSError:  # a link to nowhere, say: examining it says what is wrong
        return Stamp()
