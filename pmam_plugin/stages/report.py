"""The report of a run, and the closing table on the terminal."""

from __future__ import annotations

import platform
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from pmam_plugin import __version__
from pmam_plugin.audio import read_audio
from pmam_plugin.checkpoints import load_model
from pmam_plugin.config import configurable
from pmam_plugin.data import TRAINING_SUBSETS, Clip
from pmam_plugin.evaluation import psd_roc, read_metrics, read_scores
from pmam_plugin.evaluation.mistakes import Mistake, Mistakes, find_mistakes, operating_curves
from pmam_plugin.models import SoundEventModel
from pmam_plugin.postprocessing.per_class import PerClass
from pmam_plugin.report.media import SAMPLE_RATE
from pmam_plugin.report.recording import DetectedRecording
from pmam_plugin.report.training import StageSummary, TrainingReport, write_training_report
from pmam_plugin.report.verdict import verdict
from pmam_plugin.stages.context import RunContext, Stage, StageResult
from pmam_plugin.stages.evaluate import GROUPS

_CLIPS = 6  # of the test set that are shown
_MISTAKES = 40  # excerpts of what the model gets wrong, at most
_SHOWN_OF_A_KIND = 3
_MARGIN_SECONDS, _EXCERPT_SECONDS = 1.5, 10.0

HEADLINES = ("psds1", "psds2", "psds1_mean", "event_f1_macro", "event_f1_micro", "segment_f1_macro", "clip_f1_macro")


