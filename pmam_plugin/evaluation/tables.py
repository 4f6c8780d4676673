"""Read, check and write the text tables of evaluation: events, weak labels, durations and scores.

Tables are tab-separated (DESED's form) or comma-separated; the header decides. Columns may stand in any order and
others may be there. Every fault is reported with the file and its line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Mapping
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from pmam_plugin.audio.names import is_hidden, relative_path
from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path

Progress = Callable[[str, int, int], None]
"""A progress hook: called with what is being done, how much of it is done, and of how much."""

_LINE = "line number in the file"
_OPERATING_POINT = re.compile(r"^predictions_th_(.+)\.(?:tsv|csv)$")


def read_events(path: str | PathLike[str], labels: Collection[str] | None = None) -> pd.DataFrame:
    """Read events or detections.

    Args:
        path: table with the columns ``filename, onset, offset, event_label`` and perhaps ``score``.
        labels: the allowed classes; any when not given.

    Returns:
        Those columns, times in seconds. An event-free clip is one row whose onset and offset are NaN and whose label
        is None, as it is one row with empty fields in the file.

    Raises:
        InputError: the file is not there or is no table, a column is missing, a time is not a number, an offset lies
            before its onset, a row is half filled, or a label is unknown.
    """
    table = _read(path, ("filename", "onset", "offset", "event_label"))
    empty = (table[["onset", "offset", "event_label"]] == "").all(axis=1)
    _refuse(path, table, ~empty & (table["event_label"] == ""), "has no event_label; fill it or clear onset and offset")
    onset = _numbers(path, table, "onset", where=~empty)
    offset = _numbers(path, table, "offset", where=~empty)
    _refuse(path, table, onset < 0, "begins before the clip does; the onset must be 0 or more")
    _refuse(path, table, offset < onset, "has its offset before its onset; exchange or correct them")
    if labels is not None:
        strange = ~empty & ~table["event_label"].isin(list(labels))
        _refuse(path, table, strange, f"has an unknown event_label; the classes are {', '.join(labels)}", "event_label")
    events = pd.DataFrame({"filename": table["filename"], "onset": onset, "offset": offset})
    events["event_label"] = table["event_label"].where(~empty, None)
    if "score" in table:
        events["score"] = _numbers(path, table, "score", where=table["score"] != "")
    return events


def read_weak(path: str | PathLike[str], labels: Collection[str] | None = None) -> pd.DataFrame:
    """Read weak labels.

    Args:
        path: table with the columns ``filename, event_labels``; the labels of a clip are separated by commas.
        labels: the allowed classes; any when not given.

    Returns:
        Columns ``filename`` and ``event_labels``, the latter a tuple of class names per clip, perhaps empty.

    Raises:
        InputError: as :func:`read_events`; also when a clip is listed twice.
    """
    table = _read(path, ("filename", "event_labels"))
    _refuse(
        path, table, table["filename"].duplicated(), "lists a clip for the second time; keep one row of it", "filename"
    )
    split = table["event_labels"].map(lambda cell: tuple(name.strip() for name in cell.split(",") if name.strip()))
    if labels is not None:
        strange = split.map(lambda names: any(name not in labels for name in names))
        _refuse(path, table, strange, f"has an unknown label; the classes are {', '.join(labels)}", "event_labels")
    return pd.DataFrame({"filename": table["filename"], "event_labels": split})


def read_durations(path: str | PathLike[str]) -> dict[str, float]:
    """Read the durations of clips, in seconds, by file name.

    Raises:
        InputError: the file or a column (``filename, duration``) is missing, a duration is not a positive number, or a
            clip is listed twice.
    """
    table = _read(path, ("filename", "duration"))
    duration = _numbers(path, table, "duration")
    _refuse(path, table, duration <= 0, "has no positive duration; measure the recording again", "duration")
    _refuse(
        path, table, table["filename"].duplicated(), "lists a clip for the second time; keep one row of it", "filename"
    )
    return dict(zip(table["filename"], duration))


def read_operating_points(folder: str | PathLike[str], progress: Progress | None = None) -> dict[float, pd.DataFrame]:
    """Read detections at many thresholds: files named ``predictions_th_<threshold>.tsv``.

    Returns:
        Events by threshold, rising.

    Raises:
        InputError: no such folder, no such file in it, a name whose threshold is not a number, or a broken table.
    """
    files: dict[float, Path] = {}
    for file in _files(folder):
        match = _OPERATING_POINT.match(file.name)
        if match is None:
            continue
        try:
            files[float(match[1])] = file
        except ValueError:
            raise InputError(f"{file}: the threshold in this file name is not a number; rename it") from None
    if not files:
        raise InputError(f"{folder}: holds no predictions_th_<threshold>.tsv; give the folder of the operating points")
    tables = {}
    for done, threshold in enumerate(sorted(files), start=1):
        tables[threshold] = read_events(files[threshold])
        if progress is not None:
            progress("reading operating points", done, len(files))
    return tables


def write_events(path: str | PathLike[str], events: pd.DataFrame) -> None:
    """Write events as a tab-separated table, whole or not at all; times to the microsecond.

    Args:
        path: the file.
        events: columns ``filename, onset, offset, event_label`` and perhaps ``score``.

    Raises:
        InputError: the file cannot be written.
    """
    columns = ["filename", "onset", "offset", "event_label", *(["score"] if "score" in events else [])]
    with atomic_path(path) as temporary:
        events[columns].round(6).to_csv(temporary, sep="\t", index=False)


def read_scores(folder: str | PathLike[str], progress: Progress | None = None) -> dict[str, pd.DataFrame]:
    """Read a folder of score tables in the form of sed_scores_eval: one ``<clip>.tsv`` per clip, folders in depth.

    Returns:
        Per clip (place within the folder, without ``.tsv``) a table ``onset, offset, <class>...``; each row starts
        where the one before ends. A score of ``-inf`` means: never detected here.

    Raises:
        InputError: no such folder, no table in it, or a broken one.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder")
    files = {
        file.relative_to(folder).as_posix()[: -len(".tsv")]: file
        for file in sorted(Path(folder).rglob("*.tsv"))
        if file.is_file() and not is_hidden(file.relative_to(folder))
    }
    if not files:
        raise InputError(f"{folder}: holds no <clip>.tsv; give the folder that the scores were written to")
    tables = {}
    for done, (clip, file) in enumerate(files.items(), start=1):
        tables[clip] = _read_score_table(file)
        if progress is not None:
            progress("reading scores", done, len(files))
    return tables


