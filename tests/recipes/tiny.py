"""A corpus of a few clips and settings small enough to run the whole recipe in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pmam_plugin.demo.soundscapes import Counts, build_corpus
from tests.support import ROOT

SETTINGS = {
    "seed": "5",
    "device": "cpu",
    "precision": "fp32",
    "dim": "16",
    "number_of_prototypes": "4",
    "components": "4",
    "frame_subsampling": "2",
    "pretrain_epochs": "2",
    "pretrain_steps": "3",
    "finetune_1_epochs": "1",
    "finetune_2_epochs": "2",
    "finetune_steps": "3",
    "bootstrap": "10",
}


def tiny_corpus(folder: Path) -> Path:
    """Ten-second soundscapes: 8 strong, 8 weak, 14 unlabelled, 3 to select on, 4 to test on."""
    build_corpus(folder, Counts(strong=8, weak=8, unlabelled=14, selection=3, validation=4), seed=1)
    return folder


def arguments(yaml: str, data: Path, output: Path, **changes: str) -> list[str]:
    """Command-line arguments of the recipe."""
    return [yaml, *flags({**SETTINGS, "data_folder": data, "output_folder": output, **changes})]


def flags(settings: Mapping[str, object]) -> list[str]:
    """Settings as options of the recipe, without progress bars."""
    return [*(str(part) for name, value in settings.items() for part in (f"--{name}", value)), "--noprogressbar"]


def run_recipe(
    argv: list[str], script: str = "recipes/DESED/train.py", processes: int = 1, threads: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run the recipe in a process of its own, from the repository's root."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
        "CUDA_VISIBLE_DEVICES": "",
    }
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.run(
        [*launcher, script, *argv], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
