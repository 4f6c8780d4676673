"""Recordings and pages small enough for tests, with sounds and events at known times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pmam_plugin.evaluation.psds import PSDROC
from pmam_plugin.explorer import Excerpt, PrototypeIteration, PrototypeReport, write_prototype_report
from pmam_plugin.explorer.statistics import discriminant_map, principal_map
from pmam_plugin.report import (
    DetectedRecording,
    StageSummary,
    TrainingReport,
    write_detection_report,
    write_training_report,
)

RATE = 16_000
LABELS = ("Cat", "Dog", "Electric_shaver_toothbrush_or_hair_dryer")  # names are as long as people make them
EVENTS = pd.DataFrame(
    [[1.0, 2.0, "Cat", 0.9], [3.5, 3.75, "Cat", 0.6], [0.5, 3.0, "Dog", 0.8]],
    columns=["onset", "offset", "event_label", "score"],
)


def wave(seconds: float = 4.0) -> np.ndarray:
    """Quiet noise with a loud click at exactly 1 s."""
    samples = np.random.default_rng(0).normal(0, 0.003, round(seconds * RATE)).astype(np.float32)
    samples[RATE : RATE + 32] = 0.9
    return samples


def scores(events: pd.DataFrame = EVENTS, seconds: float = 4.0, rate: float = 25.0) -> pd.DataFrame:
    """0.8 inside of events, 0.1 outside."""
    onsets = np.arange(round(seconds * rate)) / rate
    table = pd.DataFrame({"onset": onsets, "offset": onsets + 1 / rate})
    for label in LABELS:
        table[label] = 0.1
        for row in events[events.event_label == label].itertuples():
            table.loc[(onsets >= row.onset - 1e-9) & (onsets < row.offset - 1e-9), label] = 0.8
    return table


def detection_page(folder: Path) -> Path:
    nothing = EVENTS.iloc[:0]
    recordings = [
        DetectedRecording("kitchen.wav", (wave(), RATE), EVENTS, scores(), thresholds={"Cat": 0.5, "Dog": 0.04}),
        DetectedRecording("</script><b>hall.wav", (wave(2.0), RATE), nothing, scores(nothing, 2.0)),
    ]
    write_detection_report(folder / "detect.html", recordings, provenance={"model": "small & <new>", "threshold": 0.5})
    return folder / "detect.html"


def figures(value: float) -> dict[str, object]:
    keys = ("psds1", "psds1_mean", "psds2", "event_f1_macro", "segment_f1_macro", "clip_f1_macro")
    overall = {key: value for key in keys} | {f"{key}_ci": [value - 0.05, value + 0.05] for key in keys}
    classes = {label: {"events": 3, "psds1": value, "event_f1": None if label == "Dog" else 0.5} for label in LABELS}
    return {**overall, "per_class": classes}


def roc(rate: list[float], ratio: list[float]) -> PSDROC:
    curve = np.array(rate), np.array(ratio)
    return PSDROC(0.4, 0.4, *curve, {"Cat": 0.4}, {"Cat": curve})


def training_report(clips: int = 6, seconds: float = 4.0) -> TrainingReport:
    curve = [[step, 1 / step] for step in range(10, 200, 10)]
    truth = EVENTS[["onset", "offset", "event_label"]]
    return TrainingReport(
        title="A run",
        configuration="seed: 1  # fixed\nmodel: !new:a.B\n    classes: !ref <labels>\n",
        stages=[
            StageSummary("prepare", 1.5, notes={"clips": 12}),
            StageSummary("estep_1", 4.0, notes={"prototypes": 3, "mean_entropy": 0.2, "weights": [0.5, 0.3, 0.2]}),
            StageSummary(
                "pretrain_1",
                60.0,
                curves={"train_loss": curve, "validation_loss": curve[::4], "student_psds1": [[7, 0.25]]},
            ),
            StageSummary("finetune_1", 120.0, skipped=True, curves={"consistency": [[1, float("nan")], [2, 0.5]]}),
        ],
        metrics={"test": {"student": figures(0.3), "teacher": figures(0.4)}, "selected": "teacher"},
        psd_roc={"PSDS1": roc([0.0, 1.0, 20.0], [0.0, 0.1, 0.5]), "PSDS2": roc([0.0], [0.0])},
        clips=[
            DetectedRecording(f"clip{i}", (wave(seconds), RATE), EVENTS, scores(seconds=seconds), truth=truth)
            for i in range(clips)
        ],
        provenance={"seed": 1},
    )


def training_page(folder: Path) -> Path:
    write_training_report(folder / "training.html", training_report())
    return folder / "training.html"


def prototype_iteration(name: str = "iteration 1", prototypes: int = 6, seed: int = 0) -> PrototypeIteration:
    random = np.random.default_rng(seed)
    means = random.normal(size=(prototypes, 3)) * 3
    covariances = np.stack([np.eye(3)] * prototypes)
    weights = random.dirichlet(np.ones(prototypes))
    # Prototype 1 has no excerpt at all.
    excerpts = [
        [Excerpt(f"clip{i}", 1.0, wave(1.0), ["Cat"], np.linspace(0, 1, 25)) for i in range(0 if k == 1 else 5)]
        for k in range(prototypes)
    ]
    return PrototypeIteration(
        name=name,
        weights=weights,
        labels=LABELS,
        joint=random.random((prototypes, len(LABELS) + 1)) * 100,
        entropies=random.integers(0, 100, 40),
        mean_entropy=0.5,
        maps={
            "Discriminant": discriminant_map(means, covariances, weights),
            "Principal": principal_map(means, None, weights),
        },
        excerpts=excerpts,
        durations=np.full(prototypes, 0.4),
        clip_shares=np.full(prototypes, 0.5),
        spectra=random.random((prototypes, 64)) * 30,
        facts={"embedding": "mel"},
    )


def prototype_page(folder: Path) -> Path:
    iterations = [prototype_iteration(), prototype_iteration("iteration 2", seed=1)]
    write_prototype_report(folder / "prototypes.html", PrototypeReport(iterations, {"run": "1"}))
    return folder / "prototypes.html"
