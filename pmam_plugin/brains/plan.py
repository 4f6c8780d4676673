"""What a stage and its Brain share: budget, optimiser, folder, and seeds that depend on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pmam_plugin.brains.optimisation import ParameterGroup
from pmam_plugin.brains.schedules import Constant, Schedule
from pmam_plugin.config import configurable


def fold_seed(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on nothing else (not on the process or the Python version)."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@configurable
@dataclass(frozen=True)
class TrainingPlan:
    """The budget and the optimiser of one stage.

    Args:
        epochs: number of epochs.
        batch: clips of each subset in the batch of an update, all processes and passes together, in this order.
        groups: learning rates by parameter name, see :class:`ParameterGroup`.
        schedule: factor on the learning rates.
        steps_per_epoch: ``"smallest"`` ends an epoch when the subset with the fewest batches has been seen once;
            a number sets the length. Larger subsets go on where they stopped, so all of their clips are used.
        max_grad_norm: bound on the global L2 norm of the gradient; None does not clip.
        validate_every: epochs between validations; the last epoch is always validated.
        log_every: optimiser steps per point of the training curves.
    """

    epochs: int
    batch: Mapping[str, int]
    groups: Sequence[ParameterGroup | Sequence[ParameterGroup]]
    schedule: Schedule = field(default_factory=Constant)
    steps_per_epoch: str | int = "smallest"
    max_grad_norm: float | None = 20.0
    validate_every: int = 1
    log_every: int = 10

    @property
    def batch_clips(self) -> int:
        """Clips of a whole batch, where the data have all of its subsets."""
        return sum(self.batch.values())


@dataclass(frozen=True)
class StageRun:
    """One stage of one run: what a stage and its Brain share.

    Attributes:
        name: of the stage; part of every seed.
        plan: budget and optimiser.
        folder: checkpoints, logs and best weights.
        seed: of the run.
        run_opts: SpeechBrain's run options; ``max_grad_norm`` among them takes the place of the plan's. Beside them
            ``micro_batch``: clips that pass through the networks at a time; None is all that a process has; and
            ``stage_minutes``: ends the stage with the last epoch that fits into them (in one process).
    """

    name: str
    plan: TrainingPlan
    folder: Path
    seed: int
    run_opts: Mapping[str, Any]
