"""Annotations as the tools of annotators keep them: any of these formats into any other, nothing lost in silence."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pmam_plugin.audio.names import clip_name, has_audio_ending
from pmam_plugin.errors import InputError
from pmam_plugin.tables.reading import joins, parse_number

logger = logging.getLogger(__name__)

COLUMNS = ("filename", "onset", "offset", "event_label", "score")

# What tools put between a recording's name and the ending of its labels.
_TOOL_SUFFIX = re.compile(r"(\.Table\.\d+)?\.selections$|\.BirdNET\.(selection\.table|results)$", re.IGNORECASE)


class Entry(NamedTuple):
    """What a format holds at one place: an event, or (without label) a recording that has none.

    Attributes:
        place: in the file, for messages (``line 3``).
        filename: of the recording.
        onset: s.
        offset: s.
        label: the class; None for a recording alone.
        score: NaN where none is given.
    """

    place: str
    filename: str
    onset: float = math.nan
    offset: float = math.nan
    label: str | None = None
    score: float = math.nan

    def check(self, path: str | PathLike[str]) -> None:
        """Raise InputError for an entry of ``path`` that names no recording or no class, or whose times cannot be."""
        where = f"{path}, {self.place}"
        if not self.filename:
            raise InputError(f"{where}: names no recording; fill it or remove the entry")
        if re.search("[\ud800-\udfff]", f"{self.filename}{self.label}"):
            raise InputError(f"{where}: a name holds half a character, which no file can keep; correct it")
        if self.label is None:
            return
        if not self.label.strip():
            raise InputError(f"{where}: the label is empty; name the class or remove the entry")
        if not (math.isfinite(self.onset) and math.isfinite(self.offset)):
            raise InputError(f"{where}: a time is not a number; write seconds, minutes:seconds or h:min:s")
        if self.onset < 0:
            raise InputError(f"{where}: begins at {self.onset:g} s, before the recording; write 0 or more")
        if self.offset < self.onset:
            raise InputError(f"{where}: ends at {self.offset:g} s, before it begins at {self.onset:g} s; correct them")


@dataclass
class Annotations:
    """Events of recordings.

    Attributes:
        events: ``filename, onset, offset, event_label, score``, times in s; a score that is not known is NaN.
        seconds: length of every recording in order, also of those without events; None where it is not known.
    """

    events: pd.DataFrame
    seconds: dict[str, float | None] = field(default_factory=dict)

    @classmethod
    def collect(
        cls, path: str | PathLike[str], entries: Iterable[Entry], seconds: dict[str, float | None] | None = None
    ) -> Annotations:
        """Check what a reader found.

        Raises:
            InputError: an event without class or recording, a time that is no number, or times that cannot be.
        """
        known: dict[str, float | None] = dict(seconds or {})
        rows = []
        for entry in entries:
            entry.check(path)
            known.setdefault(entry.filename, None)
            if entry.label is None:
                continue
            rows.append(entry._replace(label=entry.label.strip()))
        labels = {str(row.label) for row in rows}
        joined = {label for label in labels if joins(label, labels)}
        for row in rows:
            if row.label in joined:
                raise InputError(
                    f"{path}, {row.place}: {row.label!r} joins classes that also stand by themselves; write an entry "
                    "for each, or rename the class"
                )
        events = pd.DataFrame([row[1:] for row in rows], columns=list(COLUMNS))
        known.update(seconds or {})  # a reader may have learnt them on the way
        for name, length in known.items():
            if length is not None and not 0 <= length < math.inf:
                raise InputError(f"{path}: {name} is said to last {length:g} s; correct the length of the recording")
        types = {"onset": float, "offset": float, "score": float}
        return cls(events.astype(types), known)

    @classmethod
    def join(cls, parts: dict[Path, Annotations]) -> Annotations:
        """Those of several files.

        Raises:
            InputError: two files hold labels of one recording.
        """
        origin: dict[str, Path] = {}
        seconds: dict[str, float | None] = {}
        for path, part in parts.items():
            for name, length in part.seconds.items():
                other = origin.setdefault(clip_name(name), path)
                if other != path:
                    raise InputError(f"{other} and {path} both label {clip_name(name)}; keep one of them")
                seconds[name] = length
        tables = [part.events for part in parts.values() if len(part.events)]
        empty = pd.DataFrame(columns=list(COLUMNS))
        return cls(pd.concat(tables, ignore_index=True) if tables else empty, seconds)

    def of(self, filename: str) -> Annotations:
        """Those of one recording."""
        mine = self.events[self.events["filename"] == filename].reset_index(drop=True)
        return Annotations(mine, {filename: self.seconds[filename]})

    def rows(self) -> Iterator[Entry]:
        """Events one by one, times to the microsecond."""
        table = self.events[list(COLUMNS)].round(6)
        for number, row in enumerate(table.itertuples(index=False, name=None), 1):
            yield Entry(f"event {number}", *row)

    @property
    def scored(self) -> bool:
        """Whether any event has a score."""
        return bool(self.events["score"].notna().any())

    def end(self, filename: str) -> float:
        """Length of a recording, s; at least the end of its last event."""
        last = self.events.loc[self.events["filename"] == filename, "offset"].max()
        return max(self.seconds.get(filename) or 0.0, 0.0 if pd.isna(last) else round(float(last), 6))


def recording_of(path: Path) -> str:
    """The recording that a label file belongs to: the one beside it with the same name, or that name."""
    name = clip_name(_TOOL_SUFFIX.sub("", path.stem))
    try:
        beside = sorted(
            other.name
            for other in path.parent.iterdir()
            if other.name.startswith(name) and clip_name(other.name) == name and has_audio_ending(other.name)
        )
    except OSError:
        beside = []
    return beside[0] if beside else name


def parse_seconds(cell: str, decimal_comma: bool = True) -> float:
    """Seconds, ``minutes:seconds`` or ``hours:minutes:seconds``; NaN where it is none of these."""
    *upper, last = cell.strip().split(":")
    if len(upper) > 2 or (upper and not all(part.isascii() and part.isdigit() for part in upper)):
        return math.nan
    seconds = parse_number(last, decimal_comma)
    if upper and not 0 <= seconds < 60:
        return math.nan
    for power, part in enumerate(reversed(upper), 1):
        seconds += int(part) * 60**power
    return seconds


def refuse_breaks(annotations: Annotations, breaks: str, form: str) -> None:
    """Refuse class names that a form cannot hold.

    Args:
        annotations: to write.
        breaks: characters that end a field there.
        form: its name.

    Raises:
        InputError: a class or recording has one of them.
    """
    names: Sequence[str] = [*annotations.events["event_label"].unique(), *annotations.seconds]
    for name in names:
        if any(character in name for character in breaks):
            raise InputError(f"{name!r}: {form} cannot hold tabs or line breaks in a name; rename it")
