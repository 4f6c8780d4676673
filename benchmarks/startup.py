"""Seconds from starting a process to a first detection, and what of it is imports.

    python benchmarks/startup.py [--model NAME_OR_FOLDER] [--runs 5]

Each run is a new process that loads the model and detects in 10 s of noise. Wall time counts on an idle machine; the
processor's time also says something on a busy one. The fastest run is printed: later ones find the files in memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_SECONDS = 3.0
HEAVY = ("timm", "torchvision", "torch._dynamo", "torch.onnx.symbolic_opset9", "sklearn", "speechbrain", "matplotlib")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", default="builtin")
    arguments.add_argument("--runs", type=int, default=5)
    settings = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "noise.wav"
        subprocess.run([sys.executable, "-c", _WRITE, str(wave)], check=True)
        whole = min(_run([sys.executable, "-c", _DETECT, settings.model, str(wave)]) for _ in range(settings.runs))
        imports = min(_run([sys.executable, "-c", _IMPORT]) for _ in range(settings.runs))
        loaded = subprocess.run(
            [
                sys.executable,
                "-c",
                f"{_DETECT}\nprint(*[m for m in {HEAVY} if m in sys.modules])",
                settings.model,
                wave,
            ],
            check=True,
            capture_output=True,
            text=True,
        )
    print(f"first detection: {whole[0]:.2f} s, {whole[1]:.2f} s of processor; aim: {LIMIT_SECONDS:g} s when idle")
    print(f"of which imports of torch and pandas alone: {imports[0]:.2f} s, {imports[1]:.2f} s of processor")
    print(f"heavy imports: {loaded.stdout.strip() or 'none'}")


_WRITE = """
import sys, numpy, soundfile
soundfile.write(sys.argv[1], numpy.random.default_rng(0).normal(0, 0.1, 160_000), 16_000)
"""
_DETECT = """
import sys
from pmam_plugin import SoundEventDetector
SoundEventDetector.from_pretrained(sys.argv[1], device="cpu").detect(sys.argv[2])
"""
_IMPORT = "import torch, pandas"


def _run(command: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of a process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
