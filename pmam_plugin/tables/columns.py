"""Annotation tables under the names that tools and people give their columns: CSV, TSV, Raven, ELAN with a header."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pmam_plugin.errors import InputError
from pmam_plugin.tables.annotations import COLUMNS, Annotations, Entry, parse_seconds, recording_of, refuse_breaks
from pmam_plugin.tables.reading import Table, cells_of, numbered_lines, rows_text

logger = logging.getLogger(__name__)

# What a column means, by its name in lower case without unit; of several the first counts.
_ROLES = {
    "filename": (
        "filename", "file name", "file", "audio file", "audio filename", "audio", "sound file", "recording", "clip",
        "clip name", "wav file", "wav", "fname", "filepath", "file path", "path", "begin file", "begin path",
        "segment id",
    ),
    "onset": (
        "onset", "start time", "start", "begin time", "begin", "event onset", "event start", "onset time", "t start",
        "tstart", "tmin", "xmin", "from", "time",
    ),
    "offset": (
        "offset", "end time", "end", "event offset", "event end", "offset time", "stop", "stop time", "t end", "tend",
        "tmax", "xmax", "to", "finish",
    ),
    "duration": ("duration", "event duration", "dur", "length", "delta time"),
    "label": (
        "event label", "label", "labels", "class", "class name", "event", "event class", "event type", "sound event",
        "sound class", "category", "annotation", "tag", "common name", "species", "species code", "name", "text",
        "type",
    ),
    "score": ("score", "confidence", "probability", "prob", "conf", "likelihood"),
    "file offset": ("file offset",),
    "selection": ("selection",),
    "view": ("view",),
}  # fmt: skip
_UNIT = re.compile(r"(.*?)\s*[(\[]?\b(s|sec|secs|seconds?|ms|msec|milliseconds?|samples?|frames?)[)\]]?")
_ELAN_UNIT = re.compile(r"(.*?) - (hh:mm:ss\.ms|ss\.msec|msec|hh:mm:ss:ff.*)")
_ELAN_OTHER = ("tier", "participant", "annotator", "file path", "file name", "controlled vocabulary description")
_MILLISECONDS = ("ms", "msec", "millisecond", "milliseconds")
_COUNTS = ("sample", "samples", "frame", "frames")
_RAVEN_HEADER = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)", "Annotation",
    "Score", "Begin File", "File Offset (s)",
)  # fmt: skip


@dataclass(frozen=True)
class _Column:
    name: str  # as the header has it, in lower case
    role: str
    unit: str


def header_of(path: Path) -> tuple[str, list[str]] | None:
    """Separator and names of a header that tells when events begin and end; None where the first line tells no such."""
    number, line = next(numbered_lines(path), (1, ""))
    for separator in "\t;,":
        if separator not in line:
            continue
        try:
            names = [cell.lower() for cell in cells_of(path, number, line, separator)]
        except InputError:  # a header with such a fault is refused when the table is read; a label may be anything
            names = [cell.strip().lower() for cell in line.split(separator)]
        roles = {column.role for column in _columns(names)}
        if "onset" in roles and roles & {"offset", "duration"}:
            return separator, names
    return None


def read_table(path: Path, label_column: str | None = None) -> Annotations:
    """Events of a table with any of the usual column names; without a column of files they belong to its recording.

    Args:
        path: the table.
        label_column: which column holds the class; None means the usual names.

    Raises:
        InputError: no such table, a column is missing or counts samples, two columns disagree, or a row is wrong.
    """
    found = header_of(path)
    if found is None:
        raise InputError(
            f"{path}, line 1: no column tells when events begin and end; name the columns filename, onset, offset, "
            "event_label"
        )
    columns = _columns(found[1])
    tiers = _tiers(found[1], columns)
    by_role = {role: [column for column in columns if column.role == role] for role in _ROLES}
    if label_column is not None:
        if label_column.lower() not in found[1]:
            raise InputError(f"{path}, line 1: has no column {label_column!r}; it names {', '.join(found[1])}")
        by_role["label"] = [_Column(label_column.lower(), "label", "")]
    if not by_role["label"] and not tiers:
        raise InputError(
            f"{path}, line 1: no column names the class; call it event_label, or name it with --label-column"
        )
    wanted = list(dict.fromkeys([column.name for each in by_role.values() for column in each] + tiers))
    table = Table.read(path, wanted)
    table.refuse_unclear_commas(*(c.name for role in ("onset", "offset", "duration") for c in by_role[role]))
    return Annotations.collect(path, _entries(table, by_role, tiers))


def raven_text(annotations: Annotations) -> str:
    """A Raven selection table; selections span 0 to 8 kHz, as detections have no frequencies."""
    refuse_breaks(annotations, "\t\r\n", "a Raven table")
    lines = [_RAVEN_HEADER]
    for number, event in enumerate(annotations.rows(), 1):
        times = (f"{event.onset:.6f}", f"{event.offset:.6f}")
        score = "" if math.isnan(event.score) else f"{event.score:g}"
        name = str(event.label)
        lines.append((str(number), "Spectrogram 1", "1", *times, "0", "8000", _quoted(name), score,
                      _quoted(event.filename), times[0]))  # fmt: skip
    return "".join("\t".join(line) + "\n" for line in lines)


def table_text(annotations: Annotations, separator: str, detections: bool = False) -> str:
    """DESED's columns; recordings without events have rows of their own, but not among detections (with scores)."""
    refuse_breaks(annotations, "\r\n", "a table")
    rows: list[Sequence[object]] = [COLUMNS]
    rows += [(*row[1:5], None if math.isnan(row.score) else row.score) for row in annotations.rows()]
    if not detections:
        eventful = set(annotations.events["filename"])
        rows += [(name, *[None] * 4) for name in annotations.seconds if name not in eventful]
    width = len(COLUMNS) - (not annotations.scored and not detections)
    return rows_text((row[:width] for row in rows), separator)


