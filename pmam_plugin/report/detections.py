"""The page of ``pmam detect --report``: listen to recordings and see what was found where."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from pmam_plugin.report.day import hourly_counts, start_time
from pmam_plugin.report.media import duration_of
from pmam_plugin.report.page import details, duration_text, escape, facts_table, section, write_page
from pmam_plugin.report.recording import DetectedRecording, recording_data

EMBEDDED_SECONDS = 5_400.0
"""Sound a page may hold (27 MB of MP3): recordings beyond it play from the file they were read from."""

_SCRIPTS = ("player.js", "days.js", "detections.js")


def write_detection_report(
    path: str | os.PathLike[str],
    recordings: Iterable[DetectedRecording],
    provenance: Mapping[str, Any] | None = None,
    note: str = "",
) -> None:
    """Write the page, atomically.

    Sound is embedded as MP3 (16 kHz mono, 5 KB per second) up to :data:`EMBEDDED_SECONDS` in total; longer recordings
    are played from their own file, so that page and file must stay where they are. Spectrograms have at most 12 000
    columns and score curves 6000 points per recording: an hour is shown in steps of 0.3 and 0.6 s.

    Args:
        path: the HTML file.
        recordings: read one by one; a generator keeps only one hour-long recording's sound in memory.
        provenance: model, version, threshold, ...: shown as a table.
        note: a warning about the model, shown below the title.

    Raises:
        InputError: a recording cannot be read, or the page cannot be written.
    """
    shown: list[dict[str, Any]] = []
    counted: list[tuple[str, float, pd.DataFrame]] = []
    left = EMBEDDED_SECONDS
    for recording in recordings:
        data = recording_data(recording, embed=duration_of(recording.source) <= left, page=path)
        begin = start_time(recording.name)
        data["start"] = None if begin is None else begin.isoformat()
        counted.append((recording.name, data["duration"], recording.events))
        if data["audio"] and "base64" in data["audio"]:
            left -= data["duration"]
        shown.append(data)
    labels = list(dict.fromkeys(lane["label"] for data in shown for lane in data["lanes"]))
    data_of_page = {"recordings": shown, "counts": hourly_counts(counted, labels).to_csv(index=False)}
    body = _body(shown, provenance or {}, note)
    write_page(path, "Detected sound events", _summary(shown), body, data_of_page, _SCRIPTS)


def _summary(shown: Sequence[Mapping[str, Any]]) -> str:
    events = sum(len(lane["detected"]) for item in shown for lane in item["lanes"])
    seconds = sum(item["duration"] for item in shown)
    plural = "" if len(shown) == 1 else "s"
    length = duration_text(seconds).replace(" ", "\N{NO-BREAK SPACE}")
    return f"{events} event{'' if events == 1 else 's'} in {len(shown)} recording{plural}, {length}"


def _body(shown: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any], note: str) -> str:
    warning = f'<p class="notice warning">{escape(note)}</p>' if note else ""
    keys = (
        "<p class='keys'><kbd>Space</kbd> play <kbd>←</kbd><kbd>→</kbd> 1 s <kbd>N</kbd><kbd>P</kbd> next and previous "
        "event <kbd>+</kbd><kbd>−</kbd><kbd>0</kbd> zoom <kbd>Home</kbd><kbd>End</kbd></p>"
    )
    files = section("files", "Recordings", '<div id="file-list"></div>') if len(shown) > 1 else ""
    days = ""
    if any(data["start"] for data in shown) or any(data["duration"] >= 3600 for data in shown):
        lead = "How many events begin in every hour. Press a number to hear the next of them."
        days = section("days-section", "Hours", '<div id="days"></div>', lead)
    player = f'<section id="player-section" aria-label="Player"><div id="player"></div>{keys}</section>'
    table = section("events", "Events", '<div id="event-table"></div>')
    about = details("How these detections were made", facts_table(provenance)) if provenance else ""
    return warning + days + files + player + table + about