@configurable
class Report(Stage):
    """Write ``report.html``: configuration, curves, prototypes, metrics, and clips to look at and listen to.

    Args:
        model: the detector that was evaluated.
        title: of the page.
    """

    reports = True
    name = "report"

    def __init__(self, model: SoundEventModel, title: str) -> None:
        self.model, self.title = model, title

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        path = context.folder / "report.html"
        if if_main_process():
            settings = context.folder / "hyperparams.yaml"
            report = TrainingReport(
                title=self.title,
                configuration=settings.read_text(encoding="utf-8") if settings.exists() else "",
                stages=[
                    StageSummary(record.stage, record.seconds, record.skipped, record.curves, record.notes)
                    for record in context.records
                ],
                metrics=read_metrics(context.artifacts["metrics.json"]),
                provenance={
                    "pmam_plugin": __version__,
                    "torch": torch.__version__,
                    "python": platform.python_version(),
                    "seed": context.seed,
                    "data": context.data.description,
                },
                **(self._test_set(context) if "scores" in context.artifacts else {}),
            )
            write_training_report(path, report)
        ddp_barrier()
        return StageResult({"report.html": path})

    def _test_set(self, context: RunContext) -> dict[str, Any]:
        """What the page says of the test set: figures in words, PSD-ROCs, clips, mistakes and other thresholds."""
        scores = read_scores(context.artifacts["scores"])
        postprocessing = load_model(context.artifacts["model"]).scoring.postprocessing
        events, durations = context.data.events("test"), context.data.durations("test")
        labels = list(self.model.labels)
        detected = pd.concat([postprocessing.events(table, name) for name, table in scores.items()], ignore_index=True)
        mistakes = find_mistakes(detected, events, labels)
        clips = {clip.id: clip for clip in context.data.manifests["test"].clips}

        def shown(name: str, span: tuple[float, float] | None = None) -> DetectedRecording:
            return _shown(clips[name], scores[name], detected, events, postprocessing.threshold, span)

        # Clips spread over the test set, those with the most classes first.
        variety = events.groupby("filename").event_label.nunique().sort_values(ascending=False, kind="stable")
        chosen = list(variety.index[:: max(1, len(variety) // _CLIPS)])[:_CLIPS]
        return {
            "summary": run_verdict(context),
            "psd_roc": {name.upper(): psd_roc(scores, events, durations, labels, name) for name in ("psds1", "psds2")},
            "clips": [shown(name) for name in chosen],
            "mistakes": mistakes,
            "mistake_examples": [
                (mistake, shown(mistake.clip, (mistake.onset, mistake.offset)))
                for mistake in chosen_mistakes(mistakes, _MISTAKES)
            ],
            "operating": operating_curves(scores, events, durations, labels),
            "thresholds": postprocessing.threshold,
            "hours": sum(durations.values()) / 3600,
        }


def chosen_mistakes(mistakes: Mistakes, most: int) -> list[Mistake]:
    """Those to listen to: of every class and kind up to three, the worst edges and the longest events first, spread
    evenly where that is too many."""
    groups: dict[tuple[str, str], list[Mistake]] = {}
    for mistake in mistakes.found:
        groups.setdefault((mistake.label, mistake.kind), []).append(mistake)
    for group in groups.values():
        group.sort(key=lambda mistake: (-mistake.seconds, mistake.onset - mistake.offset))
    rounds = [group[place] for place in range(_SHOWN_OF_A_KIND) for group in groups.values() if place < len(group)]
    return rounds[:most]


def _shown(
    clip: Clip,
    scores: pd.DataFrame,
    detected: pd.DataFrame,
    truth: pd.DataFrame,
    threshold: PerClass,
    span: tuple[float, float] | None,
) -> DetectedRecording:
    """A clip, or the sound around a span of it (onset and offset, s), with what is there and what was found."""
    name, begin, end = clip.path.name, 0.0, clip.seconds
    detected, truth = detected[detected.filename == clip.id], truth[truth.filename == clip.id]
    if span is not None:
        begin = max(0.0, span[0] - _MARGIN_SECONDS)
        end = min(clip.seconds, span[1] + _MARGIN_SECONDS, begin + _EXCERPT_SECONDS)
        name = f"{name}, from {begin:.1f} s"
        scores, detected, truth = (_within(table, begin, end) for table in (scores, detected, truth))
    wave = read_audio(clip.source, SAMPLE_RATE, clip.start + begin, end - begin)
    return DetectedRecording(name, (wave.numpy(), SAMPLE_RATE), detected, scores, truth=truth, thresholds=threshold)


def _within(table: pd.DataFrame, begin: float, end: float) -> pd.DataFrame:
    """The rows between two times, s, counted from the first."""
    inside = table[(table["onset"] < end) & (table["offset"] > begin)]
    return inside.assign(onset=(inside["onset"] - begin).clip(lower=0.0), offset=inside["offset"] - begin)


def run_verdict(context: RunContext) -> str:
    """How good the model of a run is, in a sentence or two (:func:`pmam_plugin.report.verdict.verdict`)."""
    metrics = read_metrics(context.folder / "metrics.json")
    figures = metrics[GROUPS[metrics["selected_processing"]]][metrics["selected"]]
    learned = Counter(dict.fromkeys(context.data.labels, 0))
    for name in TRAINING_SUBSETS:
        learned.update(context.data.report["subsets"].get(name, {}).get("labels", {}))
    durations = context.data.durations("test")
    points: list[Any] = next((record.notes["points"] for record in context.records if "points" in record.notes), [])
    return verdict(figures, learned, len(durations), sum(durations.values()), points)


def summary_table(context: RunContext) -> str:
    """Closing table of a run: metrics with intervals, time per stage, and where the report is."""
    lines = [""]
    path = context.folder / "metrics.json"
    if path.exists():
        lines += _metric_lines(read_metrics(path))
    lines += ["", f"{'stage':<16}{'seconds':>9}"]
    lines += [f"{r.stage:<16}{r.seconds:>9.1f}{'   (done before)' if r.skipped else ''}" for r in context.records]
    report = context.folder / "report.html"
    if report.exists():
        lines += ["", f"report: {report}"]
    return "\n".join(lines)


def _metric_lines(metrics: dict[str, Any]) -> list[str]:
    lines = []
    choice = metrics.get("selected"), metrics.get("selected_processing", "filters")
    groups = (
        ("filtered", "filters", "test"),
        ("bounding boxes", "segments", "segments"),
        ("own events at 0.5", "events", "events"),
    )
    for title, processing, group in groups:
        for candidate, values in metrics.get(group, {}).items():
            chosen = "  <- model/" if (candidate, processing) == choice else ""
            lines.append(f"{candidate}, {title}{chosen}")
            for name in HEADLINES:
                if name in values:
                    low, high = values.get(f"{name}_ci") or (float("nan"), float("nan"))
                    lines.append(f"  {name:<18}{values[name]:>8.4f}   95 % interval [{low:.4f}, {high:.4f}]")
    return lines or ["no test set, hence no figures"]
