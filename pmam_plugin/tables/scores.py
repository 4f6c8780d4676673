"""Score tables and operating points: folders of tables that detection writes and evaluation reads."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pmam_plugin.audio.names import files_below, is_hidden, relative_path
from pmam_plugin.errors import InputError, Progress
from pmam_plugin.files import atomic_path
from pmam_plugin.tables.events import read_events
from pmam_plugin.tables.reading import cells_of, parse_number, text_lines

logger = logging.getLogger(__name__)

# Times written with a few digits do not add up exactly, s.
_TOLERANCE = 1e-6
_SCORE = re.compile(r"[+-]?((\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|inf|nan)", re.ASCII | re.IGNORECASE)
_OPERATING_POINT = re.compile(r"^predictions_th_(.+)\.(?:tsv|csv)$")


def read_operating_points(folder: str | PathLike[str], progress: Progress | None = None) -> dict[float, pd.DataFrame]:
    """Read detections at many thresholds: files named ``predictions_th_<threshold>.tsv``.

    Returns:
        Events by threshold, rising.

    Raises:
        InputError: no such folder, no such file in it, a name whose threshold is not a number, or a broken table.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of the operating points")
    files: dict[float, Path] = {}
    for file in sorted(Path(folder).iterdir()):
        match = _OPERATING_POINT.match(file.name)
        if match is None or not file.is_file():
            continue
        threshold = parse_number(match[1])
        if math.isnan(threshold):
            raise InputError(f"{file}: the threshold in this file name is not a number; rename it")
        other = files.setdefault(threshold, file)
        if other != file:
            raise InputError(f"{file}: stands for the same threshold as {other.name}; keep one of them")
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
        raise InputError(f"{folder}: no such folder; give the folder that the scores were written to")
    files = {
        name.removesuffix(".tsv"): file
        for name, file in files_below(folder).items()
        if name.endswith(".tsv") and not is_hidden(file.name)
    }
    if not files:
        raise InputError(f"{folder}: holds no <clip>.tsv; give the folder that the scores were written to")
    tables = {}
    highest = 0.0
    for done, (clip, file) in enumerate(files.items(), start=1):
        tables[clip] = _read_score_table(file)
        highest = max(highest, float(tables[clip].iloc[:, 2:].to_numpy().max()))
        if progress is not None:
            progress("reading scores", done, len(files))
    if highest > 1 + _TOLERANCE:
        logger.warning("%s: scores up to %g; thresholds count as if they were probabilities", folder, highest)
    return tables


def write_scores(folder: str | PathLike[str], tables: Mapping[str, pd.DataFrame]) -> None:
    """Write one ``<clip>.tsv`` per clip, each whole or not at all, with nine significant digits (exact for float32).

    Args:
        folder: created when it is not there; other files in it stay.
        tables: scores by clip name.

    Raises:
        InputError: a clip name that leaves the folder, or the folder cannot be written.
    """
    for clip, table in tables.items():
        path = Path(folder) / (relative_path(clip, "a score table") + ".tsv")
        with atomic_path(path) as temporary:
            table.to_csv(temporary, sep="\t", index=False, float_format="%.9g")


def scores_table(scores: np.ndarray, onset: ArrayLike, offset: ArrayLike, labels: Sequence[str]) -> pd.DataFrame:
    """A table ``onset, offset, <class>...`` of scores ``(rows, classes)`` and of when their rows begin and end, s."""
    table = pd.DataFrame(scores, columns=list(labels))
    table.insert(0, "offset", np.asarray(offset))
    table.insert(0, "onset", np.asarray(onset))
    return table


def check_scores(table: pd.DataFrame, name: str, lines: Sequence[int] | None = None) -> None:
    """Refuse a table that is not ``onset, offset, <class>...`` with gapless rows.

    Args:
        table: the scores.
        name: what messages call it.
        lines: line of every row in a file, from 1.

    Raises:
        InputError: naming ``name`` and the row.
    """
    columns = [str(column) for column in table.columns]
    if columns[:2] != ["onset", "offset"] or len(columns) < 3:
        raise InputError(
            f"{name}, line 1: the columns must be onset, offset and one per class, not "
            f"{', '.join(columns)[:100] or 'nothing'}; write the scores again, with tabs"
        )
    if len(table) == 0:
        raise InputError(f"{name}: holds no scores; write at least one row")
    values = table.to_numpy(np.float64)
    faults = [
        (
            ~(values < np.inf).all(axis=1) | ~np.isfinite(values[:, :2]).all(axis=1),
            "holds NaN, an infinite time or an endless score",
        ),
        (values[:, 0] < 0, "begins before the recording"),
        (values[:, 1] <= values[:, 0], "ends before it begins"),
        (
            np.append(False, np.abs(values[1:, 0] - values[:-1, 1]) > _TOLERANCE),
            "does not begin where the row before ends",
        ),
    ]
    for bad, what in faults:
        if bad.any():
            row = int(np.argmax(bad))
            line = row + 2 if lines is None else lines[row]
            raise InputError(f"{name}, line {line}: the row {what}; write the scores again")


def _read_score_table(file: Path) -> pd.DataFrame:
    written = text_lines(file)
    lines = [number for number, line in enumerate(written, 1) if line.strip()]
    header = cells_of(file, lines[0], normalize("NFC", written[lines[0] - 1]), "\t") if lines else []
    repeated = [name for name in header if header.count(name) > 1]
    check_scores(pd.DataFrame([range(len(header))], columns=header), str(file))  # its columns
    if repeated:
        raise InputError(f"{file}, line {lines[0]}: the column {repeated[0]!r} occurs twice; keep one of them")
    if "" in header:
        raise InputError(f"{file}, line {lines[0]}: a column has no name; write the scores again with a class each")
    rows = [written[number - 1] for number in lines[1:]]
    try:
        values = np.loadtxt(rows, delimiter="\t", comments=None, ndmin=2) if rows else np.empty((0, len(header)))
    except ValueError:
        values = np.empty((0, 0))
    if values.shape[1] != len(header):
        values = np.array([_score_row(file, number, written[number - 1], header) for number in lines[1:]])
    table = pd.DataFrame(values, columns=header)
    check_scores(table, str(file), lines[1:])
    return table


def _score_row(file: Path, number: int, line: str, header: Sequence[str]) -> list[float]:
    """One row, slowly: what is wrong with it is said."""
    cells = cells_of(file, number, line, "\t")
    if len(cells) != len(header):
        raise InputError(
            f"{file}, line {number}: {len(cells)} fields where the header has {len(header)}; write the scores again"
        )
    for name, cell in zip(header, cells):
        if not _SCORE.fullmatch(cell):
            raise InputError(
                f"{file}, line {number}: {cell[:60]!r} in the column {name} is not a number; write the scores again"
            )
    return [float(cell) for cell in cells]
