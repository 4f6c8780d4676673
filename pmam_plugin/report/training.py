"""``report.html`` of a training run: what was set, how it went, what came out, and six clips to judge by ear."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pmam_plugin.evaluation.figures import CLASS_FIGURES, FIGURES
from pmam_plugin.evaluation.mistakes import Mistake, Mistakes, OperatingCurve
from pmam_plugin.evaluation.psds import MAX_RATE, PSDROC
from pmam_plugin.postprocessing.per_class import PerClass
from pmam_plugin.report.page import details, duration_text, escape, facts_table, number, section, table, write_page
from pmam_plugin.report.recording import DetectedRecording, recording_data
from pmam_plugin.report.wrong import mistakes_data, mistakes_section, thresholds_data, thresholds_section

_SCRIPTS = ("charts.js", "player.js", "mistakes.js", "training.js")


@dataclass
class StageSummary:
    """What a stage of the run reported.

    Attributes:
        name: unique in the run.
        seconds: how long it took.
        skipped: it was finished before, and not run again.
        curves: name -> points ``[optimiser step, value]``; ``train_x`` and ``validation_x`` share a chart.
        notes: figures and facts. An E-step's ``weights`` (share of every prototype) are drawn as bars.
    """

    name: str
    seconds: float = 0.0
    skipped: bool = False
    curves: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class TrainingReport:
    """Everything the page shows.

    Attributes:
        title: of the page.
        summary: how good it is, in a sentence or two of plain text.
        configuration: the experiment's YAML text.
        stages: in the order they ran.
        metrics: as in ``metrics.json``: ``validation -> student | teacher -> {metric, metric_ci, per_class}``.
        psd_roc: name (``PSDS1``, ``PSDS2``) -> its curves.
        clips: examples from the test set.
        mistakes: of the test set.
        mistake_examples: some of them, each with the sound around it.
        operating: recall and false alarms of every class over its thresholds.
        thresholds: of the model, for all classes or per class.
        hours: that the test set lasts.
        provenance: seed, version, data, ...: shown as a table.
    """

    title: str
    summary: str = ""
    configuration: str = ""
    stages: Sequence[StageSummary] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    psd_roc: Mapping[str, PSDROC] = field(default_factory=dict)
    clips: Sequence[DetectedRecording] = ()
    mistakes: Mistakes | None = None
    mistake_examples: Sequence[tuple[Mistake, DetectedRecording]] = ()
    operating: Mapping[str, OperatingCurve] = field(default_factory=dict)
    thresholds: PerClass = 0.5
    hours: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)


def write_training_report(path: str | os.PathLike[str], report: TrainingReport) -> None:
    """Write the page, atomically, without parts that are empty; six clips of 10 s make it about 1.5 MB.

    Raises:
        InputError: the page cannot be written.
    """
    results: Mapping[str, Mapping[str, Any]] = report.metrics.get("test", {})
    boxes: Mapping[str, Mapping[str, Any]] = report.metrics.get("segments", {})
    selected = boxes if report.metrics.get("selected_processing") == "segments" else results
    per_class = class_figures(results)
    parts = [
        f'<p class="notice summary">{escape(report.summary)}</p>' if report.summary else "",
        _tiles(selected, report.metrics.get("selected")),
        _results(results, boxes, report.metrics.get("events", {})),
        _roc(report.psd_roc),
        _classes(per_class),
        _labels(report.stages),
        mistakes_section(report.mistakes),
        thresholds_section(report.operating),
        _clips(report.clips),
        _prototypes(report.stages),
        _stages(report.stages),
        section("configuration", "Configuration", details("YAML", f"<pre>{_highlighted(report.configuration)}</pre>"))
        if report.configuration
        else "",
        section("provenance", "Provenance", facts_table(report.provenance)),
    ]
    data: dict[str, Any] = {
        "stages": [{"name": stage.name, "curves": stage.curves, "usage": _usage(stage)} for stage in report.stages],
        "psd_roc": {name: roc_curves(roc) for name, roc in report.psd_roc.items()},
        "per_class": per_class,
        "learning": _learning(report.stages),
        "clips": [recording_data(clip) for clip in report.clips],
        "mistakes": mistakes_data(
            report.mistakes, report.hours, [(found, recording_data(clip)) for found, clip in report.mistake_examples]
        ),
        "thresholds": thresholds_data(
            report.operating, report.mistakes.events if report.mistakes else {}, report.thresholds
        ),
    }
    shown = [*data["clips"], *(example["recording"] for example in (data["mistakes"] or {}).get("examples", []))]
    labels = dict.fromkeys([lane["label"] for clip in shown for lane in clip["lanes"]])
    data["colours"] = {label: number for number, label in enumerate([*labels, *report.operating])}
    write_page(path, report.title, _subtitle(report), "".join(parts), data, _SCRIPTS)


def class_figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Figures per class of every system, by metric: ``{"names": systems, "metrics": {metric: [[label, [values]]]}}``.

    ``results`` are the metrics of each system, with ``per_class``: ``{label: {metric: share of 1, or None}}``.
    """
    tables = {name: metrics["per_class"] for name, metrics in results.items() if metrics.get("per_class")}
    labels = list(dict.fromkeys(label for table in tables.values() for label in table))
    rows = [row for table in tables.values() for row in table.values()]
    # A class also has its number of events, which is no share.
    metrics = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "events"]
    return {
        "names": list(tables),
        "metrics": {
            metric: [[label, [table.get(label, {}).get(metric) for table in tables.values()]] for label in labels]
            for metric in metrics
        },
    }


