"""What every corpus is turned into: sets of recordings with labels, written in DESED's layout.

Audio is linked, not copied, so that a corpus costs no room; tables are written anew each time, since they are small.
A shard (tar file) of recordings is linked as a whole.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import pandas as pd

from pmam_plugin.audio.names import clip_name, find_audio, has_audio_ending, is_shard
from pmam_plugin.audio.shards import members
from pmam_plugin.data.manifest import Event, merge_events
from pmam_plugin.errors import InputError
from pmam_plugin.tables.annotations import Entry
from pmam_plugin.tables.events import EVENT_COLUMNS, write_events, write_weak
from pmam_plugin.tables.reading import cells_of, numbered_lines, parse_number

logger = logging.getLogger(__name__)

Part = Literal["strong", "weak", "unlabelled", "selection", "test"]

_PLACES: dict[Part, tuple[str, str | None]] = {
    "strong": ("train/strong_label_real", "train/audioset_strong.tsv"),
    "weak": ("train/weak", "train/weak.tsv"),
    "unlabelled": ("train/unlabel_in_domain", None),
    "selection": ("validation/synthetic_validation", "validation/synthetic_validation.tsv"),
    "test": ("validation/validation", "validation/validation.tsv"),
}


@dataclass(frozen=True)
class Recording:
    """One recording of a corpus.

    Attributes:
        name: what it is called in the new folder, with its ending; may hold folders. ``x.tar/a.wav`` lies in a shard,
            and ``x.tar`` is all that a shard holds.
        path: where it lies.
        events: strong labels; None where only classes are known.
        labels: classes heard, where only these are known.
    """

    name: str
    path: Path
    events: tuple[Event, ...] | None = None
    labels: tuple[str, ...] | None = None


@dataclass
class Corpus:
    """A corpus as its download gives it.

    Attributes:
        parts: recordings by what they are for.
        missing: recordings that annotations name and the download lacks.
        notes: what else was found or changed, a sentence each.
    """

    parts: dict[Part, list[Recording]]
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_corpus(corpus: Corpus, folder: Path, classes: Mapping[str, str] | None = None) -> dict[str, int]:
    """Write a corpus in DESED's layout.

    Args:
        corpus: what to write.
        folder: new, or of an earlier call; links to audio that is gone from the corpus are removed.
        classes: new names by old ones; labels without one are left out, and two may share one. None keeps all.

    Returns:
        Recordings by part.

    Raises:
        InputError: nothing to write, a class map that fits no label, or a folder that cannot be written.
    """
    if not any(corpus.parts.values()):
        raise InputError(f"{folder}: nothing to write, the corpus has no recording that could be found")
    if classes is not None:
        corpus = _renamed(corpus, classes)
    for part, recordings in corpus.parts.items():
        _link(audio_folder(folder, part), recordings)
        table = _PLACES[part][1]
        if table is not None:
            _write_table(folder / "metadata" / table, part, recordings)
    for note in corpus.notes:
        logger.warning(note)
    if corpus.missing:
        shown = ", ".join(corpus.missing[:3]) + (", ..." if len(corpus.missing) > 3 else "")
        logger.warning("%d annotated recordings are missing and left out: %s", len(corpus.missing), shown)
    return {part: sum(map(_count, recordings)) for part, recordings in corpus.parts.items()}


def audio_folder(folder: Path, part: Part) -> Path:
    """Where the recordings of a set go."""
    return folder / "audio" / _PLACES[part][0]


def require_folder(source: Path, corpus: str, *inside: str) -> list[Path]:
    """Folders or files that a download must hold.

    Raises:
        InputError: one is missing.
    """
    paths = [source / name for name in inside]
    for path in paths:
        if not path.exists():
            raise InputError(
                f"{path}: not found; name the folder of {corpus} as downloaded, which holds {', '.join(inside)}"
            )
    return paths


def read_annotation(path: Path, soft: bool = False) -> tuple[Event, ...]:
    """Events of a text file with a line each: onset, offset and class between tabs, perhaps behind other fields.

    Args:
        path: the file; a line that begins with ``onset`` is its header.
        soft: whether a soft label in [0, 1] follows the class; where that is zero, there is no event.

    Raises:
        InputError: a line has no two times followed by a class, an event ends before it begins, or a soft label is
            none.
    """
    events = []
    for number, line in numbered_lines(path):
        cells = [*cells_of(path, number, line, "\t"), "", ""]
        if cells[0].lower() == "onset":
            continue
        times = [parse_number(cell, decimal_comma=False) for cell in cells]
        pairs = [place for place, time in enumerate(times[:-1]) if math.isfinite(time + times[place + 1])]
        if not pairs or not cells[pairs[0] + 2]:
            raise InputError(f"{path}, line {number}: {line!r} is not onset, offset and class, separated by tabs")
        first = pairs[0]
        label, share = cells[first + 2 : first + 4]
        Entry(f"line {number}", path.name, times[first], times[first + 1], label).check(path)
        value = times[first + 3] if soft else 1.0
        if not 0 <= value <= 1:
            raise InputError(f"{path}, line {number}: the soft label {share} must lie in [0, 1]")
        if value > 0:
            events.append(Event(times[first], times[first + 1], label, value))
    return tuple(events)


def by_stem(folder: Path) -> dict[str, Path]:
    """All recordings below a folder by their bare name; of several the first."""
    found: dict[str, Path] = {}
    for name, path in find_audio(folder).items():
        found.setdefault(clip_name(name).rpartition("/")[2], path)
    return found


Reader = Callable[..., Corpus]
"""``(download folder, **options) -> Corpus``."""


def _renamed(corpus: Corpus, classes: Mapping[str, str]) -> Corpus:
    known = Counter(label for recordings in corpus.parts.values() for r in recordings for label in _labels(r))
    unknown = [old for old in classes if old not in known]
    if len(unknown) == len(classes):
        raise InputError(f"the class map names no class of this corpus; it has {', '.join(sorted(known))}")
    dropped = sorted(set(known) - set(classes))
    notes = [f"{len(dropped)} classes are in no map and left out: {', '.join(dropped)}"] if dropped else []

    def rename(recording: Recording) -> Recording:
        events, labels = recording.events, recording.labels
        if events is not None:
            events = merge_events(e._replace(label=classes[e.label]) for e in events if e.label in classes)
        if labels is not None:
            labels = tuple(sorted({classes[label] for label in labels if label in classes}))
        return Recording(recording.name, recording.path, events, labels)

    parts = {part: [rename(recording) for recording in recordings] for part, recordings in corpus.parts.items()}
    return Corpus(parts, corpus.missing, corpus.notes + notes)


def _labels(recording: Recording) -> set[str]:
    return {event.label for event in recording.events or ()} | set(recording.labels or ())


def _link(folder: Path, recordings: Collection[Recording]) -> None:
    wanted = {name: path.resolve() for name, path in dict(map(_file, recordings)).items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in find_audio(folder, shards=True).items():
        if name not in wanted and path.is_symlink():
            path.unlink()
    for name, target in wanted.items():
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() or link.exists():
            if link.resolve() == target:
                continue
            if not link.is_symlink():
                raise InputError(f"{link}: is in the way; choose a new folder")
            link.unlink()
        try:
            os.symlink(target, link)
        except OSError:  # a file system without links
            shutil.copyfile(target, link)


def _file(recording: Recording) -> tuple[str, Path]:
    """What is linked for a recording: its file, or the shard that it lies in."""
    parts = PurePosixPath(recording.name).parts
    above = next((count for count, part in enumerate(parts[:-1], 1) if is_shard(part)), len(parts))
    path = recording.path if above == len(parts) else recording.path.parents[len(parts) - above - 1]
    return "/".join(parts[:above]), path


def _count(recording: Recording) -> int:
    if not is_shard(recording.name):
        return 1
    return sum(has_audio_ending(member.name) for member in members(recording.path))


def _write_table(path: Path, part: Part, recordings: Sequence[Recording]) -> None:
    if part == "weak":
        write_weak(path, {recording.name: recording.labels or () for recording in recordings})
        return
    rows = [
        (recording.name, *(event or [None] * 4)) for recording in recordings for event in recording.events or (None,)
    ]
    table = pd.DataFrame(rows, columns=[*EVENT_COLUMNS, "soft_label"])
    hard = not (table["soft_label"] < 1).any()
    write_events(path, table.drop(columns="soft_label") if hard else table)
