"""What a stage leaves behind: curves and best weights, both part of its checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from torch import Tensor

from pmam_plugin.files import atomic_path


@register_checkpoint_hooks
class History:
    """Curves of a stage: name -> list of (optimiser step, value); part of the checkpoint, so resuming repeats no point.

    Args:
        log_every: what is observed in that many steps, however many times a step, is averaged to one point.
    """

    def __init__(self, log_every: int) -> None:
        self.log_every = log_every
        self.curves: dict[str, list[list[float]]] = {}
        self._pending: dict[str, list[float | Tensor]] = {}

    def observe(self, name: str, value: float | Tensor) -> None:
        """Add one value of a per-step curve; a tensor is read only when its point is due: reading waits for a GPU."""
        self._pending.setdefault(name, []).append(value.detach() if isinstance(value, Tensor) else float(value))

    def close_step(self, step: int) -> None:
        """End optimiser step ``step`` (the first is 1); every ``log_every`` steps what was observed becomes points."""
        if step % self.log_every == 0:
            for name, pending in self._pending.items():
                self.record(name, step, sum(map(float, pending)) / len(pending))
            self._pending.clear()

    def record(self, name: str, step: int, value: float) -> None:
        """Add one point as it is."""
        self.curves.setdefault(name, []).append([step, float(value)])

    @mark_as_saver
    def save(self, path: str) -> None:
        """Write everything as JSON."""
        pending = {name: [float(value) for value in values] for name, values in self._pending.items()}
        Path(path).write_text(json.dumps([self.curves, pending]), encoding="utf-8")

    @mark_as_loader
    def load(self, path: str, end_of_epoch: bool) -> None:
        """Read what :meth:`save` wrote."""
        self.curves, self._pending = json.loads(Path(path).read_text(encoding="utf-8"))


@register_checkpoint_hooks
class BestWeights:
    """Keeps, for each candidate (student, teacher), the weights with the best selection score so far.

    Args:
        folder: weights go to ``<folder>/best_<candidate>.safetensors``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scores: dict[str, float] = {}

    def offer(self, candidate: str, score: float, state: Mapping[str, Tensor]) -> None:
        """Keep ``state`` if ``score`` is strictly higher than any before it."""
        if score == score and score > self.scores.get(candidate, -float("inf")):
            self.scores[candidate] = float(score)
            if if_main_process():
                save_tensors(self.path(candidate), state)

    def path(self, candidate: str) -> Path:
        """Where the weights of ``candidate`` are."""
        return self.folder / f"best_{candidate}.safetensors"

    def load(self, candidate: str) -> dict[str, Tensor]:
        """Best weights of ``candidate``."""
        return load_file(self.path(candidate))

    @mark_as_saver
    def _save(self, path: str) -> None:
        Path(path).write_text(json.dumps(self.scores), encoding="utf-8")

    @mark_as_loader
    def _load(self, path: str, end_of_epoch: bool) -> None:
        self.scores = json.loads(Path(path).read_text(encoding="utf-8"))


def save_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors, whole or not at all."""
    with atomic_path(path) as temporary:
        # Shared storage (tied or sliced tensors) cannot be written; every tensor gets its own.
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, temporary)


def hand_on(path: Path, state: Mapping[str, Tensor]) -> Path:
    """:func:`save_tensors` in the first process, while the others wait; returns the path."""
    if if_main_process():
        save_tensors(path, state)
    ddp_barrier()
    return path
