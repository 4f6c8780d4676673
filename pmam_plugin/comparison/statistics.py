"""From finished runs to figures: means over seeds, paired differences, and what they cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from pmam_plugin.comparison.plan import Comparison, Row, Run
from pmam_plugin.evaluation import read_metrics
from pmam_plugin.files import read_json

# Where metrics.json holds test figures -> what the table calls them.
PROCESSINGS = {"test": "test", "segments": "test, bounding boxes"}
_DIAGNOSTICS = ("entropy", "active", "cosine", "label_information")


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % t-interval of the mean; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def mean(values: Sequence[float]) -> float:
    """Mean; NaN for none."""
    return sum(values) / len(values) if values else math.nan


def gain(values: Mapping[int, float], base: Mapping[int, float]) -> dict[str, Any] | None:
    """How much ``values`` exceed ``base``, seed by seed; None where they share no seed.

    ``relative`` is of the means over the common seeds (NaN over zero), ``difference`` in the metric's own unit with
    ``half_width`` of its 95 % t-interval.
    """
    seeds = sorted(set(values) & set(base))
    if not seeds:
        return None
    differences = [values[seed] - base[seed] for seed in seeds]
    before = mean([base[seed] for seed in seeds])
    return {
        "relative": mean(differences) / before if before else math.nan,
        "difference": mean(differences),
        "half_width": half_width(differences),
        "differences": dict(zip(seeds, differences, strict=True)),
    }


def figures(run: Run, metrics: Sequence[str]) -> dict[str, Any] | None:
    """What a finished run left: test figures, seconds, updates, diagnostics of the last E-step, validation curves."""
    if not (run.folder / "metrics.json").exists():
        return None
    content = read_metrics(run.folder / "metrics.json")
    chosen = content["selected"] if run.row.candidate == "selected" else run.row.candidate
    stages = content["stages"]
    tuned = [name for name in stages if name.startswith("finetune")]
    esteps = sorted(name for name in stages if name.startswith("estep"))
    records = [read_json(path) for path in run.folder.glob("*/*/record.json")]
    last = stages[esteps[-1]] if esteps else {}
    return {
        **{
            processing: {name: content[processing][chosen][name] for name in metrics}
            for processing in PROCESSINGS
            if chosen in content.get(processing, {})
        },
        "seconds": sum(stage.get("seconds", 0.0) for stage in stages.values()),
        "updates": sum(stages[name].get("updates", 0) for name in tuned),
        "diagnostics": {name: last[name] for name in _DIAGNOSTICS if name in last},
        "spent": {record["fingerprint"]: record["seconds"] for record in records},
        "curves": _curves([record for record in records if record["stage"] in tuned], chosen, metrics),
    }


def _curves(records: Sequence[Mapping[str, Any]], chosen: str, metrics: Sequence[str]) -> dict[str, list[list[float]]]:
    """Selection figures against updates of fine-tuning, its stages one after the other."""
    curves: dict[str, list[list[float]]] = {}
    before = 0
    for record in sorted(records, key=lambda record: record["stage"]):
        for name in metrics:
            points = record["curves"].get(f"{chosen}_{name}", [])
            curves.setdefault(name, []).extend([before + step, value] for step, value in points)
        before += record["notes"].get("updates", 0)
    return {name: points for name, points in curves.items() if points}


def summarise(comparison: Comparison, runs: Sequence[Run]) -> dict[str, Any]:
    """Everything that is printed, as JSON-able data."""
    found = {
        row.name: {run.seed: figures(run, comparison.metrics) for run in runs if run.row == row}
        for row in comparison.rows
    }
    done = {name: {seed: item for seed, item in seeds.items() if item} for name, seeds in found.items()}

    def values(name: str, processing: str, metric: str) -> dict[int, float]:
        return {seed: item[processing][metric] for seed, item in done[name].items() if processing in item}

    def cell(row: Row, processing: str, metric: str) -> dict[str, Any]:
        own = values(row.name, processing, metric)
        gains = {name: gain(own, values(name, processing, metric)) for name in row.against}
        each = list(own.values())
        return {"mean": mean(each), "half_width": half_width(each), "values": own, "gains": gains}

    rows = {}
    for row in comparison.rows:
        items = list(done[row.name].values())
        shown = [key for key in PROCESSINGS if any(key in item for item in items)]
        rows[row.name] = {
            "hparams": row.hparams,
            "overrides": dict(row.overrides),
            "skip_stages": row.skip_stages,
            "candidate": row.candidate,
            "missing_seeds": [seed for seed, item in found[row.name].items() if item is None],
            "updates": sorted({item["updates"] for item in items}),
            "seconds": mean([item["seconds"] for item in items]),
            "diagnostics": {
                name: mean([item["diagnostics"][name] for item in items if name in item["diagnostics"]])
                for name in _DIAGNOSTICS
                if any(name in item["diagnostics"] for item in items)
            },
            "curves": {
                name: [item["curves"][name] for item in items if name in item["curves"]] for name in comparison.metrics
            },
            **{key: {metric: cell(row, key, metric) for metric in comparison.metrics} for key in shown},
        }
    spent = {key: value for seeds in done.values() for item in seeds.values() for key, value in item["spent"].items()}
    return {
        "title": comparison.title,
        "seeds": list(comparison.seeds),
        "metrics": list(comparison.metrics),
        "hours": sum(spent.values()) / 3600,
        "rows": rows,
    }


def percent(cell: Mapping[str, Any]) -> str:
    """``mean ± half width`` in percent."""
    if math.isnan(cell["mean"]):
        return "–"
    half = cell["half_width"]
    return f"{100 * cell['mean']:.2f}" + ("" if math.isnan(half) else f" ± {100 * half:.2f}")


def gain_text(name: str, found: Mapping[str, Any] | None) -> str:
    """One gain: relative, and the paired difference in points with its interval."""
    if found is None:
        return ""
    relative = "" if math.isnan(found["relative"]) else f" ({100 * found['relative']:+.1f} %)"
    half = "" if math.isnan(found["half_width"]) else f" ± {100 * found['half_width']:.2f}"
    return f"{100 * found['difference']:+.2f}{half}{relative} on {name}"


def beyond_zero(found: Mapping[str, Any]) -> bool:
    """Whether a difference's interval leaves zero out; False for one seed, which has none."""
    return abs(found["difference"]) > found["half_width"]  # false for NaN


