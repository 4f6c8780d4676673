"""Draw the README's picture from a finished run: a test clip, its prototypes, and what the detector found in it.

    python docs/make_picture.py results/pmam_demo

Any output folder will do; prototypes are shown of a PMAM run with two iterations or more. The clip is one of the test
set, on which nothing was trained or tuned: of those with at least three classes and five events, the one in which the
detector agrees best with the annotation.
"""

from __future__ import annotations

import argparse
import copy
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot
from PIL import Image
from safetensors.torch import load_file

from pmam_plugin import SoundEventDetector
from pmam_plugin.audio import read_audio
from pmam_plugin.data import load_prepared
from pmam_plugin.evaluation import read_scores
from pmam_plugin.files import read_json
from pmam_plugin.models import FrameDetector
from pmam_plugin.prototypes import PrototypeSet
from pmam_plugin.report.media import SAMPLE_RATE
from pmam_plugin.report.spectrogram import log_mel, picture

# The reports' colours, which colour-blind readers can tell apart too.
STYLE = resources.files("pmam_plugin.report").joinpath("assets/report.css").read_text(encoding="utf-8")
COLOURS = re.findall(r"--c\d: (#\w{6})", STYLE)[:10]
INK, SOFT, PANEL = "#1b1f27", "#5d6676", "#f1f3f6"
DECADES = 1.5  # of score over threshold, shown on each side


def agreement(truth: pd.DataFrame, found: pd.DataFrame, seconds: float) -> float:
    """F1 of what is active when, over all classes, on a grid of 10 ms; 0 for clips too plain to make a picture."""
    if truth.event_label.nunique() < 3 or len(truth) < 5:
        return 0.0
    times = np.arange(0.0, seconds, 0.01)
    both = total = 0
    for label in {*truth.event_label, *found.event_label}:
        active = [
            ((table.onset.to_numpy()[:, None] <= times) & (times < table.offset.to_numpy()[:, None])).any(axis=0)
            for table in (truth[truth.event_label == label], found[found.event_label == label])
        ]
        both, total = both + (active[0] & active[1]).sum(), total + active[0].sum() + active[1].sum()
    return float(2 * both / total)


@torch.inference_mode()
def posteriors(run: Path, model: FrameDetector, wave: torch.Tensor) -> np.ndarray | None:
    """Posterior of every prototype of the last E-step in every frame, ``(frames, prototypes)``; None without any."""
    number = max((int(path.parent.name) for path in run.glob("prototypes/*/prototypes.json")), default=0)
    if not number:
        return None
    layer = read_json(run / f"prototypes/{number}/record.json")["notes"]["embeddings"]
    backbone = copy.deepcopy(model.backbone)
    # The prototypes live among the embeddings of the pre-training before them, not among the detector's.
    backbone.load_state_dict(load_file(run / f"stages/pretrain_{number - 1}/backbone.safetensors"))
    embeddings = backbone.embed(backbone.frontend(wave[None]), layer)[0]
    return PrototypeSet.load(run / f"prototypes/{number}").posteriors(embeddings).numpy()


