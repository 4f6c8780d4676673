"""Look at an annotator's folder before anything is trained on it: recordings of any length, labels beside them.

Labels may be in any of :data:`pmam_plugin.tables.formats.FORMATS`. Nothing is changed here; what looks wrong is told.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from pmam_plugin.audio.names import clip_name, find_audio, match_clips
from pmam_plugin.data.manifest import Event
from pmam_plugin.data.recordings import Recording, examine
from pmam_plugin.errors import InputError
from pmam_plugin.tables.annotations import Annotations, recording_of
from pmam_plugin.tables.events import look_alikes
from pmam_plugin.tables.formats import format_of, label_files, read_within

_SHOWN = 3  # places named for each thing that is odd
_FEW = 10  # events of a class below which it is called rare


@dataclass(frozen=True)
class ClassFigures:
    """What there is of a class: events, the recordings they are in, their seconds together and at the median."""

    label: str
    events: int
    recordings: int
    seconds: float
    median: float


@dataclass(frozen=True)
class Survey:
    """What a folder holds.

    Attributes:
        folder: that was looked at.
        labelled: recording (relative name) -> its events in time order, perhaps none; times in s, as annotated.
        recordings: everything that can be read, labelled or not, by relative name.
        oddities: labels that look wrong, a sentence each with the places.
        passed_over: files that hold no labels, or labels of recordings that are not there, a sentence each.
    """

    folder: Path
    labelled: Mapping[str, tuple[Event, ...]]
    recordings: Mapping[str, Recording]
    oddities: Sequence[str] = ()
    passed_over: Sequence[str] = ()

    @cached_property
    def classes(self) -> tuple[ClassFigures, ...]:
        """Figures of every class that is labelled, by name."""
        events = [(name, event) for name, found in self.labelled.items() for event in found]
        figures = []
        for label in sorted({event.label for _, event in events}):
            mine = [(name, event.offset - event.onset) for name, event in events if event.label == label]
            lengths = sorted(seconds for _, seconds in mine)
            recordings = len({name for name, _ in mine})
            figures.append(ClassFigures(label, len(mine), recordings, sum(lengths), lengths[len(lengths) // 2]))
        return tuple(figures)

    @property
    def unlabelled(self) -> list[str]:
        """Recordings that nobody labelled."""
        return [name for name in self.recordings if name not in self.labelled]

    def seconds(self, names: Iterable[str]) -> float:
        """Length of some recordings together, s."""
        return sum(self.recordings[name].seconds for name in names)

    def overlap(self) -> float:
        """Share of the time in which something is labelled that has two or more classes at once."""
        some = several = 0.0
        for found in self.labelled.values():
            changes = sorted([(e.onset, 1) for e in found] + [(e.offset, -1) for e in found])
            active = 0
            for (begin, change), (end, _) in itertools.pairwise(changes):
                active += change
                some += (end - begin) * (active > 0)
                several += (end - begin) * (active > 1)
        return several / some if some else 0.0


def survey_folder(
    folder: Path, frame_seconds: float, progress: Callable[[str], None] = lambda _: None, unlabelled: bool = False
) -> Survey:
    """Read every label file of a folder and the header of every recording.

    Args:
        folder: searched in depth.
        frame_seconds: of the model to be trained; shorter events are told.
        progress: is told what is looked at.
        unlabelled: of recordings alone; label files in it are not read.

    Raises:
        InputError: no recordings, or label files that cannot be read exactly (all are named).
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name one that holds recordings with their labels beside them")
    progress(f"looking at the recordings of {folder}")
    audio = find_audio(folder)
    if not audio:
        raise InputError(f"{folder}: holds no recordings; put them beside their labels (wav, flac, mp3, ogg, ...)")
    examined = examine(audio.values(), decode=False)
    recordings = {name: examined[path] for name, path in audio.items() if not examined[path].problem}
    broken = [str(examined[path].problem) for path in audio.values() if examined[path].problem]
    passed_over = [_told("recordings that cannot be read", broken)] if broken else []
    if unlabelled:
        return Survey(folder, {}, recordings, (), passed_over)
    progress(f"reading the labels of {folder}")
    annotations, others = _read_labels(folder)
    labelled, absent = _matched(annotations, recordings)
    if others:
        passed_over.append(_told("files that hold no labels", others))
    if absent:
        passed_over.append(_told("labelled recordings that are not there", absent))
    return Survey(folder, labelled, recordings, _oddities(labelled, recordings, frame_seconds), passed_over)


