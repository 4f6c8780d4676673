"""The one reader of text tables, which refuses what it cannot read exactly, with file, line and cure; and the writer.

Tables are separated by tabs (DESED's form), semicolons or commas; the header decides, whose names may stand in any
case and order, beside others. Quotation marks are read as CSV has them: around a whole field, doubled inside. A decimal
comma is a decimal point where commas do not separate and cannot count thousands.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from pmam_plugin.errors import InputError
from pmam_plugin.files import other_kind

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_COLUMNS = ("onset", "offset", "filename", "event_label", "score")
_LONGEST_SHOWN = 100
_SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas"}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass
class Table:
    """Cells as stripped text, column by column, with the line each row stands on.

    Attributes:
        path: of the file.
        separator: between cells.
        columns: cells by name of the column, as it was asked for.
        lines: line of every row in the file, from 1.
    """

    path: Path
    separator: str
    columns: dict[str, list[str]]
    lines: list[int]

    @classmethod
    def read(cls, path: str | PathLike[str], required: Sequence[str], optional: Sequence[str] = ()) -> Table:
        """Read those columns of a file; blank lines and empty cells at the ends of rows are nothing.

        Raises:
            InputError: the file is absent or no text, a column is missing or occurs twice, a row is too long, or a
                quotation mark is not closed.
        """
        path = Path(path)
        lines = text_lines(path)
        first = next((number for number, line in enumerate(lines) if line.strip()), 0)
        separator = _separator(lines[first], required)
        header = [cell.lower() for cell in cells_of(path, first + 1, lines[first], separator)]
        _check_header(path, first + 1, header, required)
        wanted = [*required, *(name for name in optional if name in header)]
        places = [header.index(name) for name in wanted]
        columns: dict[str, list[str]] = {name: [] for name in wanted}
        numbers = []
        for number, line in enumerate(lines[first + 1 :], first + 2):
            row = cells_of(path, number, line, separator)
            while len(row) > len(header) and not row[-1]:
                row.pop()
            if not any(row):
                continue
            if len(row) > len(header):
                commas = "; a decimal comma needs semicolons or tabs between cells" if separator == "," else ""
                raise InputError(
                    f"{path}, line {number}: {len(row)} fields where the header has {len(header)}; "
                    f"remove or quote what is too much{commas}"
                )
            if len(row) < len(required) and (row[0].startswith("#") or re.search(r"[\t;,\x00-\x1f]", row[0])):
                raise InputError(
                    f"{path}, line {number}: {_shown(line)} is no row of a table whose header separates cells with "
                    f"{_SEPARATORS[separator]}; separate these alike, or remove the line"
                )
            row += [""] * (len(header) - len(row))
            for name, place in zip(wanted, places):
                columns[name].append(row[place])
            numbers.append(number)
        return cls(path, separator, columns, numbers)

    def numbers(self, column: str, unless: Sequence[bool] | None = None) -> np.ndarray:
        """A column as float64, ``(rows,)``; NaN where ``unless`` is true.

        Raises:
            InputError: a cell is no finite decimal number.
        """
        skipped = np.zeros(len(self.lines), dtype=bool) if unless is None else np.array(unless, dtype=bool)
        cells = zip(self.columns[column], skipped)
        values = np.array([math.nan if skip else parse_number(cell, self.separator != ",") for cell, skip in cells])
        comma = " or semicolons between cells" if self.separator == "," else ""
        fault = f"is not a number; write seconds with a decimal point{comma}"
        self.refuse(~np.isfinite(values) & ~skipped, column, fault)
        return values

    def refuse_unclear_commas(self, *columns: str) -> None:
        """Raise InputError where the commas of numbers may count thousands: points stand beside them in these columns,
        or three digits come after each of them."""
        if self.separator == ",":
            return
        cells = [cell for column in columns for cell in self.columns[column]]
        commas = [cell for cell in cells if _COMMA.fullmatch(cell)]
        pointed = any("." in cell and _NUMBER.fullmatch(cell) for cell in cells)
        if pointed or all(_THOUSANDS.fullmatch(cell) for cell in commas):
            fault = "may count thousands or have a decimal comma; write seconds with a decimal point"
            for column in columns:
                self.refuse([_COMMA.fullmatch(cell) is not None for cell in self.columns[column]], column, fault)

    def refuse(self, bad: Sequence[bool] | np.ndarray, column: str, fault: str) -> None:
        """Raise InputError for the first row where ``bad`` is true."""
        rows = np.flatnonzero(np.asarray(bad, dtype=bool))
        if rows.size:
            first = int(rows[0])
            cell = self.columns[column][first]
            raise InputError(f"{self.path}, line {self.lines[first]}: the {column} {_shown(cell)} {fault}")


def parse_number(cell: str, decimal_comma: bool = True) -> float:
    """A finite decimal number, perhaps with a decimal comma; NaN where it is none."""
    if decimal_comma and cell.count(",") == 1 and "." not in cell:
        cell = cell.replace(",", ".")
    return float(cell) if _NUMBER.fullmatch(cell) else math.nan


def text_lines(path: Path) -> list[str]:
    """Lines of a text file, whatever ends them; errors as in :func:`decoded`."""
    return decoded(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1; errors as in :func:`decoded`."""
    return ((number, line) for number, line in enumerate(text_lines(path), 1) if line.strip())


