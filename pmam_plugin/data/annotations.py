"""Read annotation tables: events, weak labels and durations, in DESED's form.

Tables are tab-separated (DESED) or comma-separated; the header decides. Columns may stand in any order and others may
be there. Every fault is reported with the file, its line and the cure.
"""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from pmam_plugin.errors import InputError

logger = logging.getLogger(__name__)

EVENT_COLUMNS = ("filename", "onset", "offset", "event_label")


def read_events(path: str | PathLike[str], labels: Collection[str] | None = None) -> pd.DataFrame:
    """Read events or detections.

    Args:
        path: table with the columns ``filename, onset, offset, event_label`` and perhaps ``score``.
        labels: the allowed classes; any when not given.

    Returns:
        Those columns, times in seconds, in the order of the file. An event-free clip is one row whose onset and offset
        are NaN and whose label is None, as it is one row with three empty fields in the file.

    Raises:
        InputError: the file is absent or no such table; a row is too short or too long, half filled, holds a time that
            is no number, begins before 0 s, has its offset before its onset, or names an unknown class.
    """
    table = _Table.read(path, EVENT_COLUMNS, optional=("score",))
    label = table.columns["event_label"]
    empty = [not any(cells) for cells in zip(label, table.columns["onset"], table.columns["offset"])]
    onset, offset = (table.numbers(column, unless=empty) for column in ("onset", "offset"))
    table.refuse([not name and not free for name, free in zip(label, empty)], "event_label", "is empty; name the class")
    table.refuse(onset < 0, "onset", "lies before the clip; write 0 or more")
    table.refuse(offset < onset, "offset", "lies before the onset; exchange or correct them")
    if labels is not None:
        allowed = set(labels)
        unknown = [not free and name not in allowed for name, free in zip(label, empty)]
        table.refuse(unknown, "event_label", f"is no known class; the classes are {', '.join(labels)}")
    events = pd.DataFrame({"filename": table.columns["filename"], "onset": onset, "offset": offset})
    events["event_label"] = pd.Series([None if free else name for name, free in zip(label, empty)], dtype=object)
    if "score" in table.columns:
        events["score"] = table.numbers("score", unless=[not cell for cell in table.columns["score"]])
    return events


def read_weak(path: str | PathLike[str], labels: Collection[str] | None = None) -> pd.DataFrame:
    """Read weak labels.

    Args:
        path: table with the columns ``filename, event_labels``; the classes of a clip are separated by commas.
        labels: the allowed classes; any when not given.

    Returns:
        Columns ``filename`` and ``event_labels``, the latter a tuple of class names per clip, perhaps empty.

    Raises:
        InputError: the file is absent or no such table, a clip is listed twice, or a class is unknown.
    """
    table = _Table.read(path, ("filename", "event_labels"))
    table.refuse_repeated_clips()
    split = [tuple(name.strip() for name in cell.split(",") if name.strip()) for cell in table.columns["event_labels"]]
    if labels is not None:
        unknown = [not set(names) <= set(labels) for names in split]
        table.refuse(unknown, "event_labels", f"holds an unknown class; the classes are {', '.join(labels)}")
    return pd.DataFrame(
        {"filename": table.columns["filename"], "event_labels": pd.Series([*split, ()], dtype=object)[:-1]}
    )


def read_durations(path: str | PathLike[str]) -> dict[str, float]:
    """Read the durations of clips, in seconds, by file name.

    Raises:
        InputError: the file is absent or lacks a column (``filename, duration``), a clip is listed twice, or a duration
            is no positive number.
    """
    table = _Table.read(path, ("filename", "duration"))
    table.refuse_repeated_clips()
    duration = table.numbers("duration")
    table.refuse(duration <= 0, "duration", "is not positive; measure the recording again")
    return dict(zip(table.columns["filename"], duration.tolist()))


