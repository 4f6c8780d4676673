"""What a probe hears in frozen features: s3prl's HearDcase2016Task2 on real recordings, with upstreams of one run.

    python benchmarks/hear.py --run RUN --data_folder PATH [--steps 600] [--seeds 0] [--output results/hear]

``RUN`` is the output folder of a recipe on PATH (``hparams/pmam_small.yaml``). Its strong clips become the problem's
training set, its held-out clips the validation set and its test clips the test set: the probe's test recordings are the
ones that the run never trained on. Then ``python -m pmam_plugin.upstream`` trains the problem's own frame-wise probe on
a learned weighting of all layers of each upstream, everything else equal: ``fbank``; the run's backbone with initial
weights; the same as pre-training left it, which has seen no label; and the same fine-tuned with the labels of the
training clips. Printed: onset F-measure (200 ms) and segment error rate (1 s), as s3prl's task computes them, and the
binary cross-entropy of the test frames. An error rate of 1 and an F of 0 is what a probe has that predicts no event.

s3prl works at 16 kHz. A problem is validated once, after the last step: a validation without any predicted event scores
NaN, and s3prl never replaces that by a better model. Finished problems are only read, broken ones go on.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from pmam_plugin.audio import read_audio, write_wav
from pmam_plugin.checkpoints import save_model
from pmam_plugin.checkpoints.folder import load_weights
from pmam_plugin.config import from_config
from pmam_plugin.data.manifest import Clip
from pmam_plugin.data.prepare import load_prepared
from pmam_plugin.files import read_json, write_json

SPLITS = {"train": "strong", "valid": "selection", "test": "test"}
RATES = (48_000, 16_000)
"""s3prl insists on a folder of 48 kHz, makes one of 16 kHz unless there is one, and takes that for complete."""
SCORES = ("event_onset_200ms_fms", "segment_1s_er", "loss")
CHUNK_SECONDS = 4
BATCH = 5
LEARNING_RATE = 1e-3


def main() -> None:
    """Write the corpus, train the probes and print one row per upstream and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data_folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=Path("results/hear"))
    options = parser.parse_args()
    corpus = options.output / "corpus"
    if not (corpus / "test.json").exists():
        write_corpus(options.run, options.data_folder, corpus)
    upstreams = {"fbank": ("fbank", None)} | {
        name: ("pmam_local", folder) for name, folder in model_folders(options.run, options.output / "models").items()
    }
    sizes = {split: len(read_json(corpus / f"{split}.json")) for split in SPLITS}
    print(", ".join(f"{split} {size} recordings" for split, size in sizes.items()))
    print(
        f"probe: {options.steps} steps of {BATCH} chunks of {CHUNK_SECONDS} s, Adam 1e-3, validated once at the end\n"
    )
    print(f"{'upstream':<12} {'seed':>4} {'onset F, %':>11} {'segment error':>14} {'loss':>7}")
    for name, (entry, folder) in upstreams.items():
        rows = []
        for seed in options.seeds:
            target = options.output / f"{name}-{options.steps}-{seed}"
            rows.append(run_problem(target, corpus, entry, folder, options.steps, seed))
            print(row_of(name, seed, rows[-1]), flush=True)
        if len(rows) > 1:
            print(row_of(name, "mean", [sum(column) / len(rows) for column in zip(*rows, strict=True)]))


def row_of(name: str, seed: int | str, figures: Sequence[float]) -> str:
    """A row of the table."""
    onset, error, loss = figures
    return f"{name:<12} {seed:>4} {100 * onset:>11.2f} {error:>14.3f} {loss:>7.4f}"


def write_corpus(run: Path, data_folder: Path, corpus: Path) -> None:
    """The run's strong, held-out and test clips in the layout that s3prl reads."""
    prepared = load_prepared(data_folder, run / "manifests")
    for split, subset in SPLITS.items():
        table: dict[str, list[dict[str, Any]]] = {}
        for name, clips in recordings(prepared.manifests[subset].clips).items():
            for rate in RATES:
                wave = torch.cat([whole_clip(clip, rate) for clip in clips])
                write_wav(corpus / str(rate) / split / name, wave, rate)
            table[name] = [
                {"label": event.label, "start": 1000 * event.onset, "end": 1000 * event.offset}
                for event in clips[0].events or ()
            ]
        write_json(corpus / f"{split}.json", table)


def recordings(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """File names and the clips they are made of: the first has events, others follow it.

    s3prl drops recordings without events, from the test set too. Behind a clip with events they are heard and count.
    """
    with_events = {f"{clip.id}.wav": [clip] for clip in clips if clip.events}
    without = [clip for clip in clips if clip.events is not None and not clip.events]
    for joined, clip in zip(with_events.values(), without):
        joined.append(clip)
    return with_events


def whole_clip(clip: Clip, rate: int) -> Tensor:
    """A clip's samples at a rate, ``(samples,)``."""
    wave = read_audio(clip.path, rate)
    first = round(clip.start * rate)
    return wave[first : first + round(clip.seconds * rate)]


def model_folders(run: Path, output: Path) -> dict[str, Path]:
    """Model folders of the run's backbone untrained, as pre-training left it, and of the fine-tuned detector."""
    torch.manual_seed(0)
    backbone = from_config(read_json(run / "model" / "config.json")["model"]["backbone"])
    untrained = save_model(output / "untrained", backbone)
    load_weights(backbone, max(run.glob("stages/pretrain_*/backbone.safetensors")))
    return {
        "untrained": untrained,
        "pre-trained": save_model(output / "pre-trained", backbone),
        "fine-tuned": run / "model",
    }


def run_problem(target: Path, corpus: Path, upstream: str, folder: Path | None, steps: int, seed: int) -> list[float]:
    """Train and test a probe in a process of its own; returns onset F-measure, segment error rate and loss."""
    result = target / "evaluate/valid_best/test/result.yaml"
    if not result.exists():
        arguments: dict[str, Any] = {
            "target_dir": target,
            "prepare_data.dataset_root": corpus,
            "build_upstream.name": upstream,
            **({} if folder is None else {"build_upstream.path_or_url": folder}),
            "build_batch_sampler.train.batch_size": BATCH,
            "build_optimizer.conf.lr": LEARNING_RATE,
            "train.seed": seed,
            "train.total_steps": steps,
            "train.eval_step": steps,
            "train.save_step": math.ceil(steps / 5),
            "train.log_step": math.ceil(steps / 10),
            "device": "cpu",
            "num_workers": 0,
        }
        flags = [str(part) for name, value in arguments.items() for part in (f"--{name}", value)]
        target.mkdir(parents=True, exist_ok=True)
        with (target / "log.txt").open("a") as log:
            subprocess.run(
                [sys.executable, "-m", "pmam_plugin.upstream", "HearDcase2016Task2", *flags],
                check=True,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_WAIT_POLICY": "passive"},
            )
    scores = yaml.safe_load(result.read_text())
    # Without any predicted event, sed_eval's F-measure is not a number; none was right.
    return [0.0 if math.isnan(float(scores[name])) else float(scores[name]) for name in SCORES]


if __name__ == "__main__":
    main()