def roc_curves(roc: PSDROC) -> dict[str, Any]:
    """A PSD-ROC as the page draws it: the curve of all classes, and of each."""
    classes = {label: _points(rate, ratio) for label, (rate, ratio) in roc.class_curves.items()}
    return {"all": _points(roc.rate, roc.ratio), "classes": classes, "value": roc.value}


def _points(x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    """``[false positives per hour, true positive ratio]`` at up to 300 corners of a staircase."""
    x, y = x[x <= MAX_RATE], y[x <= MAX_RATE]
    # Corners closer than the line is wide cannot be seen.
    slots = np.floor(x / MAX_RATE * 300)
    kept = np.append(slots[1:] != slots[:-1], True) if len(x) else np.zeros(0, dtype=bool)
    return np.column_stack([x[kept], y[kept]]).tolist()


def _subtitle(report: TrainingReport) -> str:
    total = sum(stage.seconds for stage in report.stages)
    return f"{len(report.stages)} stages in {duration_text(total)}" if report.stages else ""


def _tiles(results: Mapping[str, Mapping[str, Any]], selected: str | None) -> str:
    name = selected if selected in results else next(reversed(list(results)), None)
    if name is None:
        return ""
    metrics = results[name]
    shown = [
        key
        for key in ("psds1", "psds1_mean", "psds2", "event_f1_macro", "segment_f1_macro", "clip_f1_macro")
        if key in metrics
    ]
    tiles = "".join(
        f'<div class="tile"><div class="what">{escape(FIGURES[key])}</div>'
        f'<div class="figure">{_percentage(metrics[key])}</div><div class="range">{_interval(metrics, key)}</div></div>'
        for key in shown
    )
    return f'<div class="tiles" aria-label="Results of the {escape(name)}">{tiles}</div>'


def _results(
    results: Mapping[str, Mapping[str, Any]],
    segments: Mapping[str, Mapping[str, Any]],
    events: Mapping[str, Mapping[str, Any]],
) -> str:
    systems = {
        **results,
        **{f"{name}, SEBB": figures for name, figures in segments.items()},
        **{f"{name}, own events": figures for name, figures in events.items()},
    }
    keys = [key for key in FIGURES if any(key in metrics for metrics in systems.values())]
    if not keys:
        return ""
    rows = {
        FIGURES[key]: [
            f"<b>{_percentage(metrics.get(key))}</b> <small>{_interval(metrics, key)}</small>"
            for metrics in systems.values()
        ]
        for key in keys
    }
    body = f'<div class="scroll">{table(["", *systems], rows, "results")}</div>'
    return section("results", "Results on the test set", body, "In percent, with 95 % bootstrap intervals over clips.")


def _roc(curves: Mapping[str, Any]) -> str:
    if not curves:
        return ""
    hosts = "".join(
        f'<div class="card"><h3>{escape(name)}</h3><div data-roc="{escape(name)}" data-tint="{tint}"></div></div>'
        for tint, name in enumerate(curves)
    )
    lead = (
        "Effective true positive ratio against false positives per hour; the score is the shaded area. "
        "Thin lines are single classes."
    )
    return section("psd-roc", "PSD-ROC", f'<div class="two">{hosts}</div>', lead)


def _classes(figures: Mapping[str, Any]) -> str:
    if not figures["metrics"]:
        return ""
    preferred = [metric for metric in ("psds1", "event_f1") if metric in figures["metrics"]]
    options = "".join(
        f'<option value="{escape(metric)}"{" selected" if preferred[:1] == [metric] else ""}>'
        f"{escape(CLASS_FIGURES.get(metric, metric))}</option>"
        for metric in figures["metrics"]
    )
    select = f'<select id="class-metric">{options}</select>'
    choice = f'<p class="controls-line"><label for="class-metric">Metric</label> {select}</p>'
    return section("classes", "Classes", f'{choice}<div id="class-bars"></div>')


def _learning(stages: Sequence[StageSummary]) -> list[Mapping[str, Any]]:
    """The points of the learning curve, if the run measured one."""
    return next((list(stage.notes["points"]) for stage in stages if stage.notes.get("points")), [])


def _labels(stages: Sequence[StageSummary]) -> str:
    if not _learning(stages):
        return ""
    lead = (
        "Event F1 on the same test set, learned from a part of the labelled recordings. Thin lines are single classes."
    )
    return section("labels", "Would more labels help?", '<div id="learning-curve"></div>', lead)


def _clips(clips: Sequence[DetectedRecording]) -> str:
    hosts = "".join(f'<div id="clip-{index}"></div>' for index in range(len(clips)))
    lead = "Press play, or click into a picture to jump there. Space, arrows and N / P act on the player used last."
    return section("clips", "Clips of the test set", hosts, lead)


def _prototypes(stages: Sequence[StageSummary]) -> str:
    cards = "".join(
        f'<div class="card"><h3>{escape(stage.name)}</h3>{_facts(stage)}<div data-weights="{index}"></div></div>'
        for index, stage in enumerate(stages)
        if _usage(stage)
    )
    if not cards:
        return ""
    lead = (
        "What every E-step found: how many prototypes are in use, and how undecided a frame's posterior is (in nats)."
    )
    return section("prototypes", "Prototypes", f'<div class="two">{cards}</div>', lead)


def _usage(stage: StageSummary) -> list[float] | None:
    """Share of the frames that every prototype takes, if the stage was an E-step."""
    return list(stage.notes.get("weights", ())) or None


def _stages(stages: Sequence[StageSummary]) -> str:
    if not stages:
        return ""
    total = sum(stage.seconds for stage in stages) or 1.0
    begin, rows, curves = 0.0, "", ""
    for stage in stages:
        left, width = 100 * begin / total, 100 * stage.seconds / total
        begin += stage.seconds
        spent = "done before" if stage.skipped else duration_text(stage.seconds)
        rows += (
            f'<div class="stage-row{" skipped" if stage.skipped else ""}"><span>{escape(stage.name)}</span>'
            f'<span class="when"><i style="left:{left:.2f}%;width:{width:.2f}%"></i></span>'
            f'<span class="seconds">{escape(spent)}</span></div>'
        )
        facts = _facts(stage)
        if stage.curves:
            curves += (
                f'<h3>{escape(stage.name)}</h3>{facts}<div class="charts" data-curves="{escape(stage.name)}"></div>'
            )
        elif facts and not _usage(stage):
            curves += f"<h3>{escape(stage.name)}</h3>{facts}"
    timeline = section("stages", "Stages", f'<div class="timeline">{rows}</div>')
    return timeline + section("curves", "Curves", curves)


def _facts(stage: StageSummary) -> str:
    """What a stage has noted, but for lists and tables; empty for nothing."""
    items = "".join(
        f"<span>{escape(key.replace('_', ' '))} <b>{escape(number(value))}</b></span>"
        for key, value in stage.notes.items()
        if not isinstance(value, list | dict)
    )
    return f'<div class="stage-facts">{items}</div>' if items else ""


def _percentage(value: Any) -> str:
    return f"{100 * value:.1f}" if isinstance(value, int | float) and np.isfinite(value) else "–"


def _interval(metrics: Mapping[str, Any], key: str) -> str:
    interval = metrics.get(f"{key}_ci")
    return "" if not interval else f"{_percentage(interval[0])} – {_percentage(interval[1])}"


def _highlighted(text: str) -> str:
    """YAML with its keys, tags and comments coloured."""
    lines = []
    for line in text.splitlines():
        code, mark, comment = line.partition(" #") if not line.lstrip().startswith("#") else ("", "", line)
        code = escape(code)
        code = re.sub(r"^(\s*(?:- )?)([\w.-]+)(:)(?=\s|$)", r'\1<span class="yaml-key">\2</span>\3', code)
        code = re.sub(r"(![\w.:]+|&lt;[\w.]+&gt;)", r'<span class="yaml-tag">\1</span>', code)
        tail = f'<span class="yaml-comment">{escape(mark + comment)}</span>' if comment else ""
        lines.append(code + tail)
    return "\n".join(lines)