def clip_events(events: pd.DataFrame, seconds: Mapping[str, float], name: str) -> pd.DataFrame:
    """Cut events at the ends of their recordings, and log how many needed it.

    DESED's annotations run up to 0.12 s beyond the clip here and there, which is no fault worth stopping for. Events
    without any length left are dropped, and counted in the log too.

    Args:
        events: as from :func:`read_events`.
        seconds: length of every recording by file name; events of other files stay as they are.
        name: what to call the table in the log.

    Returns:
        A new table; rows of event-free clips are kept.
    """
    events = events.copy()
    end = events["filename"].map(seconds).astype(float).fillna(math.inf)
    beyond = events["offset"] > end
    events["offset"] = events["offset"].where(~beyond, end)
    gone = events["offset"] <= events["onset"]
    if beyond.any():
        logger.warning("%s: %d events end after their recording; cut at its end", name, int(beyond.sum()))
    if gone.any():
        logger.warning("%s: %d events have no length within their recording; dropped", name, int(gone.sum()))
    return events[~gone].reset_index(drop=True)


@dataclass
class _Table:
    """Cells as stripped text, column by column, with the line each row stands on."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    @classmethod
    def read(cls, path: str | PathLike[str], required: Sequence[str], optional: Sequence[str] = ()) -> _Table:
        path = Path(path)
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name the table inside it")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; check the path or restore the annotations") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as UTF-8 text ({error}); save it as plain text") from error
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        header_line = lines[0] if lines else ""
        separator = "\t" if "\t" in header_line or "," not in header_line else ","
        reader = csv.reader(
            lines, delimiter=separator, quoting=csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
        )
        header = [cell.strip() for cell in next(reader, [])]
        cls._check_header(path, header, required)
        wanted = [*required, *(name for name in optional if name in header)]
        places = [header.index(name) for name in wanted]
        columns: dict[str, list[str]] = {name: [] for name in wanted}
        numbers = []
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                # Editors and spreadsheets drop the empty cells at the end of a row (a clip without events).
                if len(row) > len(header):
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(row)} fields where the header has {len(header)}; "
                        "remove or quote what is too much"
                    )
                row = row + [""] * (len(header) - len(row))
            for name, place in zip(wanted, places):
                columns[name].append(row[place].strip())
            numbers.append(reader.line_num)
        table = cls(path, columns, numbers)
        table.refuse([not cell for cell in columns["filename"]], "filename", "is empty; fill it or remove the row")
        return table

    @staticmethod
    def _check_header(path: Path, header: list[str], required: Sequence[str]) -> None:
        missing = [name for name in required if name not in header]
        if missing:
            raise InputError(
                f"{path}, line 1: the column {missing[0]!r} is missing; the header must name {', '.join(required)}, "
                f"and it names {', '.join(header) or 'nothing'}"
            )
        repeated = [name for name in header if name and header.count(name) > 1]
        if repeated:
            raise InputError(f"{path}, line 1: the column {repeated[0]!r} occurs twice; keep one of them")

    def numbers(self, column: str, unless: Sequence[bool] | None = None) -> np.ndarray:
        """A column as float64; NaN where ``unless`` is true."""
        skipped = unless if unless is not None else [False] * len(self.lines)
        values = np.array(
            [math.nan if skip else _number(cell) for cell, skip in zip(self.columns[column], skipped)], dtype=np.float64
        )
        bad = ~np.isfinite(values) & ~np.array(skipped, dtype=bool)
        self.refuse(bad, column, "is not a number; write seconds with a decimal point")
        return values

    def refuse(self, bad: Sequence[bool] | np.ndarray, column: str, fault: str) -> None:
        """Raise for the first row where ``bad`` is true."""
        rows = np.flatnonzero(np.asarray(bad, dtype=bool))
        if rows.size:
            first = int(rows[0])
            cell = self.columns[column][first]
            raise InputError(f"{self.path}, line {self.lines[first]}: the {column} {cell!r} {fault}")

    def refuse_repeated_clips(self) -> None:
        """Raise when a clip is listed twice."""
        seen: set[str] = set()
        repeated = [name in seen or bool(seen.add(name)) for name in self.columns["filename"]]  # type: ignore[func-returns-value]
        self.refuse(repeated, "filename", "is listed for the second time; keep one row of it")


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
