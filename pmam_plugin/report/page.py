"""The shell of every report: one HTML file whose policy forbids it to fetch anything."""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from pmam_plugin.files import atomic_path

# Nothing but what stands in the file; media also from the disk the page lies on (long recordings are referred to).
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; "
    "media-src 'self' file: data: blob:"
)


def write_page(
    path: str | os.PathLike[str], title: str, subtitle: str, body: str, data: Any, scripts: Sequence[str]
) -> None:
    """Write a self-contained page, atomically.

    Args:
        path: the HTML file.
        title: plain text.
        subtitle: plain text below the title.
        body: HTML of everything below the header, already escaped.
        data: JSON-able; the scripts read it (NaN and infinities become null).
        scripts: files of ``assets/``, or ``room/file`` of another room's, in the order they run, after ``core.js``.

    Raises:
        InputError: the file cannot be written.
    """
    code = "\n".join(asset(name) for name in ("core.js", *scripts))
    page = asset("page.html").format(
        policy=_POLICY,
        title=escape(title),
        subtitle=escape(subtitle),
        style=asset("report.css"),
        body=body,
        # A closing tag inside a string must not end the script element.
        data=_compact_json(data).replace("<", "\\u003c"),
        code=code,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def escape(text: object) -> str:
    """Plain text as HTML."""
    return html.escape(str(text), quote=True)


def section(name: str, title: str, body: str, lead: str = "") -> str:
    """A titled part of the page, none for an empty body; ``lead`` is a sentence of plain text: how to read it."""
    if not body:
        return ""
    paragraph = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return (
        f'<section id="{escape(name)}" aria-labelledby="{escape(name)}-title">'
        f'<h2 id="{escape(name)}-title">{escape(title)}</h2>{paragraph}{body}</section>'
    )


def table(heads: Iterable[str], rows: Mapping[str, Iterable[str]], style: str = "") -> str:
    """A table with a heading for every column and row (plain text); cells are HTML."""
    head = "".join(f"<th scope='col'>{escape(text)}</th>" for text in heads)
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, cells in rows.items()
    )
    opening = f'<table class="{style}">' if style else "<table>"
    return f"{opening}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def details(title: str, body: str, open_at_first: bool = False) -> str:
    """A part that can be folded away."""
    return f"<details{' open' if open_at_first else ''}><summary>{escape(title)}</summary>{body}</details>"


def facts_table(facts: Mapping[str, Any]) -> str:
    """A table of plain values by name; empty for none."""
    rows = "".join(
        f"<tr><th scope='row'>{escape(key)}</th><td>{escape(number(value))}</td></tr>" for key, value in facts.items()
    )
    return f'<table class="facts">{rows}</table>' if rows else ""


def number(value: Any) -> str:
    """A number as people read it; strings and None pass."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def duration_text(seconds: float) -> str:
    """Seconds as ``12.3 s``, ``4 min 05 s`` or ``1 h 02 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def asset(name: str) -> str:
    """Text of a file of ``assets/``, or of another room's as ``room/file``."""
    room, _, file = name.rpartition("/")
    return resources.files(f"pmam_plugin.{room or 'report'}").joinpath("assets", file).read_text(encoding="utf-8")


def _compact_json(data: Any) -> str:
    """JSON with numbers of six digits; arrays become lists, NaN and infinities null, whatever else its text."""
    text = json.dumps(data, default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))
    plain = json.loads(text, parse_float=lambda digits: float(f"{float(digits):.6g}"), parse_constant=lambda _: None)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
