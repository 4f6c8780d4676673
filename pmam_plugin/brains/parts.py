"""One update from one batch, whatever the number of devices and whatever fits on them.

The batch of the YAML is the batch of an update. Everything that looks across clips or is drawn (who is mixed with
whom, shifts, augmentation, masks, what counts in a loss) is made for the whole batch, in every process alike, from one
seed; these are spectrograms and labels, small beside what a network keeps for its gradients. Only the networks run on
parts: a process on its rows of the batch, in as many passes as ``micro_batch`` asks for. A loss term divides what it
sums over a part by what there is in the whole batch, so that gradients of parts add up to that of the batch.

Not of the whole batch are: dropout and noise inside of networks, drawn for each part, since their masks are as large as
the activations; batch norm, which sees a part (on GPUs those of all processes); and embeddings that stand in for hidden
frames, which come from clips of the part, since those of other parts are not there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from pmam_plugin import processes
from pmam_plugin.data import Batch, share_of

Rows = Tensor | slice
"""Clips of a part, by their place in the whole batch; ``slice(None)`` where the part is the whole."""

WHOLE = slice(None)


@dataclass(frozen=True)
class Division:
    """How one batch is divided."""

    shares: Sequence[Tensor]  # rows of every process, (its rows,) each
    rank: int  # of this process
    passes: Sequence[Rows]  # rows of every pass of this process

    @property
    def divided(self) -> bool:
        """Whether a pass sees less than the batch."""
        return isinstance(self.passes[0], Tensor)

    @classmethod
    def of(cls, size: int, number: int, micro_batch: int | None) -> Division:
        """Divide batch ``number`` of the training, of ``size`` clips.

        All processes make as many passes (their batch norms wait for each other), so where a remainder leaves some
        process fewer clips than the others have passes, a pass has one clip more than ``micro_batch``.
        """
        rank, world = processes.share()
        shares = [torch.tensor(share_of(size, number, each, world)) for each in range(world)]
        passes = number_of_passes(size, world, micro_batch)
        if world == passes == 1:
            return cls(shares, rank, [WHOLE])
        return cls(shares, rank, shares[rank].tensor_split(passes))

    def gather(self, values: Tensor) -> Tensor:
        """A tensor of the whole batch from this process's rows, in the order of the passes; no gradient passes."""
        return processes.gather_rows(values, self.shares)


def number_of_passes(size: int, world: int, micro_batch: int | None) -> int:
    """Passes that every process makes over its part of a batch of ``size`` clips."""
    if micro_batch is None:
        return 1
    return min(math.ceil(math.ceil(size / world) / micro_batch), size // world)


@dataclass
class SharedBatch(Batch):
    """A batch of several processes: every process knows all labels, and has the sound of its own rows only."""

    division: Division | None = None

    def features(self, frontend: Any) -> dict[str, Tensor]:
        """Features of all clips; every process computes those of its own."""
        assert self.division is not None
        return {name: self.division.gather(value) for name, value in super().features(frontend).items()}


def whole_batch(batch: Any, number: int, micro_batch: int | None) -> tuple[Any, Division]:
    """The batch of an update and its division, from what the loader of this process gave.

    Batches are counted from 0 over the whole training; ``micro_batch`` clips pass through the networks at a time.
    """
    if processes.share()[1] == 1:
        return batch, Division.of(len(batch), number, micro_batch)
    shares = processes.gather_objects(replace(batch, waves=batch.waves[:, :0], embeddings=None))
    division = Division.of(sum(map(len, shares)), number, micro_batch)
    order = torch.cat(list(division.shares)).argsort()
    ids = [clip for share in shares for clip in share.ids]
    labels = {
        name: torch.cat([getattr(share, name) for share in shares])[order]
        for name in ("seconds", "strong", "weak", "has_strong", "has_weak", "group", "annotated")
        if getattr(batch, name) is not None
    }
    own = {item.name: getattr(batch, item.name) for item in fields(batch)}
    return SharedBatch(**{**own, **labels, "ids": [ids[row] for row in order], "division": division}), division
