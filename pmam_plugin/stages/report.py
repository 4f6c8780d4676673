"""The report of a run, and the closing table on the terminal."""

from __future__ import annotations

import platform
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
from pmam_plugin.postprocessing import PostProcessing
from pmam_plugin.report.training import ClipExample, StageRecord, TrainingReport, write_training_report
from pmam_plugin.report.verdict import verdict
from pmam_plugin.stages.context import RunContext, Stage, StageResult
from pmam_plugin.stages.evaluate import GROUPS

_SHOWN_OF_A_KIND = 3
_MARGIN_SECONDS, _EXCERPT_SECONDS = 1.5, 10.0

HEADLINES = ("psds1", "psds2", "psds1_mean", "event_f1_macro", "event_f1_micro", "segment_f1_macro", "clip_f1_macro")


@configurable
class Report(Stage):
    """Write ``report.html``: configuration, curves, prototypes, metrics, and clips to look at and listen to.

    Args:
        model: the detector that was evaluated.
        title: of the page.
        clips: validation clips shown.
        mistakes: excerpts of what it gets wrong, at most.
    """

    reports = True
    name, folder = "report", "stages/report"

    def __init__(self, model: SoundEventModel, title: str, clips: int = 6, mistakes: int = 40) -> None:
        self.model, self.title, self.clips, self.mistakes = model, title, clips, mistakes

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        path = context.folder / "report.html"
        if if_main_process():
            scores = read_scores(context.artifacts["scores"]) if "scores" in context.artifacts else None
            metrics = read_metrics(context.artifacts["metrics.json"])
            postprocessing = load_model(context.artifacts["model"]).postprocessing
            report = TrainingReport(
                title=self.title,
                summary="" if scores is None else run_verdict(context),
                configuration=_configuration(context.folder),
                stages=[
                    StageRecord(record.stage, record.seconds, record.skipped, record.curves, record.notes)
                    for record in context.records
                ],
                metrics=metrics,
                psd_roc={} if scores is None else self._curves(context, scores),
                clips=[] if scores is None else self._examples(context, scores, postprocessing),
                **({} if scores is None else self._wrong(context, scores, postprocessing)),
                provenance={
                    "pmam_plugin": __version__,
                    "torch": torch.__version__,
                    "python": platform.python_version(),
                    "seed": context.seed,
                    "data": context.data.description,
                },
            )
            write_training_report(path, report)
        ddp_barrier()
        return StageResult({"report.html": path})

    def _curves(self, context: RunContext, scores: dict[str, pd.DataFrame]) -> dict[str, Any]:
        """The PSD-ROCs of both scenarios."""
        events, durations = context.data.events("test"), context.data.durations("test")
        labels = list(self.model.labels)
        return {name.upper(): psd_roc(scores, events, durations, labels, name) for name in ("psds1", "psds2")}

    def _examples(
        self, context: RunContext, scores: dict[str, pd.DataFrame], postprocessing: PostProcessing
    ) -> list[ClipExample]:
        """Clips spread over the test set, those with the most classes first."""
        events = context.data.events("test")
        clips = {clip.id: clip for clip in context.data.manifests["test"].clips}
        variety = events.groupby("filename").event_label.nunique().sort_values(ascending=False, kind="stable")
        chosen = list(variety.index[:: max(1, len(variety) // self.clips)])[: self.clips]
        examples = []
        for name in chosen:
            clip = clips[name]
            wave = read_audio(clip.source, 16000)
            examples.append(
                ClipExample(
                    name=clip.path.name,
                    wave=wave.numpy(),
                    sample_rate=16000,
                    truth=events[events.filename == name],
                    scores=scores[name],
                    detected=postprocessing.events(scores[name], name),
                    thresholds=postprocessing.threshold,
                )
            )
        return examples

    def _wrong(
        self, context: RunContext, scores: dict[str, pd.DataFrame], postprocessing: PostProcessing
    ) -> dict[str, Any]:
        """What the model gets wrong on the test set, and what other thresholds would bring."""
        events, durations = context.data.events("test"), context.data.durations("test")
        labels = list(self.model.labels)
        detected = pd.concat([postprocessing.events(table, name) for name, table in scores.items()], ignore_index=True)
        mistakes = find_mistakes(detected, events, labels)
        clips = {clip.id: clip for clip in context.data.manifests["test"].clips}
        examples = [
            (mistake, _excerpt(mistake, clips[mistake.clip], scores[mistake.clip], detected, events, postprocessing))
            for mistake in chosen_mistakes(mistakes, self.mistakes)
        ]
        return {
            "mistakes": mistakes,
            "mistake_examples": examples,
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


def _excerpt(
    mistake: Mistake,
    clip: Clip,
    scores: pd.DataFrame,
    detected: pd.DataFrame,
    truth: pd.DataFrame,
    postprocessing: PostProcessing,
) -> ClipExample:
    """The sound around a mistake, with what is there and what was found."""
    begin = max(0.0, mistake.onset - _MARGIN_SECONDS)
    end = min(clip.seconds, mistake.offset + _MARGIN_SECONDS, begin + _EXCERPT_SECONDS)
    wave = read_audio(clip.source, 16000, clip.start + begin, end - begin)

    def within(table: pd.DataFrame) -> pd.DataFrame:
        inside = table[(table["onset"] < end) & (table["offset"] > begin)]
        return inside.assign(onset=(inside["onset"] - begin).clip(lower=0.0), offset=inside["offset"] - begin)

    return ClipExample(
        name=f"{clip.path.name}, from {begin:.1f} s",
        wave=wave.numpy(),
        sample_rate=16000,
        truth=within(truth[truth.filename == mistake.clip]),
        scores=within(scores),
        detected=within(detected[detected.filename == mistake.clip]),
        thresholds=postprocessing.threshold,
    )


def run_verdict(context: RunContext) -> str:
    """How good the model of a run is, in a sentence or two (:func:`pmam_plugin.report.verdict.verdict`)."""
    metrics = read_metrics(context.folder / "metrics.json")
    figures = metrics[GROUPS[metrics["selected_processing"]]][metrics["selected"]]
    learned: dict[str, int] = dict.fromkeys(context.data.labels, 0)
    for name in TRAINING_SUBSETS:
        learned |= {
            label: learned[label] + count
            for label, count in context.data.report["subsets"].get(name, {}).get("labels", {}).items()
        }
    durations = context.data.durations("test")
    points: list[Any] = next((record.notes["points"] for record in context.records if "points" in record.notes), [])
    return verdict(figures, learned, len(durations), sum(durations.values()), points)


def summary_table(context: RunContext) -> str:
    """Closing table of a run: metrics with intervals, time per stage, and where the report is."""
    lines = [""]
    path = context.folder / "metrics.json"
    if path.exists():
        metrics = read_metrics(path)
        lines += _metric_lines(metrics)
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


def _configuration(folder: Path) -> str:
    path = folder / "hyperparams.yaml"
    return path.read_text(encoding="utf-8") if path.exists() else ""