def draw(
    wave: np.ndarray,
    gamma: np.ndarray | None,
    truth: pd.DataFrame,
    found: pd.DataFrame,
    levels: Mapping[str, np.ndarray],
) -> Any:
    """The figure: spectrogram, prototypes, one lane for every class that was annotated or found."""
    seconds = len(wave) / SAMPLE_RATE
    labels = [label for label in levels if label in {*truth.event_label, *found.event_label}]
    heights = [1.4, *[1.2] * (gamma is not None), *[0.5] * len(labels)]
    figure, axes = pyplot.subplots(
        len(heights), sharex=True, figsize=(9.5, 1.4 + sum(heights)), height_ratios=heights, layout="constrained"
    )
    place = {"aspect": "auto", "extent": (0, seconds, 0, 1)}
    axes[0].imshow(picture(log_mel(wave)), cmap="magma", **place)
    axes[0].set_title("the spectrogram of a clip that nothing was trained on", loc="left", fontsize=9)
    if gamma is not None:
        active = gamma[:, gamma.max(axis=0) > 0.5]
        order = np.argsort([-np.average(np.arange(len(active)), weights=column) for column in active.T])
        axes[1].imshow(active[:, order].T, cmap="Blues", vmin=0, vmax=1, interpolation="none", **place)
        axes[1].set_title(
            f"prototypes, learned without labels: the posterior of the {active.shape[1]} (of {gamma.shape[1]}) heard "
            "here",
            loc="left",
            fontsize=9,
        )
    lanes = axes[len(axes) - len(labels) :]
    lanes[0].set_title(
        "the detector: score over threshold (line, log scale), events (colour); annotation (grey)",
        loc="left",
        fontsize=9,
    )
    for number, (axis, label) in enumerate(zip(lanes, labels)):
        tables = (truth[truth.event_label == label], found[found.event_label == label])
        lane(axis, COLOURS[number % len(COLOURS)], *tables, np.linspace(0, seconds, len(levels[label])), levels[label])
        axis.set_ylabel(label.replace("_", "\n", 1).replace("_", " "), rotation=0, ha="right", va="center", color=INK)
    for axis in axes:
        axis.tick_params(length=0, colors=SOFT)
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    axes[-1].set_xlabel("seconds", color=SOFT)
    axes[-1].set_xlim(0, seconds)
    return figure


def lane(
    axis: Any, colour: str, truth: pd.DataFrame, found: pd.DataFrame, times: np.ndarray, levels: np.ndarray
) -> None:
    """One class: annotated events at the bottom, detected ones above, and the score about its threshold."""
    axis.set_facecolor(PANEL)
    axis.set_ylim(-1.75 * DECADES, DECADES)
    axis.broken_barh(
        list(zip(truth.onset, truth.offset - truth.onset)), (-1.7 * DECADES, 0.55 * DECADES), color="#aab2bf"
    )
    axis.broken_barh(
        list(zip(found.onset, found.offset - found.onset)), (-DECADES, 2 * DECADES), color=colour, alpha=0.35
    )
    axis.axhline(0.0, color=SOFT, linewidth=0.6, linestyle=(0, (2, 3)))
    axis.plot(times, levels.clip(-DECADES, DECADES), color=colour, linewidth=1.3)


def main() -> None:
    """Read the arguments, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=Path("results/pmam_demo"), help="output folder of a run")
    parser.add_argument("--data_folder", type=Path, default=Path("data/builtin"), help="what the run was trained on")
    parser.add_argument("--clip", help="id of a test clip, to take another one")
    parser.add_argument("--out", type=Path, default=Path("docs/assets/pmam.png"))
    arguments = parser.parse_args()
    data = load_prepared(arguments.data_folder, arguments.run / "manifests")
    detector = SoundEventDetector.from_pretrained(arguments.run / "model", device="cpu")
    rule, events, scores = detector.postprocessing, data.events("test"), read_scores(arguments.run / "scores")
    clips = {clip.id: clip for clip in data.manifests["test"] if arguments.clip in (None, clip.id)}
    truth = {name: events[(events.filename == name) & events.onset.notna()] for name in clips}
    found = {name: rule.events(scores[name], name) for name in clips}
    best = max(clips, key=lambda name: agreement(truth[name], found[name], clips[name].seconds))
    limits = rule.threshold if isinstance(rule.threshold, Mapping) else dict.fromkeys(detector.labels, rule.threshold)
    levels = {label: np.log10(scores[best][label].to_numpy() / limits[label] + 1e-9) for label in detector.labels}
    wave = read_audio(clips[best].path, detector.sample_rate)
    gamma = posteriors(arguments.run, detector.model, wave)
    figure = draw(read_audio(clips[best].path, SAMPLE_RATE).numpy(), gamma, truth[best], found[best], levels)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=120)
    # A palette does for the few colours there are, at a third of the size.
    Image.open(arguments.out).convert("RGB").quantize(200).save(arguments.out, optimize=True)
    print(f"{arguments.out}: {best}")


if __name__ == "__main__":
    main()