def write_scores(
    folder: str | PathLike[str], tables: Mapping[str, pd.DataFrame], progress: Progress | None = None
) -> None:
    """Write one ``<clip>.tsv`` per clip, each whole or not at all, with nine significant digits (exact for float32).

    Args:
        folder: created when it is not there; other files in it stay.
        tables: scores by clip name.
        progress: a progress hook.

    Raises:
        InputError: a clip name that leaves the folder, or the folder cannot be written.
    """
    for done, (clip, table) in enumerate(tables.items(), start=1):
        path = Path(folder) / (relative_path(clip, "a score table") + ".tsv")
        with atomic_path(path) as temporary:
            table.to_csv(temporary, sep="\t", index=False, float_format="%.9g")
        if progress is not None:
            progress("writing scores", done, len(tables))


def check_scores(table: pd.DataFrame, name: str) -> None:
    """Refuse a table that is not ``onset, offset, <class>...`` with gapless rows.

    Raises:
        InputError: naming ``name`` and the row.
    """
    if list(table.columns[:2]) != ["onset", "offset"] or table.shape[1] < 3:
        raise InputError(f"{name}: the columns must be onset, offset and one per class, not {', '.join(table.columns)}")
    if len(table) == 0:
        raise InputError(f"{name}: holds no scores; write at least one row")
    values = table.to_numpy(np.float64)
    faults = [
        (np.isnan(values).any(axis=1) | ~np.isfinite(values[:, :2]).all(axis=1), "holds NaN or an infinite time"),
        (values[:, 1] <= values[:, 0], "ends before it begins"),
        (np.append(False, values[1:, 0] != values[:-1, 1]), "does not begin where the row before ends"),
    ]
    for bad, what in faults:
        if bad.any():
            raise InputError(f"{name}, line {int(np.argmax(bad)) + 2}: the row {what}; write the scores again")


def _read_score_table(file: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(file, sep="\t", dtype=np.float64)
    except (ValueError, OSError) as error:  # parser errors and undecodable bytes are ValueErrors
        raise InputError(f"{file}: not a table of scores ({_first_line(error)}); write it again") from error
    check_scores(table, str(file))
    return table


def _files(folder: str | PathLike[str]) -> list[Path]:
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder")
    return sorted(file for file in Path(folder).iterdir() if file.is_file() and not file.name.startswith("."))


def _read(path: str | PathLike[str], columns: tuple[str, ...]) -> pd.DataFrame:
    """All cells as text, blank lines left out, with the line number in an extra column."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            header = handle.readline()
        table = pd.read_csv(
            path,
            sep="\t" if "\t" in header else ",",
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            index_col=False,
            encoding="utf-8-sig",
            quoting=csv.QUOTE_MINIMAL,
        )
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a text table ({_first_line(error)})") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(
            f"{path}: column {', '.join(missing)} is missing; the header must name {', '.join(columns)}, "
            f"and it names {', '.join(map(str, table.columns))}"
        )
    table = table.fillna("")  # cells of a row that is too short
    wanted = [*columns, *(["score"] if "score" in table.columns and "score" not in columns else [])]
    table = table[wanted].apply(lambda cells: cells.str.strip())
    table[_LINE] = np.arange(len(table)) + 2
    table = table[(table[list(columns)] != "").any(axis=1)].reset_index(drop=True)
    _refuse(path, table, table["filename"] == "", "has no filename; fill it or remove the row")
    return table


def _numbers(path: str | PathLike[str], table: pd.DataFrame, column: str, where: pd.Series | None = None) -> pd.Series:
    numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
    bad = numbers.isna() | numbers.isin([np.inf, -np.inf])
    if where is not None:
        bad &= where
    _refuse(path, table, bad, f"has no number as its {column}; write seconds with a decimal point", column)
    return numbers


def _refuse(
    path: str | PathLike[str], table: pd.DataFrame, bad: pd.Series, fault: str, column: str | None = None
) -> None:
    if bad.any():
        row = table[bad].iloc[0]
        found = "" if column is None else f" ({row[column]!r})"
        what, _, cure = fault.partition(";")
        raise InputError(f"{path}, line {row[_LINE]}: the row {what}{found};{cure}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