def elan_text(annotations: Annotations) -> str:
    """ELAN's tab-delimited export with a header, which ELAN imports again."""
    refuse_breaks(annotations, "\t\r\n", "an ELAN table")
    lines = ["Tier\tBegin Time - ss.msec\tEnd Time - ss.msec\tDuration - ss.msec\tAnnotation"]
    for event in annotations.rows():
        times = (event.onset, event.offset, event.offset - event.onset)
        lines.append("\t".join(["events", *(f"{time:.6f}" for time in times), _quoted(str(event.label))]))
    return "\n".join(lines) + "\n"


def _quoted(cell: str) -> str:
    """As :class:`Table` reads it back: quotation marks only where a cell has some of its own."""
    return '"' + cell.replace('"', '""') + '"' if '"' in cell else cell


def _columns(names: Sequence[str]) -> list[_Column]:
    """Columns of a known role, in the order of preference."""
    found = []
    for role, usual in _ROLES.items():
        ranked = []
        for name in names:
            elan = _ELAN_UNIT.fullmatch(name)
            plain = re.sub(r"[_\-.\s]+", " ", elan[1] if elan else name).strip()
            unit = elan[2] if elan else ""
            match = _UNIT.fullmatch(plain)
            if plain not in usual and match:
                plain, unit = match[1], match[2]
            if plain in usual and not unit.startswith("hh:mm:ss:ff"):
                ranked.append((usual.index(plain), _Column(name, role, unit)))
        found += [column for _, column in sorted(ranked, key=lambda pair: pair[0])]
    return found


def _tiers(names: Sequence[str], columns: Sequence[_Column]) -> list[str]:
    """ELAN's columns of tiers, where each tier has one."""
    if not any(_ELAN_UNIT.fullmatch(name) for name in names) or any(column.role == "label" for column in columns):
        return []
    known = {column.name for column in columns}
    return [
        name for name in names if name and name not in known | {*_ELAN_OTHER} and not _ELAN_UNIT.fullmatch(name)
    ]  # fmt: skip


