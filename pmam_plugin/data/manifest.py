"""Manifests: which clips a subset consists of, where their audio lies, and what is known of them.

A manifest is one JSON file per subset in SpeechBrain's form, ``{clip id: {field: value}}``, with ``{data_root}`` in
place of the data folder, so that ``DynamicItemDataset.from_json(path, replacements={"data_root": ...})`` reads it too.
Every clip is a line of its own, and ``<subset>.lines.npy`` beside it says where lines begin: a process maps that
and reads the line of a clip when it is asked for one, so that a million clips take no more memory than ten.
"""

from __future__ import annotations

import json
import os
import weakref
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pandas as pd

from pmam_plugin.audio.names import relative_path
from pmam_plugin.audio.shards import AudioFile, Member
from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path, read_json

TRAINING_SUBSETS = ("strong", "synthetic", "weak", "unlabelled")
"""Subsets to train on, in the order of a batch."""

SUBSETS = (*TRAINING_SUBSETS, "selection", "test")
"""All subsets; ``Batch.group`` counts in this order."""

PLACEHOLDER = "{data_root}/"

HEARD = 0.5
"""A class counts as heard from this soft label on, as in the figures of DCASE's task with soft labels."""

_HEAD, _TAIL = b"{\n", b"}\n"
_LINES_AT_ONCE = 1000


class Event(NamedTuple):
    """One annotated event, a row that a :class:`~pmam_plugin.labels.LabelEncoder` takes.

    Attributes:
        onset: seconds from the start of its clip.
        offset: likewise.
        label: its class.
        soft: how much of it is heard, in (0, 1]: the share of annotators where labels are soft.
    """

    onset: float
    offset: float
    label: str
    soft: float = 1.0

    @property
    def heard(self) -> bool:
        """Whether figures count it as an event, see :data:`HEARD`."""
        return self.soft >= HEARD


@dataclass(frozen=True)
class Clip:
    """A recording, or a part of a long one.

    Attributes:
        id: its name (:func:`~pmam_plugin.audio.names.clip_name`), made unique over all subsets of a preparation.
        path: of the audio file; one in a shard lies below it.
        seconds: length of the clip.
        start: where the clip begins in its recording, in seconds.
        sample_rate: of the recording, in Hz.
        size: of the file, in bytes.
        content: stands for the file's content, see :class:`~pmam_plugin.data.recordings.Stamp`.
        events: strong labels; None when unknown, empty when nothing is heard.
        labels: the classes heard somewhere in the clip; None when unknown.
        offset: where the file begins in its shard, in bytes; None outside of shards.
    """

    id: str
    path: Path
    seconds: float
    start: float = 0.0
    sample_rate: int = 0
    size: int = 0
    content: str = ""
    events: tuple[Event, ...] | None = None
    labels: tuple[str, ...] | None = None
    offset: int | None = None

    @property
    def source(self) -> AudioFile:
        """What is opened to hear it.

        Raises:
            InputError: its shard is not there.
        """
        return self.path if self.offset is None else Member.at(self.path, self.offset, self.size)


