"""How much a second process on the same cores slows training, by what waiting OpenMP threads do.

    python benchmarks/busy.py [--threads 2] [--seconds 5]

Prints steps per second of a small Transformer's MLPs (forward and backward), alone and beside a copy of itself, with
waiting threads that spin (libgomp's default), that sleep (``OMP_WAIT_POLICY=passive``), and that spin a thousand times
and sleep then (which importing pmam_plugin sets). Half the speed is what sharing costs; less than that is lost to
spinning.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping

STEPS = """
import sys, time, torch
from torch import nn
torch.set_num_threads(int(sys.argv[1]))
blocks = [nn.Sequential(nn.Linear(144, 144), nn.GELU(), nn.LayerNorm(144)) for _ in range(12)]
network, clips = nn.Sequential(*blocks), torch.randn(16, 125, 144)
begin, steps = None, 0
while begin is None or time.perf_counter() - begin < float(sys.argv[2]):
    network(clips).square().mean().backward()
    begin, steps = (time.perf_counter(), 0) if begin is None else (begin, steps + 1)
print(steps / (time.perf_counter() - begin))
"""


# What libgomp is told about waiting.
WAYS: dict[str, dict[str, str]] = {
    "spin": {},
    "sleep": {"OMP_WAIT_POLICY": "passive"},
    "spin briefly, then sleep": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"},
}


def rates(way: Mapping[str, str], copies: int, threads: int, seconds: float) -> list[float]:
    """Steps per second of each of ``copies`` processes that run at once."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment |= way
    command = [sys.executable, "-c", STEPS, str(threads), str(seconds)]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(copies)]
    return [float(process.communicate()[0]) for process in running]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    for label, way in WAYS.items():
        [alone] = rates(way, 1, given.threads, given.seconds)
        beside = min(rates(way, 2, given.threads, given.seconds))
        print(
            f"threads that {label}: {alone:6.1f} steps/s alone, {beside:6.1f} beside a copy: 1 / {alone / beside:.1f}"
        )


if __name__ == "__main__":
    main()
