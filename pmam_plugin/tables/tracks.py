"""Label files without a header: Audacity's label tracks, Sonic Visualiser's layers, ELAN's export, RTTM."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path

from pmam_plugin.audio.names import clip_name
from pmam_plugin.errors import InputError
from pmam_plugin.tables.annotations import Annotations, Entry, parse_seconds, recording_of, refuse_breaks
from pmam_plugin.tables.reading import cells_of, numbered_lines, parse_number, rows_text

logger = logging.getLogger(__name__)

_CLOCK = re.compile(r"\d+:\d\d:\d\d[.,]\d+")
# RTTM's lines about speakers and comments, which are no events.
_RTTM_NO_EVENTS = ("SPKR-INFO", "COMMENT")


def read_audacity(path: Path) -> Annotations:
    """A label track: ``start, end, label`` between tabs, and lines of spectral selections, which begin with ``\\``.

    Raises:
        InputError: a line is no label, or an event is wrong.
    """
    name = recording_of(path)

    def entries() -> Iterator[Entry]:
        for number, line in numbered_lines(path):
            cells = line.split("\t")
            if cells[0].strip() == "\\" and len(cells) == 3:
                continue
            if len(cells) not in (2, 3):
                raise InputError(
                    f"{path}, line {number}: {len(cells)} fields; a label track has start, end and label between tabs"
                )
            onset, offset = (parse_seconds(cell) for cell in cells[:2])
            yield Entry(f"line {number}", name, onset, offset, cells[2] if len(cells) == 3 else "")

    return Annotations.collect(path, entries(), {name: None})


def audacity_text(annotations: Annotations) -> str:
    """A label track of one recording."""
    refuse_breaks(annotations, "\t\r\n", "an Audacity label")
    return "".join(f"{e.onset:.6f}\t{e.offset:.6f}\t{e.label}\n" for e in annotations.rows())


def read_sonic_visualiser(path: Path) -> Annotations:
    """A layer exported as CSV: ``time, value, duration, label`` (regions, notes) or ``time, label`` (instants).

    Raises:
        InputError: another number of columns, or an event is wrong.
    """
    name = recording_of(path)

    def entries() -> Iterator[Entry]:
        for number, line in numbered_lines(path):
            cells = cells_of(path, number, line, ",")
            if len(cells) not in (2, 4):
                raise InputError(
                    f"{path}, line {number}: {len(cells)} fields without a header; export a layer of regions (time, "
                    "value, duration, label), or add a header (onset,offset,event_label)"
                )
            onset = parse_number(cells[0], decimal_comma=False)
            length = parse_number(cells[2], decimal_comma=False) if len(cells) == 4 else 0.0
            yield Entry(f"line {number}", name, onset, onset + length, cells[-1])

    return Annotations.collect(path, entries(), {name: None})


def sonic_visualiser_text(annotations: Annotations) -> str:
    """A layer of regions; the value is the score, or 1."""
    refuse_breaks(annotations, "\r\n", "a Sonic Visualiser layer")
    values = ((event, 1.0 if math.isnan(event.score) else event.score) for event in annotations.rows())
    return rows_text(((f"{e.onset:.6f}", f"{v:g}", f"{e.offset - e.onset:.6f}", e.label) for e, v in values), ",")


def read_elan(path: Path) -> Annotations:
    """ELAN's tab-delimited export without a header: tier, participant, begin, end, duration, annotation.

    Raises:
        InputError: times are neither ``hh:mm:ss.ms`` nor seconds with a point, or an event is wrong.
    """
    name = recording_of(path)

    def entries() -> Iterator[Entry]:
        for number, line in numbered_lines(path):
            *cells, label = cells_of(path, number, line, "\t")
            clocks = [cell for cell in cells[1:] if _CLOCK.fullmatch(cell)]
            times = clocks or [cell for cell in cells[1:] if re.fullmatch(r"\d+[.,]\d+", cell)]
            if len(times) not in (2, 3):
                raise InputError(
                    f"{path}, line {number}: no begin and end in one form; export with hh:mm:ss.ms, or with column "
                    "headers"
                )
            onset, offset, *length = (parse_seconds(time) for time in times)
            if length and abs(offset - onset - length[0]) > 2e-3:
                raise InputError(
                    f"{path}, line {number}: begin, end and duration do not agree; export with column headers"
                )
            yield Entry(f"line {number}", name, onset, offset, label)

    return Annotations.collect(path, entries(), {name: None})


def read_rttm(path: Path) -> Annotations:
    """RTTM: the file is the recording, the name the class.

    Raises:
        InputError: a line has too few fields, is no ``SPEAKER`` line, or an event is wrong.
    """

    def entries() -> Iterator[Entry]:
        for number, line in numbered_lines(path):
            cells = line.split()
            if cells[0].startswith(";;") or cells[0] in _RTTM_NO_EVENTS:
                continue
            if cells[0] != "SPEAKER":
                raise InputError(f"{path}, line {number}: {cells[0]!r} is no event; keep the SPEAKER lines")
            if not 8 <= len(cells) <= 10:
                raise InputError(f"{path}, line {number}: {len(cells)} fields; RTTM has ten, without spaces in them")
            onset, length = (parse_number(cell, decimal_comma=False) for cell in cells[3:5])
            if length < 0:
                raise InputError(f"{path}, line {number}: the duration is negative; correct it")
            label = "" if cells[7] == "<NA>" else cells[7]
            score = cells[8] if len(cells) > 8 else "<NA>"
            confidence = math.nan if score in ("<NA>", "NA") else parse_number(score, decimal_comma=False)
            if score not in ("<NA>", "NA") and math.isnan(confidence):
                raise InputError(f"{path}, line {number}: the confidence {score!r} is not a number; write <NA>")
            yield Entry(f"line {number}", cells[1], onset, onset + length, label, confidence)

    return Annotations.collect(path, entries())


def rttm_text(annotations: Annotations) -> str:
    """One ``SPEAKER`` line per event, the clip as the file, the class as the speaker; white space becomes ``_``.

    Raises:
        InputError: two recordings or classes would become one.
    """
    _refuse_equal([(name, _rttm_name(clip_name(name))) for name in annotations.seconds])
    _refuse_equal([(name, _rttm_name(name)) for name in annotations.events["event_label"].unique()])
    lines = []
    for event in annotations.rows():
        name, label = _rttm_name(clip_name(event.filename)), _rttm_name(str(event.label))
        score = "<NA>" if math.isnan(event.score) else f"{event.score:.6g}"
        length = event.offset - event.onset
        lines.append(f"SPEAKER {name} 1 {event.onset:.6f} {length:.6f} <NA> <NA> {label} {score} <NA>\n")
    return "".join(lines)


def _rttm_name(name: str) -> str:
    return re.sub(r"\s+", "_", name)


def _refuse_equal(names: list[tuple[str, str]]) -> None:
    known: dict[str, str] = {}
    for name, plain in names:
        other = known.setdefault(plain, name)
        if other != name:
            raise InputError(f"{other} and {name} are both {plain} in RTTM; rename one, or write .tsv or .json")
