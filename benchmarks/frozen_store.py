"""What running a frozen encoder once is worth: fine-tuning updates per second from stored embeddings and from sound.

    python benchmarks/frozen_store.py --data_folder FOLDER --encoder_checkpoint yamnet.h5 [--updates 10]

Runs hparams/yamnet.yaml up to its store, then its fine-tuning stage twice for each way, with two updates and with so
many more: the difference leaves out what is no update (validation, loading). Prints wall and CPU seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pmam_plugin.config import rebuilt
from pmam_plugin.stages import RunContext, run_stages

YAML = Path(__file__).resolve().parents[1] / "hparams" / "yamnet.yaml"


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_folder", required=True, help="in DESED's layout")
    parser.add_argument("--encoder_checkpoint", required=True, help="the published yamnet.h5")
    parser.add_argument("--updates", type=int, default=10, help="measured updates")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(argv)


def seconds(stage: Any, context: RunContext, domain: str, updates: int) -> tuple[float, float]:
    """Wall and CPU seconds of a fine-tuning stage of so many updates."""
    stage = rebuilt(
        stage,
        name=f"{domain}_{updates}",
        views=rebuilt(stage.views, domain=domain),
        plan=replace(stage.plan, epochs=1, steps_per_epoch=updates, validate_every=1),
    )
    start, start_cpu = time.perf_counter(), time.process_time()
    stage.run(context, context.folder / stage.folder)
    return time.perf_counter() - start, time.process_time() - start_cpu


def measure(options: argparse.Namespace, folder: Path) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds per update from sound (``features``) and from the store (``embeddings``)."""
    from hyperpyyaml import load_hyperpyyaml

    overrides = {"data_folder": options.data_folder, "encoder_checkpoint": options.encoder_checkpoint}
    with YAML.open(encoding="utf-8") as stream:
        experiment = load_hyperpyyaml(stream, {**overrides, "output_folder": str(folder)})
    context = RunContext(folder, 1, {"device": "cpu", "noprogressbar": True})
    run_stages([experiment[name] for name in ("prepare", "load_weights", "embed")], context)
    result = {}
    for domain in ("features", "embeddings"):
        few = seconds(experiment["finetune"], context, domain, 2)
        many = seconds(experiment["finetune"], context, domain, 2 + options.updates)
        wall, cpu = ((more - less) / options.updates for more, less in zip(many, few, strict=True))
        result[domain] = wall, cpu
    return result


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    print(f"{'from':<12}{'updates/s':>12}{'CPU s/update':>14}")
    for domain, (wall, cpu) in result.items():
        print(f"{domain:<12}{1 / wall:>12.2f}{cpu:>14.3f}")


if __name__ == "__main__":
    main()