def _read_labels(folder: Path) -> tuple[Annotations, list[str]]:
    """Annotations of all label files, and the names of files that are none."""
    parts: dict[Path, Annotations] = {}
    wrong: list[str] = []
    others: list[str] = []
    for file in label_files(folder):
        beside = clip_name(recording_of(file)) != recording_of(file)
        try:
            format_of(file)
        except InputError as error:
            if beside:
                wrong.append(str(error))
            else:
                others.append(file.relative_to(folder).as_posix())
            continue
        try:
            parts[file] = read_within(folder, file)
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more files" if len(wrong) > _SHOWN else ""
        raise InputError(f"labels that cannot be read: {'; '.join(wrong[:_SHOWN])}{more}")
    return Annotations.join(parts), others


def _matched(
    annotations: Annotations, recordings: Mapping[str, Recording]
) -> tuple[dict[str, tuple[Event, ...]], list[str]]:
    """Events by recording, and names in label files that no recording bears."""
    by_clip: dict[str, str] = {}
    for name in recordings:
        other = by_clip.setdefault(clip_name(name), name)
        if other != name:
            raise InputError(f"{other} and {name} are one recording to its labels; keep one of them")
    bare = Counter(clip.rpartition("/")[2] for clip in by_clip)
    by_bare = {clip.rpartition("/")[2]: clip for clip in by_clip if bare[clip.rpartition("/")[2]] == 1}
    known = match_clips(annotations.seconds, by_clip)
    events: dict[str, list[Event]] = {}
    absent, place = [], {}
    for name in annotations.seconds:
        clip = known.get(name) or by_bare.get(clip_name(name).rpartition("/")[2])
        if clip is None:
            absent.append(name)
        else:
            place[name] = by_clip[clip]
            events.setdefault(by_clip[clip], [])
    rows: pd.DataFrame = annotations.events
    for name, onset, offset, label in zip(rows["filename"], rows["onset"], rows["offset"], rows["event_label"]):
        if name in place:
            events[place[name]].append(Event(float(onset), float(offset), str(label)))
    order = {name: tuple(sorted(found)) for name, found in events.items()}
    return dict(sorted(order.items())), absent


def _oddities(
    labelled: Mapping[str, tuple[Event, ...]], recordings: Mapping[str, Recording], frame_seconds: float
) -> list[str]:
    found: dict[str, list[str]] = {}

    def note(what: str, name: str, event: Event) -> None:
        found.setdefault(what, []).append(f"{name} at {event.onset:.2f} s ({event.label})")

    for name, events in labelled.items():
        end = recordings[name].seconds
        last: dict[str, Event] = {}
        for event in events:
            if event.onset >= end:
                note("events that begin after the end of their recording, not used", name, event)
            elif event.offset > end + frame_seconds:
                note("events that end after their recording, cut at its end", name, event)
            if event.offset - event.onset < frame_seconds:
                note(f"events shorter than a frame of the model ({1000 * frame_seconds:.0f} ms)", name, event)
            before = last.get(event.label)
            if before == event:
                note("events that stand there twice, used once", name, event)
            elif before is not None and event.onset < before.offset:
                note("events that overlap another of their class", name, event)
            if before is None or event.offset >= before.offset:
                last[event.label] = event
    told = [_told(what, places) for what, places in found.items()]
    classes = Counter(event.label for events in labelled.values() for event in events)
    for pair in look_alikes(classes, slips=True):
        few, many = sorted(pair, key=lambda label: classes[label])
        told.append(
            f"{few!r} ({classes[few]}) and {many!r} ({classes[many]}) look like one class: give both one name if so"
        )
    return told


def _told(what: str, places: Sequence[str]) -> str:
    more = ", ..." if len(places) > _SHOWN else ""
    return f"{what}: {len(places)} ({', '.join(places[:_SHOWN])}{more})"


def describe_survey(survey: Survey) -> list[str]:
    """Lines for people: what there is, class by class, and what looks wrong."""
    labelled, free = list(survey.labelled), survey.unlabelled
    minutes = survey.seconds(labelled) / 60
    events = sum(figures.events for figures in survey.classes)
    lines = [
        f"{survey.folder}: {len(labelled)} labelled recording{'s' * (len(labelled) != 1)}, {minutes:.1f} min, "
        f"{events} events of {len(survey.classes)} class{'es' * (len(survey.classes) != 1)}; "
        f"{len(free)} without labels, {survey.seconds(free) / 60:.1f} min"
    ]
    width = max((len(figures.label) for figures in survey.classes), default=0)
    lines += [
        f"  {f.label:<{width}}  {f.events:>5} events in {f.recordings:>4} recordings, {f.seconds:>7.1f} s, "
        f"median {f.median:.2f} s{'   few examples' if f.events < _FEW or f.recordings < _SHOWN else ''}"
        for f in survey.classes
    ]
    if survey.classes:
        lines.append(f"  two or more at once in {100 * survey.overlap():.0f} % of the labelled sound")
    if survey.oddities:
        lines += ["labels that look wrong:", *(f"  {oddity}" for oddity in survey.oddities)]
    if survey.passed_over:
        lines += ["passed over:", *(f"  {sentence}" for sentence in survey.passed_over)]
    return lines
