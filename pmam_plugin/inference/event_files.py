"""Detected events as files that other programs read: tables, JSON, RTTM and Audacity labels."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pmam_plugin.audio.names import clip_name
from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path, write_json
from pmam_plugin.tables import write_events

FORMATS = (".tsv", ".csv", ".json", ".rttm", ".txt")


def check_format(path: str | os.PathLike[str]) -> str:
    """The format a file name asks for.

    Raises:
        InputError: none of :data:`FORMATS`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path}: events are written as {', '.join(FORMATS)}; choose one of these endings")
    return suffix


def write_event_file(
    path: str | os.PathLike[str],
    events: pd.DataFrame,
    seconds: Mapping[str, float],
    facts: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write events in the format of the file's ending, whole or not at all.

    * ``.tsv``, ``.csv``: ``filename, onset, offset, event_label, score``, one row per event (DESED's columns).
    * ``.json``: every recording with its length and events, and ``facts``.
    * ``.rttm``: one ``SPEAKER`` line per event, the clip as the file, the class as the speaker; spaces become ``_``.
    * ``.txt``: Audacity labels. They belong to one sound file, so several recordings give several files,
      ``<stem>_<recording>.txt``.

    Args:
        path: the file.
        events: ``filename, onset, offset, event_label, score``, s.
        seconds: length of every recording, in the order to write them; also of those without events.
        facts: about the model, for JSON.

    Returns:
        The files written.

    Raises:
        InputError: an unknown ending, two recordings that RTTM cannot tell apart, or the file cannot be written.
    """
    target, suffix = Path(path), check_format(path)
    if suffix == ".tsv":
        write_events(target, events)
    elif suffix == ".csv":
        _write_text(target, events.round(6).to_csv(index=False))
    elif suffix == ".json":
        write_json(target, {**(facts or {}), "recordings": _records(events, seconds)})
    elif suffix == ".rttm":
        _refuse_equal_names(list(seconds))
        _write_text(target, "".join(_rttm_line(event) for event in _rows(events)))
    else:
        return _write_labels(target, events, list(seconds))
    return [target]


def _records(events: pd.DataFrame, seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in seconds}
    for event in _rows(events):
        rows[event.pop("filename")].append(event)
    return [
        {"filename": name, "duration": round(duration, 6), "events": rows[name]} for name, duration in seconds.items()
    ]


def _rows(events: pd.DataFrame) -> list[dict[str, Any]]:
    columns = ["filename", "onset", "offset", "event_label", "score"]
    return [{str(key): value for key, value in row.items()} for row in events[columns].round(6).to_dict("records")]


def _rttm_line(event: Mapping[str, Any]) -> str:
    name, label = _rttm_name(event["filename"]), re.sub(r"\s+", "_", str(event["event_label"]))
    length = event["offset"] - event["onset"]
    return f"SPEAKER {name} 1 {event['onset']:.3f} {length:.3f} <NA> <NA> {label} {event['score']:.4f} <NA>\n"


def _rttm_name(filename: str) -> str:
    return re.sub(r"\s+", "_", clip_name(filename))


def _refuse_equal_names(filenames: Sequence[str]) -> None:
    known: dict[str, str] = {}
    for filename in filenames:
        other = known.setdefault(_rttm_name(filename), filename)
        if other != filename:
            raise InputError(
                f"{other} and {filename} are both {_rttm_name(filename)} in RTTM; rename one, or write .tsv or .json"
            )


def _write_labels(target: Path, events: pd.DataFrame, names: Sequence[str]) -> list[Path]:
    files = [target]
    if len(names) > 1:
        files = [target.with_name(f"{target.stem}_{name}{target.suffix}") for name in _file_names(names)]
    for file, name in zip(files, names):
        mine = _rows(events[events["filename"] == name])
        _write_text(file, "".join(f"{e['onset']:.6f}\t{e['offset']:.6f}\t{e['event_label']}\n" for e in mine))
    if not names:
        _write_text(target, "")
    return files


def _file_names(names: Sequence[str]) -> list[str]:
    """Names without what files cannot have, numbered where that makes two of them equal."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w.-]", "_", clip_name(name))
        numbered = (f"{plain}_{number}" for number in range(2, len(names) + 2))
        found.append(plain if plain not in found else next(other for other in numbered if other not in found))
    return found


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
