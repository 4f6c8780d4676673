"""What int8 would bring to detection on a CPU: torch's dynamic quantisation of linear and recurrent layers.

    python benchmarks/int8.py FOLDER [--model NAME_OR_FOLDER] [--clips 200] [--network]

The test recordings of a corpus in DESED's layout (``audio/validation/validation``) are scored by the model as it is and
with eight bits, one after the other, one thread: seconds of processor of each, the mean and the largest change of a
score, PSDS 1 (without its penalty for unstable classes) and the event F1 of both. ``--network`` times PMAM's full-size
network on one clip instead: random weights have no figures, but their time is that of trained ones.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from train_step import backbone

from pmam_plugin.audio import audio_info
from pmam_plugin.audio.names import clip_name, find_audio
from pmam_plugin.evaluation import evaluate_scores
from pmam_plugin.inference import SoundEventDetector
from pmam_plugin.tables import read_events


def quantised(model: nn.Module) -> nn.Module:
    """A copy whose linear and recurrent layers hold eight-bit weights and round what comes in; those whose weights are
    read outside of them, as relative attention does, stay as they are."""
    names = {
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.GRU) and not name.endswith("_projection")
    }
    return torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), names, dtype=torch.qint8)


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """What an action returns, and its seconds of processor."""
    begin = time.process_time()
    result = action()
    return result, time.process_time() - begin


def network() -> None:
    """Times of PMAM's full-size network."""
    plain = backbone(tiny=False).eval()
    features = plain.frontend(torch.randn(1, 10 * plain.sample_rate))
    models, seconds = (plain, quantised(plain)), ([], [])  # type: tuple[nn.Module, ...], tuple[list[float], ...]
    with torch.inference_mode():
        for _ in range(3):
            for model, spent in zip(models, seconds):
                spent.append(timed(lambda model=model: model.columns(features, "stream"))[1])  # type: ignore[misc]
    print(f"PMAM, 10 s: {min(seconds[0]):.2f} s as it is, {min(seconds[1]):.2f} s in int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--network", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.network:
        network()
        return
    detectors = [SoundEventDetector.from_pretrained(options.model, device="cpu") for _ in range(2)]
    detectors[1].model = quantised(detectors[1].model)  # type: ignore[assignment]
    files = list(find_audio(options.folder / "audio/validation/validation").items())[: options.clips]
    tables: list[dict[str, Any]] = [{}, {}]
    seconds = [0.0, 0.0]
    for name, path in files:
        for place, detector in enumerate(detectors):
            tables[place][clip_name(name)], spent = timed(lambda: detector.scores(path))  # noqa: B023 - called at once
            seconds[place] += spent
    changes = [
        np.abs(first.iloc[:, 2:].to_numpy() - second.iloc[:, 2:].to_numpy())
        for first, second in zip(tables[0].values(), tables[1].values())
    ]
    print(f"{len(files)} clips: {seconds[0]:.1f} s as it is, {seconds[1]:.1f} s in int8")
    print(f"scores change by {np.concatenate(changes).mean():.4f} in the mean, {max(map(np.max, changes)):.3f} at most")
    events = read_events(options.folder / "metadata/validation/validation.tsv")
    events = events[events["filename"].map(clip_name).isin(tables[0])]
    durations = {clip_name(name): audio_info(path).duration for name, path in files}
    thresholds = detectors[0].postprocessing.threshold
    for what, scores in zip(("as it is", "int8"), tables):
        found = evaluate_scores(
            scores, events, durations, detectors[0].labels, threshold=thresholds, bootstrap=0, segment_scores=False
        )
        print(f"{what}: PSDS 1 {found['psds1_mean']:.4f}, event F1 {found['event_f1_macro']:.4f}")


if __name__ == "__main__":
    main()