def chance_text(summary: Mapping[str, Any]) -> str:
    """How many intervals leave zero out, beside how many would by luck; empty where there is no interval.

    One 95 % interval in twenty leaves zero out where nothing differs, and a page shows dozens. That holds on average
    for two seeds as for twenty, and whether the figures hang together or not.
    """
    cells = [
        row[key][metric] for row in summary["rows"].values() for key in row.keys() & PROCESSINGS for metric in row[key]
    ]
    gains = [
        found for cell in cells for found in cell["gains"].values() if found and not math.isnan(found["half_width"])
    ]
    if not gains:
        return ""
    beyond = sum(map(beyond_zero, gains))
    luck = f"{len(gains) / 20:.1f} would if nothing differed"
    return f"{beyond} of {len(gains)} differences have an interval without zero, {luck}"


def markdown(summary: Mapping[str, Any]) -> str:
    """A table of figures, and one of paired differences where rows are held against others."""
    metrics, rows = summary["metrics"], summary["rows"]
    seeds = ", ".join(map(str, summary["seeds"]))
    lines = [f"**{summary['title']}**", "", f"Percent; mean ± 95 % t-interval over seeds {seeds}.", ""]
    heads = ["row", *(metric.replace("_", " ") for metric in metrics), "updates", "minutes", "missing seeds"]
    lines += _table(heads, _figure_rows(summary))
    paired = [
        [f"{name}, {PROCESSINGS[key]}", *("; ".join(_gains(row[key][metric])) for metric in metrics)]
        for key in PROCESSINGS
        for name, row in rows.items()
        if key in row and any(row[key][metric]["gains"] for metric in metrics)
    ]
    if paired:
        chance = f" {text}." if (text := chance_text(summary)) else ""
        lines += ["", f"Differences in points, paired by seed, ± 95 % t-interval.{chance}", ""]
        lines += _table(["row", *heads[1 : 1 + len(metrics)]], paired)
    diagnosed = {name: row["diagnostics"] for name, row in rows.items() if row["diagnostics"]}
    if diagnosed:
        lines += ["", "Prototypes of the last E-step.", ""]
        shown = ["posterior entropy, nats", "active", "mean pairwise cosine", "mutual information with labels"]
        cells = [
            [name, *(f"{found.get(key, math.nan):.3g}" for key in _DIAGNOSTICS)] for name, found in diagnosed.items()
        ]
        lines += _table(["row", *shown], cells)
    return "\n".join([*lines, "", f"{summary['hours']:.1f} hours of stages in all, common ones counted once.", ""])


def _figure_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    cells = []
    for key, title in PROCESSINGS.items():
        for name, row in summary["rows"].items():
            if key in row or key == "test":
                shown = [percent(row[key][metric]) if key in row else "–" for metric in summary["metrics"]]
                cost = ["", "", ""]
                if key == "test":
                    minutes = "–" if math.isnan(row["seconds"]) else f"{row['seconds'] / 60:.1f}"
                    missing = ", ".join(map(str, row["missing_seeds"])) or "none"
                    cost = [", ".join(map(str, row["updates"])), minutes, missing]
                cells.append([f"{name}, {title}", *shown, *cost])
    return cells


def _gains(cell: Mapping[str, Any]) -> list[str]:
    return [text for name, found in cell["gains"].items() if (text := gain_text(name, found))]


def _table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    def line(parts: Sequence[str]) -> str:
        return "| " + " | ".join(part.replace("|", "\\|") for part in parts) + " |"

    return [line(heads), "|---" * len(heads) + "|", *map(line, cells)]


def to_json(summary: Mapping[str, Any]) -> str:
    """The summary as JSON (not a number becomes null)."""
    plain = json.loads(json.dumps(summary), parse_constant=lambda _: None)
    return json.dumps(plain, indent=1, ensure_ascii=False)
