"""How hard each loss term pulls: norms of the terms' gradients on the shared network, beside the labels' own.

    python benchmarks/gradients.py hparams/yamnet_v2.yaml --data_folder FOLDER [--stage finetune] [--every 10]
        [--KEY VALUE ...]

Runs the experiment's stages up to the one asked for, that one with every term measured at every tenth update, and
prints one line an epoch: the norm of each term's gradient on the backbone, weight and ramp included, as a share of
the norm of the supervised terms together. Other keys of the experiment are overridden as for the recipe. Weights are
set from this once, so that each new term reaches a fifth to a half of the labels' gradient, and stay fixed in the
experiment's file.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from torch import Tensor

from pmam_plugin.stages import RunContext, run_stages
from pmam_plugin.stages.experiment import build_experiment, lay_over, read_experiment

Norms = dict[str, list[float]]


class Measured:
    """A loss term that also notes the norm of its gradient on the student's backbone."""

    def __init__(self, term: Any, notes: dict[int, Norms], every: int) -> None:
        self.term, self.notes, self.every = term, notes, every

    def __getattr__(self, name: str) -> Any:
        if name == "term":  # while it is being copied
            raise AttributeError(name)
        return getattr(self.term, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Measured:
        import copy

        return Measured(copy.deepcopy(self.term, memo), self.notes, self.every)

    def __call__(self, state: Any, step: int, steps_per_epoch: int) -> dict[str, Tensor]:
        """The term's losses, see :class:`pmam_plugin.brains.objectives.Objective`."""
        losses: dict[str, Tensor] = self.term(state, step, steps_per_epoch)
        if step % self.every:
            return losses
        student = state.modules["student"]
        weights = getattr(student, "module", student).backbone.parameters()
        shared = [weight for weight in weights if weight.requires_grad]
        kind = type(self.term).__name__
        named = {kind: torch.stack(list(losses.values())).sum()} if kind == "Supervised" else losses
        for name, loss in named.items():
            if loss.requires_grad:
                parts = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
                norm = torch.stack([part.norm() for part in parts if part is not None] or [torch.zeros(())]).norm()
                self.notes[step // steps_per_epoch][name].append(float(norm))
        return losses


def measure(experiment: dict[str, Any], stage: str, every: int, folder: Path) -> dict[int, Norms]:
    """Norms by epoch and term of one fine-tuning stage, after the stages before it."""
    notes: dict[int, Norms] = defaultdict(lambda: defaultdict(list))
    names = [each.name for each in experiment["stages"]]
    if stage not in names:
        raise SystemExit(f"--stage {stage}: the experiment's stages are {', '.join(names)}")
    stages = experiment["stages"][: names.index(stage) + 1]
    stages[-1].objectives = [Measured(term, notes, every) for term in stages[-1].objectives]
    run_stages(stages, RunContext(folder, experiment["seed"], {"device": "cpu", "noprogressbar": True}))
    return notes


def table(notes: dict[int, Norms]) -> list[str]:
    """One line an epoch; a norm is the mean over the epoch's measured updates."""
    lines = []
    for epoch, norms in sorted(notes.items()):
        means = {name: sum(values) / len(values) for name, values in norms.items()}
        labels = means.pop("Supervised")
        shares = "  ".join(f"{name} {value / labels:.3f}" for name, value in means.items())
        lines.append(f"epoch {epoch + 1}: labels {labels:.4f}; as shares of it: {shares}")
    return lines


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hparams", type=Path)
    parser.add_argument("--stage", default="finetune")
    parser.add_argument("--every", type=int, default=10, help="measure at every so many updates")
    parser.add_argument("--output_folder", help="keep the stages before it there; default: a temporary folder")
    options, rest = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.output_folder or temporary)
        file, _, overrides = sb.parse_arguments([str(options.hparams), *rest, "--output_folder", str(folder)])
        text = lay_over(read_experiment(options.hparams), overrides, file, may_add=False)
        notes = measure(build_experiment(text, file), options.stage, options.every, folder)
    print("\n".join(table(notes)))


if __name__ == "__main__":
    main()
