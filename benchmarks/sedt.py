"""A training step of SEDT and of its pretext task: where the time goes, and how little of it matching takes.

    python benchmarks/sedt.py [--batch 16 --encoder-layers 3 --backbone resnet50 --threads 2 --device cpu]

Input is noise through the real front end; targets are random events (three a clip; half of the clips have only tags,
as in the DESED recipe). Prints the median time of every part of a step, its share of the step, and the peak memory.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from pmam_plugin.features import FrontEnds, SEDTMel
from pmam_plugin.losses.event_targets import EventTargets
from pmam_plugin.losses.matcher import HungarianMatcher, Match
from pmam_plugin.losses.set_criterion import SetCriterion
from pmam_plugin.models.sedt import SEDT
from pmam_plugin.models.sp_sedt import SPSEDT
from pmam_plugin.nn.query_decoder import SetNetwork
from pmam_plugin.nn.resnet import SpectrogramResNet
from pmam_plugin.nn.set_output import SetOutput

CLASSES, PARTS = 10, ("front end", "forward", "matching", "losses", "backward", "update")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--encoder-layers", type=int, default=3)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5, help="measured steps, after one that warms up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--without-pretext", action="store_true")
    return parser.parse_args()


class Clock:
    """Collects times of named parts; waits for the device so that they add up."""

    def __init__(self, device: str) -> None:
        self.device, self.times = device, {part: [0.0] for part in PARTS}

    def now(self) -> float:
        """Seconds, with the device idle."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    def measure(self, part: str, work: Callable[[], Any]) -> Any:
        """Do some work and add its time to a part of the current step."""
        start = self.now()
        result = work()
        self.times[part][-1] += self.now() - start
        return result

    def next_step(self) -> None:
        """Begin a new step."""
        for values in self.times.values():
            values.append(0.0)

    def table(self, title: str) -> str:
        """Median times of all steps but the first."""
        medians = {part: statistics.median(values[1:-1]) for part, values in self.times.items()}
        total = sum(medians.values())
        rows = [f"{title}", f"{'part':<12}{'ms':>10}{'share':>9}"]
        rows += [f"{part:<12}{1000 * value:>10.1f}{value / total:>9.1%}" for part, value in medians.items()]
        verdict = "met" if medians["matching"] < 0.05 * total else "MISSED"
        rows += [f"{'step':<12}{1000 * total:>10.1f}{1:>9.0%}", f"matching below 5 % of the step: {verdict}"]
        return "\n".join(rows)


class TimedMatcher:
    """A matcher that reports its time, which is then taken off the losses'."""

    def __init__(self, clock: Clock) -> None:
        self.matcher, self.clock = HungarianMatcher(), clock

    def __call__(self, output: SetOutput, targets: EventTargets) -> list[Match]:
        """Match, timed."""
        matches = self.clock.measure("matching", lambda: self.matcher(output, targets))
        self.clock.times["losses"][-1] -= self.clock.times["matching"][-1]
        return matches


def targets_of(batch: int) -> EventTargets:
    """Three events in every strong clip, two tags in every weak one; strong clips come first."""
    strong = max(1, batch // 2)
    events = [(torch.randint(0, CLASSES, (3,)), torch.rand(3, 2) * 0.4 + 0.2) for _ in range(strong)]
    tags = [None if clip < strong else [clip % CLASSES, (clip + 1) % CLASSES] for clip in range(batch)]
    return EventTargets.from_events([*events, *[None] * (batch - strong)], CLASSES, tags)


def run(name: str, model: SEDT | SPSEDT, settings: argparse.Namespace) -> None:
    """Time some steps and print the table."""
    clock, device = Clock(settings.device), settings.device
    model = model.to(device).train()
    criterion = SetCriterion(matcher=TimedMatcher(clock))  # type: ignore[arg-type]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, foreach=True)
    waves, targets = torch.randn(settings.batch, 160_000).to(device) * 0.1, targets_of(settings.batch).to(device)

    def predict(features: dict[str, torch.Tensor]) -> tuple[SetOutput, EventTargets]:
        result = model(features)
        return result.output, targets if isinstance(model, SEDT) else result.targets

    for _ in range(settings.steps + 1):
        features = clock.measure("front end", partial(model.frontend, waves))
        output, wanted = clock.measure("forward", partial(predict, features))
        total = clock.measure("losses", partial(criterion, output, wanted)).total
        clock.measure("backward", total.backward)
        clock.measure("update", lambda: (torch.nn.utils.clip_grad_norm_(learning, 0.1), optimizer.step()))
        optimizer.zero_grad()
        clock.next_step()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(clock.table(f"{name}, {parameters / 1e6:.1f} M parameters, batch {settings.batch}"))
    if device.startswith("cuda"):
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the device\n")
    else:
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB\n")


def main() -> None:
    settings = arguments()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {settings.threads} threads\n")

    def network() -> SetNetwork:
        backbone = SpectrogramResNet(settings.backbone)
        return SetNetwork(backbone, dim=settings.dim, encoder_layers=settings.encoder_layers)

    labels = [f"class {index}" for index in range(CLASSES)]
    sizes = f"{settings.backbone}, E={settings.encoder_layers}"
    run(f"SEDT {sizes}", SEDT(FrontEnds(mel=SEDTMel()), network(), labels), settings)
    if not settings.without_pretext:
        run(f"SP-SEDT {sizes}", SPSEDT(FrontEnds(mel=SEDTMel()), network()), settings)


if __name__ == "__main__":
    main()
