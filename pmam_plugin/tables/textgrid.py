"""Praat's TextGrids, read as Praat's manual defines the text form, in its long, short and free layouts.

"TextGrid file formats" there: what counts are free-standing numbers, texts in quotation marks (doubled inside) and
flags in angle brackets; everything else is decoration, ``!`` begins a comment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from pmam_plugin.errors import InputError
from pmam_plugin.tables.annotations import Annotations, Entry, recording_of
from pmam_plugin.tables.reading import parse_number, text_lines

_TOKEN = re.compile(r'"(?:[^"]|"")*"(?=\s|$)|![^\n]*|\S+')


def is_textgrid(text: str) -> bool:
    """Whether the beginning of a text is a TextGrid's."""
    return "ooTextFile" in text[:200] and "TextGrid" in text[:300]


def read_textgrid(path: Path) -> Annotations:
    """Labelled intervals of all tiers, and points as events without length; the interval's text is the class.

    Raises:
        InputError: the file ends early or is no TextGrid of intervals and points, or an event is wrong.
    """
    values = _Values(path)
    if values.text() not in ("ooTextFile", "ooTextFile short") or values.text() != "TextGrid":
        raise InputError(f"{path}, line {values.line}: is no TextGrid; save it from Praat as a text file")
    values.number()
    name, length = recording_of(path), values.number()

    def entries() -> Iterator[Entry]:
        for _ in range(values.count() if values.flag() == "<exists>" else 0):
            kind = values.text()
            if kind not in ("IntervalTier", "TextTier"):
                raise InputError(f"{path}, line {values.line}: {kind!r} is no tier; save it again from Praat")
            values.text(), values.number(), values.number()
            for _ in range(values.count()):
                onset = values.number()
                place = f"line {values.line}"
                offset = values.number() if kind == "IntervalTier" else onset
                label = values.text()
                if label.strip():
                    yield Entry(place, name, onset, offset, label)

    return Annotations.collect(path, entries(), {name: length})


def textgrid_text(annotations: Annotations) -> str:
    """The TextGrid of one recording: intervals on as many tiers as overlaps need, events without length as points."""
    (name,) = annotations.seconds
    end = annotations.end(name)
    tiers: list[list[Entry]] = []
    events = sorted(annotations.rows(), key=lambda event: (event.onset, event.offset))
    for event in events:
        if event.offset > event.onset:
            tier = next((tier for tier in tiers if tier[-1].offset <= event.onset), None)
            if tier is None:
                tiers.append([event])
            else:
                tier.append(event)
    points = [event for event in events if event.offset <= event.onset]
    blocks = [_intervals(number, tier, end) for number, tier in enumerate(tiers or [[]], 1)]
    if points:
        blocks.append(
            _tier("TextTier", "points", end, "points", [(("number", e.onset), ("mark", str(e.label))) for e in points])
        )
    head = f'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0 \nxmax = {_written(end)} \n'
    items = "".join(f"    item [{number}]:\n{block}" for number, block in enumerate(blocks, 1))
    return f"{head}tiers? <exists> \nsize = {len(blocks)} \nitem []: \n{items}"


def _intervals(number: int, events: list[Entry], end: float) -> str:
    rows, last = [], 0.0
    for event in events:
        if event.onset > last:
            rows.append((last, event.onset, ""))
        rows.append((event.onset, event.offset, str(event.label)))
        last = event.offset
    if last < end or not rows:
        rows.append((last, end, ""))
    name = "events" if number == 1 else f"events {number}"
    return _tier(
        "IntervalTier", name, end, "intervals", [(("xmin", a), ("xmax", b), ("text", text)) for a, b, text in rows]
    )


def _tier(kind: str, name: str, end: float, what: str, rows: list[tuple[tuple[str, float | str], ...]]) -> str:
    lines = [f'class = "{kind}"', f'name = "{name}"', "xmin = 0", f"xmax = {_written(end)}"]
    lines.append(f"{what}: size = {len(rows)}")
    text = "".join(f"        {line} \n" for line in lines)
    for number, row in enumerate(rows, 1):
        text += f"        {what} [{number}]:\n" + "".join(f"            {key} = {_written(v)} \n" for key, v in row)
    return text


def _written(value: float | str) -> str:
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return f"{value:.6f}".rstrip("0").rstrip(".")


class _Values:
    """The values of a TextGrid one after the other; ``line`` is where the last one stands."""

    def __init__(self, path: Path) -> None:
        self.path, self.line = path, 1
        self.content = "\n".join(text_lines(path))
        self._tokens = _TOKEN.finditer(self.content)
        self._place = 0

    def text(self) -> str:
        token = self._next('"')
        return token[1:-1].replace('""', '"')

    def number(self) -> float:
        return parse_number(self._next("0"), decimal_comma=False)

    def count(self) -> int:
        value = self.number()
        if value < 0 or value != math.floor(value):
            raise InputError(f"{self.path}, line {self.line}: {value:g} is no number of tiers or intervals; save again")
        return int(value)

    def flag(self) -> str:
        return self._next("<")

    def _next(self, kind: str) -> str:
        for match in self._tokens:
            token = match[0]
            self.line += self.content.count("\n", self._place, match.start())
            self._place = match.start()
            found = token[0] if token[0] in '"<' else "0" if not math.isnan(parse_number(token, False)) else ""
            if found == '"' and (len(token) < 2 or not token.endswith('"') or token.count('"') % 2):
                raise InputError(f"{self.path}, line {self.line}: a quotation mark is not closed; double those inside")
            if found and not (found == "<" and not token.endswith(">")):
                if found != kind:
                    wanted = {'"': "a text in quotation marks", "0": "a number", "<": "<exists>"}[kind]
                    raise InputError(
                        f"{self.path}, line {self.line}: {token[:40]} stands where {wanted} should; save it again from "
                        "Praat as a text file"
                    )
                return token
        raise InputError(f"{self.path}: ends before all of its intervals; save it again from Praat")
