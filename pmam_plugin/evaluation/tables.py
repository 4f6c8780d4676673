"""Score tables and operating points: folders of tables that evaluation reads and writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from pmam_plugin.audio.names import is_hidden, relative_path
from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path
from pmam_plugin.tables import read_events

Progress = Callable[[str, int, int], None]
"""A progress hook: called with what is being done, how much of it is done, and of how much."""

# Times written with a few digits do not add up exactly, s.
_TOLERANCE = 1e-6
_OPERATING_POINT = re.compile(r"^predictions_th_(.+)\.(?:tsv|csv)$")


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
        (
            np.append(False, np.abs(values[1:, 0] - values[:-1, 1]) > _TOLERANCE),
            "does not begin where the row before ends",
        ),
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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
