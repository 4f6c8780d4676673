"""Manifests: which clips a subset consists of, where their audio lies, and what is known of them.

A manifest is one JSON file per subset in SpeechBrain's form, ``{clip id: {field: value}}``, with ``{data_root}`` in
place of the data folder, so that ``DynamicItemDataset.from_json(path, replacements={"data_root": ...})`` reads it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pmam_plugin.audio.names import relative_path
from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json, write_json

TRAINING_SUBSETS = ("strong", "synthetic", "weak", "unlabelled")
"""Subsets to train on, in the order of a batch."""

SUBSETS = (*TRAINING_SUBSETS, "selection", "test")
"""All subsets; ``Batch.group`` counts in this order."""

PLACEHOLDER = "{data_root}/"

HEARD = 0.5
"""A class counts as heard from this soft label on, as in the figures of DCASE's task with soft labels."""


@dataclass(frozen=True)
class Event:
    """One annotated event.

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
        path: of the audio file.
        seconds: length of the clip.
        start: where the clip begins in its recording, in seconds.
        sample_rate: of the recording, in Hz.
        size: of the file, in bytes.
        content: stands for the file's content, see :class:`~pmam_plugin.data.recordings.Stamp`.
        events: strong labels; None when unknown, empty when nothing is heard.
        labels: the classes heard somewhere in the clip; None when unknown.
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


@dataclass(frozen=True)
class Manifest:
    """The clips of one subset.

    Attributes:
        name: one of :data:`SUBSETS`.
        clips: in the order of the file.
    """

    name: str
    clips: tuple[Clip, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    @classmethod
    def load(cls, path: str | PathLike[str], data_root: str | PathLike[str]) -> Manifest:
        """Read a manifest; the file's name gives the subset's.

        Args:
            path: the JSON file.
            data_root: the folder that ``{data_root}`` stands for.

        Raises:
            InputError: the file is absent or no manifest, or an entry points outside of ``data_root``.
        """
        path = Path(path)
        entries = read_json(path)
        if not isinstance(entries, Mapping):
            raise InputError(f"{path}: is not a manifest (an object of clips); prepare the data again")
        root = Path(data_root)
        return cls(path.stem, tuple(_clip(path, name, entry, root) for name, entry in entries.items()))

    def save(self, path: str | PathLike[str], data_root: str | PathLike[str]) -> None:
        """Write the manifest, whole or not at all."""
        write_json(path, {clip.id: _entry(clip, Path(data_root)) for clip in self.clips})

    def events(self) -> pd.DataFrame:
        """Strong labels as a table ``filename, onset, offset, event_label``; ``filename`` is the clip's id.

        A clip without events is one row with NaN, NaN and None; clips without strong labels have no row.
        """
        rows = [row for clip in self.clips for row in _rows(clip)]
        table = pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])
        return table.astype({"onset": np.float64, "offset": np.float64, "event_label": object})

    def durations(self) -> dict[str, float]:
        """Seconds of every clip, by id."""
        return {clip.id: clip.seconds for clip in self.clips}


def merge_events(events: Iterable[Event]) -> tuple[Event, ...]:
    """Join events of one class, equally soft, that overlap or touch; sorted by onset."""
    merged: dict[tuple[str, float], list[Event]] = {}
    for event in sorted(events, key=lambda event: (event.onset, event.offset)):
        of_class = merged.setdefault((event.label, event.soft), [])
        if of_class and event.onset <= of_class[-1].offset:
            last = of_class.pop()
            event = replace(last, offset=max(last.offset, event.offset))
        of_class.append(event)
    joined = (event for of_class in merged.values() for event in of_class)
    return tuple(sorted(joined, key=lambda event: (event.onset, event.offset, event.label)))


def heard_events(events: Iterable[Event]) -> tuple[Event, ...]:
    """What figures are taken on: events without soft labels, those of which at least :data:`HEARD` are joined."""
    events = tuple(events)
    if all(event.soft == 1 for event in events):
        return events
    return merge_events(replace(event, soft=1.0) for event in events if event.heard)


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
            renamed[subset].append(clip if name == clip.id else Clip(**{**vars(clip), "id": name}))
    return renamed


def _rows(clip: Clip) -> list[tuple[str, float, float, str | None]]:
    if clip.events is None:
        return []
    rows: list[tuple[str, float, float, str | None]] = [
        (clip.id, event.onset, event.offset, event.label) for event in clip.events
    ]
    return rows or [(clip.id, np.nan, np.nan, None)]


def _entry(clip: Clip, root: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "wav": PLACEHOLDER + clip.path.relative_to(root).as_posix(),
        "start": clip.start,
        "duration": clip.seconds,
        "sample_rate": clip.sample_rate,
        "bytes": clip.size,
        "content": clip.content,
    }
    if clip.labels is not None:
        entry["labels"] = list(clip.labels)
    if clip.events is not None:
        entry["events"] = [
            [event.onset, event.offset, event.label, *([event.soft] if event.soft < 1 else [])] for event in clip.events
        ]
    return entry


def _clip(path: Path, name: str, entry: Mapping[str, Any], root: Path) -> Clip:
    try:
        wav = str(entry["wav"])
        if not wav.startswith(PLACEHOLDER):
            raise InputError(f"{path}, clip {name!r}: its path must begin with {PLACEHOLDER}, not {wav!r}")
        relative = wav[len(PLACEHOLDER) :]
        relative_path(relative, f"{path}, clip {name!r}")
        events, labels = entry.get("events"), entry.get("labels")
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
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}, clip {name!r}: not an entry of a manifest ({error}); prepare the data again"
        ) from error