def _entries(table: Table, by_role: dict[str, list[_Column]], tiers: Sequence[str]) -> Iterator[Entry]:
    rows = range(len(table.lines))
    onset, offset, length = (_times(table, by_role[role]) for role in ("onset", "offset", "duration"))
    files = _filenames(table, by_role["filename"])
    labels = _labels(table, by_role["label"]) if by_role["label"] else None
    scores = _scores(table, by_role["score"])
    file_offset = _times(table, by_role["file offset"]) if by_role["filename"] else None
    selections = table.columns[by_role["selection"][0].name] if by_role["selection"] and by_role["view"] else None
    timed = by_role["onset"] + by_role["offset"]
    seen: set[tuple[str, str, float, float, str | None]] = set()
    assert onset is not None
    for row in rows:
        begin = onset[row]
        end = offset[row] if offset is not None else math.nan
        if math.isnan(end) and length is not None:
            end = begin + length[row]
        if file_offset is not None and not math.isnan(file_offset[row]):
            begin, end = file_offset[row], file_offset[row] + end - begin
        place = f"line {table.lines[row]}"
        if labels is None:
            names: list[str | None] = [table.columns[tier][row] for tier in tiers if table.columns[tier][row]]
        else:
            free = not labels[row] and not any(table.columns[column.name][row] for column in timed)
            names = [None if free else labels[row]]
        for name in names:
            if selections is not None:
                # Raven writes a selection once for every view it is shown in.
                key = (selections[row], files[row], begin, end, name)
                if key in seen:
                    continue
                seen.add(key)
            yield Entry(place, files[row], begin, end, name, scores[row])


def _times(table: Table, columns: Sequence[_Column]) -> list[float] | None:
    """Seconds by row, NaN where nothing readable stands; several columns of one role must agree to a millisecond."""
    if not columns:
        return None
    for column in columns:
        if column.unit in _COUNTS:
            raise InputError(f"{table.path}, line 1: {column.name!r} counts {column.unit}; export times in seconds")
    values = [
        [
            parse_seconds(cell, table.separator != ",") * (1e-3 if column.unit in _MILLISECONDS else 1.0)
            for cell in table.columns[column.name]
        ]
        for column in columns
    ]
    for column, others in zip(columns[1:], values[1:]):
        for row, (first, other) in enumerate(zip(values[0], others)):
            if abs(first - other) > 1.5e-3:
                raise InputError(
                    f"{table.path}, line {table.lines[row]}: {columns[0].name!r} and {column.name!r} differ "
                    f"({first:g} and {other:g} s); remove or rename one of the columns"
                )
    # More digits say more: milliseconds and clock times are rounded.
    best = next((place for place, column in enumerate(columns) if column.unit == "ss.msec"), 0)
    return values[best]


def _filenames(table: Table, columns: Sequence[_Column]) -> list[str]:
    if not columns:
        return [recording_of(table.path)] * len(table.lines)
    first, *others = ([*table.columns[column.name]] for column in columns)
    for column, other in zip(columns[1:], others):
        for row, (mine, theirs) in enumerate(zip(first, other)):
            if re.split(r"[\\/]", mine)[-1] != re.split(r"[\\/]", theirs)[-1]:
                raise InputError(
                    f"{table.path}, line {table.lines[row]}: {columns[0].name!r} and {column.name!r} name different "
                    f"recordings; remove or rename one of the columns"
                )
    return first


def _labels(table: Table, columns: Sequence[_Column]) -> list[str]:
    others = [column.name for column in columns[1:] if table.columns[column.name] != table.columns[columns[0].name]]
    if others:
        logger.warning(
            "%s: classes are taken from the column %r, not from %s; --label-column names another",
            table.path,
            columns[0].name,
            ", ".join(map(repr, others)),
        )
    return table.columns[columns[0].name]


def _scores(table: Table, columns: Sequence[_Column]) -> Sequence[float]:
    if not columns:
        return [math.nan] * len(table.lines)
    cells = table.columns[columns[0].name]
    return table.numbers(columns[0].name, unless=[not cell for cell in cells]).tolist()


def names_files(header: Sequence[str]) -> bool:
    """Whether a header has a column of recordings."""
    return any(column.role == "filename" for column in _columns(header))
