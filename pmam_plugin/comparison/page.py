"""A comparison as one HTML file: intervals and differences to look at, figures against updates, and the table."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pmam_plugin.comparison.statistics import (
    PROCESSINGS,
    beyond_zero,
    chance_text,
    gain_text,
    half_width,
    markdown,
    percent,
    to_json,
)
from pmam_plugin.files import write_text
from pmam_plugin.report.page import details, escape, section, table, write_page

_WIDTH = 260


def write_comparison(folder: Path, summary: Mapping[str, Any]) -> list[Path]:
    """Write ``summary.json``, ``summary.md`` and ``summary.html``; returns their paths."""
    write_text(folder / "summary.json", to_json(summary))
    write_text(folder / "summary.md", markdown(summary))
    seeds = ", ".join(map(str, summary["seeds"]))
    parts = [section(metric, metric.replace("_", " "), _metric(summary, metric)) for metric in summary["metrics"]]
    parts.append(section("settings", "What was trained", _settings(summary)))
    subtitle = "; ".join(
        text
        for text in (
            f"Percent; means over seeds {seeds} with 95 % t-intervals, differences paired by seed",
            chance_text(summary),
            f"{summary['hours']:.1f} hours of stages in all",
        )
        if text
    )
    write_page(folder / "summary.html", summary["title"], subtitle, "".join(parts), {}, ())
    return [folder / f"summary.{ending}" for ending in ("json", "md", "html")]


def _metric(summary: Mapping[str, Any], metric: str) -> str:
    body = ""
    for key, title in PROCESSINGS.items():
        cells = {name: row[key][metric] for name, row in summary["rows"].items() if key in row}
        if not cells:
            continue
        ends = [value for cell in cells.values() for value in (*cell["values"].values(), *_ends(cell))]
        gains = [found for cell in cells.values() for found in cell["gains"].values() if found]
        spans = [value for found in gains for value in (0.0, *_ends({"mean": found["difference"], **found}))]
        rows = {}
        for name, cell in cells.items():
            bar = _bar(cell["mean"], cell["half_width"], ends, list(cell["values"].values()))
            rows[name] = escape(percent(cell)), bar, _gains(cell, spans)
        body += f"<h3>{escape(title)}</h3>{table(('row', 'mean', 'interval and seeds', 'difference'), rows)}"
    return body + _updates(summary, metric)


def _gains(cell: Mapping[str, Any], spans: Sequence[float]) -> str:
    shown = []
    for name, found in cell["gains"].items():
        if found:
            text = escape(gain_text(name, found))
            bar = _bar(found["difference"], found["half_width"], spans, list(found["differences"].values()), zero=True)
            shown.append(f"{bar}<br>{f'<b>{text}</b>' if beyond_zero(found) else text}")
    return "<br>".join(shown)


def _ends(cell: Mapping[str, Any]) -> list[float]:
    half = 0.0 if math.isnan(cell["half_width"]) else cell["half_width"]
    return [cell["mean"] - half, cell["mean"] + half]


def _bar(centre: float, half: float, span: Sequence[float], each: Sequence[float], zero: bool = False) -> str:
    """An interval as a line with its mean, and every seed as a dot."""
    finite = [value for value in span if math.isfinite(value)]
    if not finite or math.isnan(centre):
        return ""
    low, high = min(finite), max(finite)
    scale = (_WIDTH - 12) / ((high - low) or 1.0)

    def x(value: float) -> str:
        return f"{6 + (value - low) * scale:.1f}"

    half = 0.0 if math.isnan(half) else half
    dots = "".join(f'<circle cx="{x(value)}" cy="14" r="2" opacity="0.5"/>' for value in each)
    origin = f'<path d="M{x(0.0)} 0V18" stroke="currentColor" opacity="0.4" stroke-dasharray="2 2"/>' if zero else ""
    label = f"{100 * (centre - half):.2f} to {100 * (centre + half):.2f} percent"
    return (
        f'<svg role="img" aria-label="{label}" width="{_WIDTH}" height="18" fill="currentColor">{origin}'
        f'<path d="M{x(centre - half)} 7H{x(centre + half)}" stroke="currentColor" stroke-width="2"/>'
        f'<circle cx="{x(centre)}" cy="7" r="4"/>{dots}</svg>'
    )


def _updates(summary: Mapping[str, Any], metric: str) -> str:
    """The figure on the selection set against updates of fine-tuning: mean over seeds, 95 % t-interval as a band."""
    curves = {name: row["curves"][metric] for name, row in summary["rows"].items() if row["curves"].get(metric)}
    if not curves:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, runs in curves.items():
        steps = sorted(set.intersection(*({step for step, _ in run} for run in runs)))
        values = np.array([[dict(map(tuple, run))[step] for step in steps] for run in runs]) * 100
        (line,) = axes.plot(steps, values.mean(axis=0), marker=".", label=name)
        if len(runs) > 1:
            band = np.array([half_width(column.tolist()) for column in values.T])
            middle = values.mean(axis=0)
            axes.fill_between(steps, middle - band, middle + band, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(xlabel="updates of fine-tuning", ylabel=f"{metric.replace('_', ' ')}, selection set, %")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    image = io.StringIO()
    figure.savefig(image, format="svg", metadata={"Date": None})
    drawn = image.getvalue()
    return details("Against updates", drawn[drawn.index("<svg") :], open_at_first=metric == summary["metrics"][0])


def _settings(summary: Mapping[str, Any]) -> str:
    rows = {}
    for name, row in summary["rows"].items():
        changed = [f"{key}: {value}" for key, value in row["overrides"].items()]
        changed += [f"without {', '.join(row['skip_stages'])}"] if row["skip_stages"] else []
        found = ", ".join(f"{key} {value:.3g}" for key, value in row["diagnostics"].items())
        cost = "" if math.isnan(row["seconds"]) else f"{row['seconds'] / 60:.1f} min"
        cells = (row["hparams"], "; ".join(changed), ", ".join(map(str, row["updates"])), cost, found)
        rows[name] = map(escape, cells)
    return table(("row", "experiment", "overrides", "updates", "time per run", "prototypes"), rows)
