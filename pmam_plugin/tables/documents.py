"""Annotations as JSON: Label Studio's projects, and this package's own form."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pmam_plugin.errors import InputError
from pmam_plugin.tables.annotations import Annotations, Entry
from pmam_plugin.tables.reading import decoded

logger = logging.getLogger(__name__)

# Label Studio puts eight digits before the name of a file that was uploaded.
_UPLOADED = re.compile(r"^(.*/)?[0-9a-f]{8}-(?=[^/]+$)")

_AUDIO_KEYS = frozenset(("audio", "url", "file", "audio_url", "sound", "wav"))


def read_document(path: Path) -> Any:
    """JSON of a file.

    Raises:
        InputError: it is no JSON.
    """
    try:
        return json.loads(decoded(path), parse_int=_whole)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: is not JSON ({error.msg}); export it again") from None
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply for annotations; export it again") from None


def _whole(digits: str) -> int | float:
    """An integer, or infinity where no time or number could be so large."""
    return int(digits) if len(digits) < 16 else math.inf


def read_own(path: Path) -> Annotations:
    """The JSON that ``pmam detect --out events.json`` writes.

    Raises:
        InputError: a recording or an event lacks something.
    """
    content = read_document(path)
    if not isinstance(content, dict) or not isinstance(content.get("recordings"), list):
        raise InputError(f"{path}: has no list of recordings; give what pmam detect wrote, or a Label Studio export")
    seconds: dict[str, float | None] = {}

    def entries() -> Iterator[Entry]:
        for number, recording in enumerate(content["recordings"], 1):
            where = f"recording {number}"
            name = _get(path, where, recording, "filename", str)
            length = recording.get("duration")
            seconds[name] = None if length is None else _get(path, where, recording, "duration", (int, float))
            yield Entry(where, name)
            for place, event in enumerate(_get(path, where, recording, "events", list), 1):
                inside = f"{where}, event {place}"
                onset, offset = (float(_get(path, inside, event, key, (int, float))) for key in ("onset", "offset"))
                score = event.get("score")
                yield Entry(
                    inside, name, onset, offset, _get(path, inside, event, "event_label", str),
                    math.nan if score is None else float(_get(path, inside, event, "score", (int, float))),
                )  # fmt: skip

    return Annotations.collect(path, entries(), seconds)


def own_text(annotations: Annotations, facts: Mapping[str, Any] | None = None) -> str:
    """Every recording with its length and events, and ``facts``."""
    recordings: dict[str, dict[str, Any]] = {
        name: {"filename": name, "duration": None if length is None else round(length, 6), "events": []}
        for name, length in annotations.seconds.items()
    }
    for event in annotations.rows():
        row = {"onset": event.onset, "offset": event.offset, "event_label": event.label}
        if not math.isnan(event.score):
            row["score"] = event.score
        recordings[event.filename]["events"].append(row)
    return json.dumps({**(facts or {}), "recordings": list(recordings.values())}, indent=2, ensure_ascii=False) + "\n"


def is_label_studio(content: Any) -> bool:
    """Whether a document has tasks of Label Studio in it, or is the export of a project without any."""
    tasks = content if isinstance(content, list) else [content]
    return not tasks or any(isinstance(task, dict) and (_AUDIO_KEYS | {"data"}) & task.keys() for task in tasks)


def read_label_studio(path: Path) -> Annotations:
    """Label Studio's JSON or JSON-MIN export of audio labels.

    Of several annotations of a task the one marked as ground truth counts; cancelled ones do not. A task without any
    has its predictions read, with a warning.

    Raises:
        InputError: no such export, a task names no audio or has several annotations, or a region is wrong.
    """
    tasks = read_document(path)
    tasks = tasks if isinstance(tasks, list) else [tasks]
    seconds: dict[str, float | None] = {}

    def entries() -> Iterator[Entry]:
        guessed = 0
        for number, task in enumerate(tasks, 1):
            where = f"task {number}"
            if not isinstance(task, dict):
                raise InputError(f"{path}, {where}: is no task of Label Studio; export the project as JSON")
            name, regions, predicted = _task(path, where, task)
            guessed += predicted
            yield Entry(where, name)
            for place, region in enumerate(regions, 1):
                inside = f"{where}, region {place}"
                value = region.get("value", region) if isinstance(region, dict) else None
                if not isinstance(value, dict):
                    raise InputError(f"{path}, {inside}: is no region; export the project as JSON")
                if not {"start", "end"} <= value.keys():
                    logger.warning("%s, %s: has no times (%s); left out", path, inside, region.get("type", "no type"))
                    continue
                onset, offset = (float(_get(path, inside, value, key, (int, float))) for key in ("start", "end"))
                length = region.get("original_length")
                if isinstance(length, int | float):
                    seconds[name] = float(length)
                score = region.get("score")
                for label in _get(path, inside, value, "labels", list):
                    yield Entry(
                        inside, name, onset, offset, str(label),
                        float(score) if isinstance(score, int | float) else math.nan,
                    )  # fmt: skip
        if guessed:
            logger.warning("%s: %d tasks have no annotation; their predictions are read", path, guessed)

    return Annotations.collect(path, entries(), seconds)


def label_studio_text(annotations: Annotations) -> str:
    """Tasks to import into Label Studio: events with scores as predictions to correct, others as annotations.

    The audio is named as Label Studio names files of its local storage.
    """
    tasks = []
    for name, length in annotations.seconds.items():
        regions = []
        for number, event in enumerate(annotations.of(name).rows(), 1):
            region: dict[str, Any] = {
                "id": f"event{number}",
                "type": "labels",
                "from_name": "label",
                "to_name": "audio",
                "value": {"start": event.onset, "end": event.offset, "channel": 0, "labels": [event.label]},
            }
            if length is not None:
                region["original_length"] = round(length, 6)
            if not math.isnan(event.score):
                region["score"] = event.score
            regions.append(region)
        kind = "predictions" if annotations.of(name).scored else "annotations"
        audio = f"/data/local-files/?d={quote(name)}"
        tasks.append({"data": {"audio": audio}, kind: [{"result": regions}]})
    return json.dumps(tasks, indent=2, ensure_ascii=False) + "\n"


def _task(path: Path, where: str, task: dict[str, Any]) -> tuple[str, list[Any], bool]:
    """Recording, regions, and whether they are predictions."""
    data = task["data"] if isinstance(task.get("data"), dict) else task
    names = [value for key, value in data.items() if key in _AUDIO_KEYS]
    if len(names) != 1 or not isinstance(names[0], str) or not names[0]:
        raise InputError(f"{path}, {where}: names no audio; its data should have the key audio")
    name = _recording(names[0])
    if "annotations" not in task and "predictions" not in task:  # JSON-MIN
        regions = task.get("label", [])
        if not isinstance(regions, list):
            raise InputError(f"{path}, {where}: its label is no list of regions; export the project as JSON")
        return name, regions, False
    done = [a for a in task.get("annotations") or [] if isinstance(a, dict) and not a.get("was_cancelled")]
    if len(done) > 1:
        done = [annotation for annotation in done if annotation.get("ground_truth")]
        if len(done) != 1:
            raise InputError(f"{path}, {where}: has several annotations; mark one of them as ground truth")
    guesses = [guess for guess in task.get("predictions") or [] if isinstance(guess, dict)]
    if not done and len(guesses) > 1:
        raise InputError(f"{path}, {where}: has several predictions and no annotation; annotate it or keep one")
    chosen = done or guesses
    return name, _get(path, where, chosen[0], "result", list) if chosen else [], bool(guesses and not done)


def _recording(address: str) -> str:
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    if local:
        return local[0]
    plain = unquote(parts.path) if parts.scheme or address.startswith("/data/") else address
    return _UPLOADED.sub("", plain).rpartition("/")[2] if plain.startswith("/") else plain


def _get(path: Path, where: str, holder: Any, key: str, kind: type | tuple[type, ...]) -> Any:
    value = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        fault = "has no" if value is None else "has no usable"
        raise InputError(f"{path}, {where}: {fault} {key!r}; export it again")
    return value