class LazyClips(Sequence[Clip]):
    """The clips of a manifest's file, each read from its line when it is asked for.

    Args:
        path: the JSON file, as :meth:`Manifest.save` writes it.
        data_root: the folder that ``{data_root}`` stands for.

    Raises:
        InputError: the file is not the one whose lines were counted; a clip of it is no entry of a manifest, or points
            outside of ``data_root`` (when it is read).
    """

    def __init__(self, path: Path, data_root: Path) -> None:
        self._path, self._root = path, data_root
        try:
            # Open as long as this lives: a preparation that replaces the file does not move its lines.
            self._file = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
            self._begins = np.asarray(np.load(_lines_of(path), mmap_mode="r"))
            whole = int(self._begins[-1]) + len(_TAIL) == os.fstat(self._file).st_size
        except (OSError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{path}: cannot be read as a manifest ({error}); prepare the data again") from error
        if not whole:
            raise InputError(f"{path}: was changed since it was written; prepare the data again")

    def __len__(self) -> int:
        return len(self._begins) - 1

    @overload
    def __getitem__(self, place: int) -> Clip: ...

    @overload
    def __getitem__(self, place: slice) -> list[Clip]: ...

    def __getitem__(self, place: int | slice) -> Clip | list[Clip]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        [clip] = self._read(number, number + 1)
        return clip

    def __iter__(self) -> Iterator[Clip]:
        for first in range(0, len(self), _LINES_AT_ONCE):
            yield from self._read(first, min(first + _LINES_AT_ONCE, len(self)))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, LazyClips)
            and self._root == other._root
            and len(self) == len(other)
            and all(mine == theirs for mine, theirs in zip(self, other))
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[LazyClips], tuple[Path, Path]]:
        """Other processes map the file themselves."""
        return LazyClips, (self._path, self._root)

    def _read(self, first: int, end: int) -> list[Clip]:
        begin = int(self._begins[first])
        lines = os.pread(self._file, int(self._begins[end]) - begin, begin)
        try:
            entries = json.loads(b"{" + lines.rstrip(b",\n") + b"}")
        except ValueError as error:
            raise InputError(
                f"{self._path}, lines {first + 2} to {end + 1}: damaged ({error}); prepare again"
            ) from error
        return [_clip(self._path, name, entry, self._root) for name, entry in entries.items()]


@dataclass(frozen=True)
class Manifest:
    """The clips of one subset.

    Attributes:
        name: one of :data:`SUBSETS`.
        clips: in the order of the file.
        rates: how many clips are of recordings at which rate, in Hz, where that is known.
    """

    name: str
    clips: Sequence[Clip] = field(repr=False)
    rates: Mapping[int, int] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        data_root: str | PathLike[str],
        rates: Mapping[str, int] | None = None,
    ) -> Manifest:
        """Open a manifest; the file's name gives the subset's.

        Args:
            path: the JSON file. One that :meth:`save` did not write (its lines were not counted) is read into memory.
            data_root: the folder that ``{data_root}`` stands for.
            rates: how many clips are of recordings at which rate, in Hz; None counts them when that is asked for.

        Raises:
            InputError: the file is absent or no manifest, or an entry points outside of ``data_root``.
        """
        path, root = Path(path), Path(data_root)
        known = None if rates is None else {int(rate): int(count) for rate, count in rates.items()}
        if _lines_of(path).exists():
            return cls(path.stem, LazyClips(path, root), known)
        entries = read_json(path)
        if not isinstance(entries, Mapping):
            raise InputError(f"{path}: is not a manifest (an object of clips); prepare the data again")
        return cls(path.stem, tuple(_clip(path, name, entry, root) for name, entry in entries.items()), known)

    def save(self, path: str | PathLike[str], data_root: str | PathLike[str]) -> None:
        """Write the manifest, whole or not at all."""
        begins = array("Q", [len(_HEAD)])
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            file.write(_HEAD)
            for number, clip in enumerate(self.clips):
                line = _line(clip, Path(data_root)) + (b",\n" if number + 1 < len(self) else b"\n")
                begins.append(begins[-1] + file.write(line))
            file.write(_TAIL)
        with atomic_path(_lines_of(Path(path))) as temporary:
            np.save(temporary, np.asarray(begins))

    def events(self) -> pd.DataFrame:
        """Strong labels as a table ``filename, onset, offset, event_label``; ``filename`` is the clip's id.

        A clip without events is one row with NaN, NaN and None; clips without strong labels have no row.
        """
        rows = [
            (clip.id, event.onset, event.offset, event.label) if event else (clip.id, np.nan, np.nan, None)
            for clip in self.clips
            if clip.events is not None
            for event in clip.events or (None,)
        ]
        table = pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])
        return table.astype({"onset": np.float64, "offset": np.float64, "event_label": object})

    @cached_property
    def sample_rates(self) -> Counter[int]:
        """How many clips are of recordings at which rate, in Hz."""
        return Counter(clip.sample_rate for clip in self) if self.rates is None else Counter(self.rates)

    def durations(self) -> dict[str, float]:
        """Seconds of every clip, by id."""
        return {clip.id: clip.seconds for clip in self.clips}


