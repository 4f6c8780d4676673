"""Our speed beside a reference's: same sizes, weights and input, in turns in one process, float32, CPU time.

    python benchmarks/peers.py --checkout FOLDER --kind transformer4sed|atst-sed|sedt --reference MODULE:FUNCTION
        [--seconds 10] [--batch 2] [--repeats 7] [--threads 1]

The references (Transformer4SED, ATST-SED, SEDT) are not shipped, and their constructors take their configurations, so
a function says how theirs is built and called. It is looked for in the checkout, then in the folder the command is run
in, takes nothing, and returns the module and its call:

    def build():
        model = ...                                     # with the checkout's own classes
        def call(model, features, windows):             # on our features, by name; windows: is a sliding pass wanted
            strong, weak = model(features["mel"])
            return {"frames": strong, "clips": weak}    # by the names of our output; None where it has no windows
        return model, call

Ours is imported from its weights. Printed are the largest difference between the outputs, then for a whole clip, a
clip in sliding windows and a training step (mean of the outputs, backward, AdamW): CPU seconds, the ratio ours /
reference with a 95 % interval (bootstrap of the median over the turns), and how far each raises memory. Linux.
"""

from __future__ import annotations

import argparse
import importlib
import operator
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pmam_plugin.checkpoints.atst import import_atst_sed
from pmam_plugin.checkpoints.sedt import import_any_sedt
from pmam_plugin.checkpoints.transformer4sed import import_transformer4sed
from pmam_plugin.encoders import Windows
from pmam_plugin.models import FrameDetector

Outputs = dict[str, Tensor]
Call = Callable[[Any, Mapping[str, Tensor], bool], Outputs | None]
IMPORTERS: dict[str, Callable[[Path], tuple[Any, Any]]] = {
    "transformer4sed": import_transformer4sed,
    "atst-sed": import_atst_sed,
    "sedt": import_any_sedt,
}


@dataclass
class Comparison:
    """CPU seconds of both in every turn, and by how many megabytes each raised the memory in use."""

    what: str
    ours: list[float]
    reference: list[float]
    megabytes: tuple[float, float]

    def __str__(self) -> str:
        ratios = np.array(self.ours) / np.array(self.reference)
        draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
        low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
        return (
            f"{self.what:16}{np.median(self.ours):9.3f}{np.median(self.reference):12.3f}"
            f"{np.median(ratios):8.2f} [{low:.2f}, {high:.2f}]{self.megabytes[0]:10.0f}{self.megabytes[1]:10.0f}"
        )


def compare(
    ours: Any, reference: nn.Module, call: Call, seconds: float = 10.0, batch: int = 2, repeats: int = 7
) -> tuple[dict[str, float], list[Comparison]]:
    """Largest difference of every output, and the comparisons; both models must hold the same weights."""
    ours.eval(), reference.eval()
    waves = torch.randn(batch, round(seconds * ours.sample_rate), generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.no_grad():
        features = ours.frontend(waves)
    clip = {name: value[:1] for name, value in features.items()}
    with torch.no_grad():
        expected = call(reference, clip, False)
        if expected is None:
            raise SystemExit("the reference's call returns nothing for a whole clip; let it return its outputs by name")
        said = _ours(ours, clip, False, expected)
        differences = {name: float((said[name] - value).abs().max()) for name, value in expected.items()}
        wholes = [lambda: _ours(ours, clip, False, expected), lambda: call(reference, clip, False)]
        rows = [_in_turns("whole clip", wholes, repeats)]
        if isinstance(ours, FrameDetector) and call(reference, clip, True) is not None:
            windows = [lambda: _ours(ours, clip, True, expected), lambda: call(reference, clip, True)]
            rows.append(_in_turns("sliding windows", windows, repeats))
    ours.train(), reference.train()
    steps = [
        _step(ours, lambda: _ours(ours, features, False, expected)),
        _step(reference, lambda: call(reference, features, False) or {}),
    ]
    rows.append(_in_turns(f"step, batch {batch}", steps, repeats))
    return differences, rows


def _ours(model: Any, features: Mapping[str, Tensor], windows: bool, names: Mapping[str, Tensor]) -> Outputs:
    output = model(dict(features), windows=Windows()) if windows else model(dict(features))
    return {name: operator.attrgetter(name)(output) for name in names}


def _step(model: nn.Module, forward: Callable[[], Outputs]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)  # weights stay the same in both

    def step() -> None:
        sum((value.float().mean() for value in forward().values()), torch.zeros(())).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _in_turns(what: str, ways: Sequence[Callable[[], object]], repeats: int) -> Comparison:
    megabytes = [_raised(way) for way in ways]  # first passes, which are not timed
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats):
        for number in (0, 1) if turn % 2 else (1, 0):
            begin = time.process_time()
            ways[number]()
            times[number].append(time.process_time() - begin)
    return Comparison(what, *times, (megabytes[0], megabytes[1]))


def _raised(way: Callable[[], object]) -> float:
    """Megabytes by which a pass exceeds what was in use before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    way()
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    return max(0, peak - before) / 1e6


def main(argv: list[str] | None = None) -> list[Comparison]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, required=True, help="folder of the reference's code")
    parser.add_argument("--kind", choices=IMPORTERS, required=True)
    parser.add_argument("--reference", metavar="MODULE:FUNCTION", required=True)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    sys.path[:0] = [str(options.checkout.resolve()), str(Path.cwd())]
    module, _, function = options.reference.partition(":")
    reference, call = getattr(importlib.import_module(module), function)()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.pt"
        torch.save(reference.state_dict(), path)
        ours, report = IMPORTERS[options.kind](path)
    print(f"{report.loaded} tensors, {options.threads} thread(s), float32")
    differences, rows = compare(ours, reference, call, options.seconds, options.batch, options.repeats)
    print("largest differences: " + ", ".join(f"{name} {value:.1e}" for name, value in differences.items()))
    print(f"{'':16}{'ours s':>9}{'reference s':>12}{'ratio':>8} {'95 %':12}{'ours MB':>10}{'ref. MB':>10}")
    print(*rows, sep="\n")
    return rows


if __name__ == "__main__":
    main()
