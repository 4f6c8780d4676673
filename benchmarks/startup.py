"""Seconds from starting a process to a first detection, and what of it is the import of torch.

    python benchmarks/startup.py [--model NAME_OR_FOLDER] [--runs 5]

Each run is a new process that loads the model and detects in 10 s of noise: ``pmam detect``, which prints its events,
and the detector's ``detect``, which returns a table of pandas. Wall time counts on an idle machine, the processor's
also says something on a busy one. The fastest run is printed: later ones find the files in memory and, as any later
start of an installed program does, the modules compiled.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_SECONDS = 3.0
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
HEAVY = (
    "pandas",
    "scipy",
    "sklearn",
    "timm",
    "torchaudio",
    "torchvision",
    "torch._dynamo",
    "torch.onnx.symbolic_opset9",
    "speechbrain",
    "matplotlib",
    "h5py",
    "huggingface_hub",
    "pyarrow",
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", default="builtin")
    arguments.add_argument("--runs", type=int, default=5)
    settings = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "noise.wav"
        subprocess.run([sys.executable, "-c", _WRITE, str(wave)], check=True)
        given = [settings.model, str(wave)]
        command, table = (
            min(_run([sys.executable, "-c", code, *given]) for _ in range(settings.runs)) for code in (_COMMAND, _TABLE)
        )
        imports = min(_run([sys.executable, "-c", "import torch"]) for _ in range(settings.runs))
        loaded = subprocess.run(
            [sys.executable, "-c", f"{_COMMAND}\nprint(*[m for m in {HEAVY} if m in sys.modules])", *given],
            check=True,
            capture_output=True,
            text=True,
        )
    print(f"pmam detect: {command[0]:.2f} s, {command[1]:.2f} s of processor; aim: {LIMIT_SECONDS:g} s when idle")
    print(f"SoundEventDetector.detect: {table[0]:.2f} s, {table[1]:.2f} s of processor")
    print(f"of which import torch: {imports[0]:.2f} s, {imports[1]:.2f} s of processor")
    print(f"heavy imports of pmam detect: {loaded.stdout.splitlines()[-1] or 'none'}")


_WRITE = """
import sys, numpy, soundfile
soundfile.write(sys.argv[1], numpy.random.default_rng(0).normal(0, 0.1, 160_000), 16_000)
"""
_COMMAND = """
import sys
from pmam_plugin.cli import main
try:
    main(["detect", "--device", "cpu", "--model", *sys.argv[1:]])
except SystemExit as end:
    if end.code:
        raise
"""
_TABLE = """
import sys
from pmam_plugin import SoundEventDetector
SoundEventDetector.from_pretrained(sys.argv[1], device="cpu").detect(sys.argv[2])
"""


def _run(command: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of a process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