def merge_events(events: Iterable[Event]) -> tuple[Event, ...]:
    """Join events of one class, equally soft, that overlap or touch; sorted by onset."""
    merged: dict[tuple[str, float], list[Event]] = {}
    for event in sorted(events):
        of_class = merged.setdefault((event.label, event.soft), [])
        if of_class and event.onset <= of_class[-1].offset:
            last = of_class.pop()
            event = last._replace(offset=max(last.offset, event.offset))
        of_class.append(event)
    joined = (event for of_class in merged.values() for event in of_class)
    return tuple(sorted(joined))


def heard_events(events: Iterable[Event]) -> tuple[Event, ...]:
    """What figures are taken on: events without soft labels, those of which at least :data:`HEARD` are joined."""
    events = tuple(events)
    if all(event.soft == 1 for event in events):
        return events
    return merge_events(event._replace(soft=1.0) for event in events if event.heard)


def unique_ids(groups: Iterable[tuple[str, list[Clip]]]) -> dict[str, list[Clip]]:
    """Give clips of the same name in several subsets different ids: ``name``, then ``name@subset``.

    Args:
        groups: subset and clips; earlier subsets keep the plain name.
    """
    seen: set[str] = set()
    renamed: dict[str, list[Clip]] = {}
    for subset, clips in groups:
        renamed[subset] = []
        for clip in clips:
            name, number = clip.id, 1
            while name in seen:
                name = f"{clip.id}@{subset}" + (f"-{number}" if number > 1 else "")
                number += 1
            seen.add(name)
            renamed[subset].append(clip if name == clip.id else replace(clip, id=name))
    return renamed


def _lines_of(path: Path) -> Path:
    return path.with_suffix(".lines.npy")


def _line(clip: Clip, root: Path) -> bytes:
    name, entry = (json.dumps(value, ensure_ascii=False) for value in (clip.id, _entry(clip, root)))
    try:
        return f"{name}: {entry}".encode()
    except UnicodeEncodeError:  # file names whose bytes are no UTF-8
        return f"{json.dumps(clip.id)}: {json.dumps(_entry(clip, root))}".encode()


def _entry(clip: Clip, root: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "wav": PLACEHOLDER + clip.path.relative_to(root).as_posix(),
        "start": clip.start,
        "duration": clip.seconds,
        "sample_rate": clip.sample_rate,
        "bytes": clip.size,
        "content": clip.content,
    }
    if clip.offset is not None:
        entry["offset"] = clip.offset
    if clip.labels is not None:
        entry["labels"] = list(clip.labels)
    if clip.events is not None:
        entry["events"] = [event if event.soft < 1 else event[:3] for event in clip.events]
    return entry


def _clip(path: Path, name: str, entry: Mapping[str, Any], root: Path) -> Clip:
    try:
        wav = str(entry["wav"])
        if not wav.startswith(PLACEHOLDER):
            raise InputError(f"{path}, clip {name!r}: its path must begin with {PLACEHOLDER}, not {wav!r}")
        relative = wav[len(PLACEHOLDER) :]
        relative_path(relative, f"{path}, clip {name!r}")
        events, labels, offset = entry.get("events"), entry.get("labels"), entry.get("offset")
        return Clip(
            id=name,
            path=root / relative,
            seconds=float(entry["duration"]),
            start=float(entry.get("start", 0.0)),
            sample_rate=int(entry.get("sample_rate", 0)),
            size=int(entry.get("bytes", 0)),
            content=str(entry.get("content", "")),
            events=None
            if events is None
            else tuple(Event(float(a), float(b), str(c), *map(float, soft)) for a, b, c, *soft in events),
            labels=None if labels is None else tuple(map(str, labels)),
            offset=None if offset is None else int(offset),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}, clip {name!r}: not an entry of a manifest ({error}); prepare the data again"
        ) from error
