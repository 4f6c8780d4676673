"""WebDataset's shards: tar files of recordings that share their names with the labels beside them.

Shards are linked and read where they lie, see :mod:`pmam_plugin.audio.shards`.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pmam_plugin.audio.names import find_audio, has_audio_ending, is_shard
from pmam_plugin.audio.shards import Member, members
from pmam_plugin.data.corpora.base import Corpus, Part, Recording
from pmam_plugin.data.manifest import Event, merge_events
from pmam_plugin.errors import InputError
from pmam_plugin.tables.reading import split_names

# WebDataset's own rule: files of one sample share their path up to the first dot of the name.
_KEY = re.compile(r"^(?P<key>(?:.*/|)[^./]+)\.(?P<ending>[^/]*)$")
_TEXT = "txt"


class Labels(NamedTuple):
    """What is known of a recording."""

    events: tuple[Event, ...] | None = None
    classes: tuple[str, ...] | None = None


def webdataset(source: Path, labels: str | None = None) -> Corpus:
    """Read shards, tar files that hold ``KEY.wav`` (or ``.flac``, ...) and perhaps ``KEY.json`` or ``KEY.txt``.

    Args:
        source: a folder of shards, one shard, or a pattern: ``shards/train-{000000..000099}.tar``, ``shards/*.tar``.
        labels: ``txt``: class names in ``KEY.txt``, separated by commas or lines; another name: the field of
            ``KEY.json`` that holds class names (the set becomes ``weak``) or events (``strong``). None: ``unlabelled``.

    Raises:
        InputError: no shards, one that the pattern names and that is not there or broken, no or other labels.
    """
    shards = _shards(source)
    if labels is None:
        return Corpus({"unlabelled": [Recording(name, path) for name, path in shards.items()]})
    recordings: list[Recording] = []
    bare = 0
    for name, path in shards.items():
        inside = list(members(path))
        known = dict(_described(inside, labels))
        for member in inside:
            if has_audio_ending(member.name):
                match = _KEY.match(member.name)
                found = known.get(match["key"]) if match else None
                bare += found is None
                if found is not None:
                    recordings.append(Recording(f"{name}/{member.name}", Path(member), *found))
    if not recordings:
        where = "a .txt file" if labels == _TEXT else f"a .json file with the field {labels!r}"
        raise InputError(f"{source}: no recording has {where} beside it; name the labels, or leave --labels out")
    notes = [f"{bare} recordings have no {labels} and are left out"] if bare else []
    part = part_of(recordings, str(source))
    return Corpus({part: recordings}, notes=notes)


def parsed_labels(value: Any, place: str) -> Labels | None:
    """What a field of labels says; None where it is empty.

    Args:
        value: class names, as a list or separated by commas; or events, as a list of objects with ``onset``,
            ``offset`` (s) and ``label`` (also ``event_label``, ``class``). An empty list says that nothing is heard.
        place: what messages call it.

    Raises:
        InputError: something else.
    """
    if value is None:
        return None
    try:
        if isinstance(value, str):
            return Labels(classes=split_names(",".join(value.splitlines())))
        if all(isinstance(entry, str) for entry in value):
            return Labels(classes=tuple(dict.fromkeys(value)))
        events = [Event(float(entry["onset"]), float(entry["offset"]), _class_of(entry)) for entry in value]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{place}: {str(value)[:60]!r} are no labels; give names of classes, or events with onset, offset and label"
        ) from error
    for event in events:
        if not 0 <= event.onset <= event.offset:
            raise InputError(f"{place}: an event from {event.onset:g} to {event.offset:g} s; correct it")
    return Labels(events=merge_events(events))


def part_of(recordings: list[Recording], source: str) -> Part:
    """Which set labels make of recordings; those whose list of labels is empty then have no events, if others have.

    Raises:
        InputError: some have events and some only classes.
    """
    if not any(recording.events for recording in recordings):
        return "weak"
    for place, recording in enumerate(recordings):
        if recording.labels:
            raise InputError(f"{source}: some recordings have events, {recording.name} only classes; separate them")
        recordings[place] = replace(recording, events=recording.events or (), labels=None)
    return "strong"


def _class_of(entry: Mapping[str, Any]) -> str:
    name = next(entry[key] for key in ("label", "event_label", "class") if key in entry)
    if not isinstance(name, str):
        raise TypeError(name)
    return name


def _described(inside: Sequence[Member], labels: str) -> Iterator[tuple[str, Labels]]:
    """Labels by key of the samples of a shard that have them."""
    ending = _TEXT if labels == _TEXT else "json"
    for member in inside:
        match = _KEY.match(member.name)
        if match is None or match["ending"].lower() != ending:
            continue
        with open(member.shard, "rb") as shard:
            shard.seek(member.offset)
            content = shard.read(member.size)
        try:
            text = content.decode("utf-8-sig")
            value = text if ending == _TEXT else json.loads(text).get(labels)
        except (AttributeError, ValueError) as error:
            kind = "text" if ending == _TEXT else "JSON object"
            raise InputError(f"{member}: is no {kind} ({error}); correct it") from error
        found = parsed_labels(value, str(member))
        if found is not None:
            yield match["key"], found


def _shards(source: Path) -> dict[str, Path]:
    """Shards by their names in the corpus."""
    if source.is_dir():
        found = {name: path for name, path in find_audio(source, shards=True).items() if is_shard(name)}
    else:
        paths = [path for pattern in _braces(str(source)) for path in sorted(glob.glob(pattern)) or [pattern]]
        found = {Path(path).name: Path(path) for path in paths}
        if len(found) < len(paths):
            raise InputError(f"{source}: names shards of the same name in several folders; name one folder of them")
        for path in found.values():
            if not (path.is_file() and is_shard(path.name)):
                raise InputError(f"{path}: no such shard (a .tar file); fetch it, or correct the pattern")
    if not found:
        raise InputError(f"{source}: holds no shards (.tar files); name a folder of them, or a pattern in quotes")
    return found


def _braces(pattern: str) -> list[str]:
    if "{" not in pattern:
        return [pattern]
    try:
        from braceexpand import braceexpand
    except ImportError as error:
        raise InputError(f"{error.name} is not installed; install it with pip install 'pmam-plugin[shards]'") from error
    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise InputError(f"{pattern}: its braces do not match; write x-{{000000..000099}}.tar") from error