def decoded(path: Path) -> str:
    """Text of a file: UTF-8, or what its byte order mark says.

    Raises:
        InputError: there is no such file, it cannot be read, or it is no text.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the table inside it")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path or restore the annotations") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    if foreign := other_kind(data[:64], "a table", "name the text file of the labels"):
        raise InputError(f"{path}: is {foreign}")
    mark, encoding = next(((mark, name) for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), (b"", "utf-8"))
    data = data[len(mark) :]
    if not mark and b"\0" in data[:4000]:
        # UTF-16 without its mark: every other byte of plain letters is zero.
        even, odd = data[:4000:2].count(0), data[1:4000:2].count(0)
        half = len(data[:4000]) // 2
        encoding = "utf-16-le" if odd > 0.6 * half else "utf-16-be" if even > 0.6 * half else encoding
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: cannot be read as {encoding.upper()} text; save the table as UTF-8 text"
        ) from error
    if "\0" in text:
        raise InputError(f"{path}: cannot be read, it holds zero bytes and is no text; give a text table")
    return text.lstrip("\ufeff")  # two programs that each put a mark in front


def split_names(cell: str) -> tuple[str, ...]:
    """Names in one field, separated by commas; a name that holds a comma stands in quotation marks, as CSV has it.

    Raises:
        ValueError: a quotation mark is not closed.
    """
    return tuple(dict.fromkeys(name for name in _split(cell, ",") if name))


def can_be_class(name: str) -> bool:
    """Whether a class may be called so: it heads a column of a score table."""
    return bool(name.strip()) and not _CONTROL.search(name) and name not in _COLUMNS


def joins(name: str, classes: Collection[str], separators: str = ";|,；，、") -> bool:
    """Whether a class name is nothing but other known classes with separators between."""
    parts = [part.strip() for part in re.split(f"[{separators}]", name) if part.strip()]
    return len(parts) > 1 and all(part in classes and part != name for part in parts)


def join_names(names: Sequence[str]) -> str:
    """The field that :func:`split_names` reads."""
    doubled = ('"' + name.replace('"', '""') + '"' if re.search('[,"]', name) else name for name in names)
    return ",".join(doubled)


def rows_text(rows: Iterable[Iterable[object]], separator: str = "\t") -> str:
    """The text of a table whose rows these are, the header first; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _separator(header: str, required: Sequence[str]) -> str:
    """The separator that gives most of the required names."""

    def found(separator: str) -> int:
        cells = {cell.strip().strip('"').lower() for cell in header.split(separator)}
        return len(cells & set(required))

    return max(_SEPARATORS, key=found)


def _check_header(path: Path, line: int, header: list[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in header]
    if missing:
        raise InputError(
            f"{path}, line {line}: the column {missing[0]!r} is missing; the header must name {', '.join(required)}, "
            f"and it names {_shortened(', '.join(name for name in header if name)) or 'nothing'}"
        )
    repeated = [name for name in header if name and header.count(name) > 1]
    if repeated:
        raise InputError(f"{path}, line {line}: the column {_shown(repeated[0])} occurs twice; keep one of them")


def cells_of(path: Path, number: int, line: str, separator: str) -> list[str]:
    """Stripped fields of a line.

    Raises:
        InputError: a quotation mark is not closed.
    """
    try:
        return _split(line, separator)
    except ValueError as error:
        raise InputError(f"{path}, line {number}: {error}") from None


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]} ..."


def _shown(text: str) -> str:
    """A cell or line as messages have it."""
    return repr(_shortened(text))


def _split(line: str, separator: str) -> list[str]:
    """Fields of a line. Quotation marks that enclose a field go; others are text, as long as they come in pairs."""
    if '"' not in line:
        return [cell.strip() for cell in line.split(separator)]
    cells, place = [], 0
    while place <= len(line):
        start = place + len(line[place:]) - len(line[place:].lstrip(" "))
        match = _QUOTED.match(line, start)
        end = -1 if match is None else match.end() + len(line[match.end() :]) - len(line[match.end() :].lstrip(" "))
        if match is not None and (end == len(line) or line.startswith(separator, end)):
            cells.append(match[1].replace('""', '"').strip())
        else:
            if line.startswith('"', start) and '\\"' in line[start:]:
                raise ValueError("a backslash does not mask a quotation mark; double the mark instead")
            end = _end_of_plain(line, place, separator)
            cells.append(line[place:end].strip())
        place = end + len(separator)
    return cells


def _end_of_plain(line: str, place: int, separator: str) -> int:
    """Where an unquoted field ends: separators between its quotation marks belong to it."""
    end = line.find(separator, place)
    end = len(line) if end < 0 else end
    if line[place:end].lstrip(" ").startswith('"') or line[place:end].count('"') % 2:
        while line[place:end].count('"') % 2:
            following = line.find(separator, end + 1)
            if end == len(line):
                raise ValueError("a quotation mark is not closed; close it, or double it to mean itself")
            end = len(line) if following < 0 else following
    return end
