"""Batches with a fixed number of clips from every subset."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch.utils.data import Sampler

from pmam_plugin.data.manifest import SUBSETS
from pmam_plugin.errors import InputError


def share_of(size: int, number: int, rank: int, world_size: int) -> list[int]:
    """Rows of a batch that a process takes: one of every ``world_size``, so that all have clips of every subset.

    Args:
        size: clips of the whole batch.
        number: of the batch; who takes one more where ``size`` is no multiple changes from batch to batch.
        rank, world_size: of the process.
    """
    return list(range((rank - number) % world_size, size, world_size))


class SubsetBatchSampler(Sampler[list[int]]):
    """Yields lists of indices: so many strong, then synthetic, weak and unlabelled clips in every batch.

    The batch is that of all processes together; each yields its share of it (:func:`share_of`), so that the number of
    processes changes neither an epoch nor an update.

    Each subset is an endless concatenation of permutations of its clips, drawn from ``(seed, subset, round)``, and
    batch number ``n`` of the whole training takes its ``n``-th slice. So every clip of every subset is used before any
    is used again, epochs go on where the last one ended (an epoch is no pass over anything but the smallest subset),
    and a batch depends on nothing but ``(seed, epoch, step)``: a resumed run sees the same batches.

    Args:
        indices_per_subset: subset -> indices into the dataset.
        batch: subset -> clips per batch; subsets with 0, or not named, are not used.
        seed: of the permutations.
        steps_per_epoch: batches per epoch; ``"smallest"`` is as many as the smallest subset can fill.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        InputError: an unknown subset, a wanted subset without clips, nothing wanted at all, or fewer clips in a batch
            than there are processes.
    """

    def __init__(
        self,
        indices_per_subset: Mapping[str, Sequence[int]],
        batch: Mapping[str, int],
        seed: int,
        steps_per_epoch: int | str = "smallest",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.batch = {name: int(batch[name]) for name in _in_order(batch) if batch[name]}
        if not self.batch or min(self.batch.values()) < 0:
            raise InputError(f"the batch sizes are {dict(batch)}; give at least one subset a positive number of clips")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not one of {world_size} processes")
        if sum(self.batch.values()) < world_size:
            raise InputError(
                f"a batch of {sum(self.batch.values())} clips cannot be shared by {world_size} processes; "
                "start fewer or enlarge the batch"
            )
        for name in self.batch:
            if not len(indices_per_subset.get(name, ())):
                raise InputError(
                    f"the batch wants {self.batch[name]} {name} clips but there are none; "
                    "add the recordings or set the number to 0"
                )
        self.indices = {name: indices_per_subset[name] for name in self.batch}
        self.seed, self.rank, self.world_size = int(seed), rank, world_size
        self.steps_per_epoch = self._steps(steps_per_epoch)
        self.epoch = 1
        self._rounds: dict[str, tuple[int, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.steps_per_epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch the next iteration goes over; the first is 1, as SpeechBrain counts."""
        if epoch < 1:
            raise ValueError(f"epochs count from 1, not {epoch}")
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        first = (self.epoch - 1) * self.steps_per_epoch
        return (self.batch_at(first + step) for step in range(self.steps_per_epoch))

    def batch_at(self, number: int) -> list[int]:
        """This process's indices of one batch of the whole training, counted from 0 over all epochs."""
        whole = [index for name, size in self.batch.items() for index in self._slice(name, number, size)]
        return [whole[row] for row in share_of(len(whole), number, self.rank, self.world_size)]

    def _slice(self, name: str, number: int, size: int) -> list[int]:
        begin = number * size
        indices, count = self.indices[name], len(self.indices[name])
        return [
            int(indices[self._permutation(name, position // count)[position % count]])
            for position in range(begin, begin + size)
        ]

    def _permutation(self, name: str, round_: int) -> np.ndarray:
        known = self._rounds.get(name)
        if known is None or known[0] != round_:
            generator = np.random.default_rng([self.seed & (2**63 - 1), zlib.crc32(name.encode()), round_])
            known = (round_, generator.permutation(np.arange(len(self.indices[name]), dtype=np.uint32)))
            self._rounds[name] = known
        return known[1]

    def _steps(self, wanted: int | str) -> int:
        if wanted == "smallest":
            return max(1, min(len(self.indices[name]) // size for name, size in self.batch.items()))
        if isinstance(wanted, str) or wanted < 1:
            raise InputError(f"steps_per_epoch is {wanted!r}; give a positive number or 'smallest'")
        return int(wanted)


def _in_order(batch: Mapping[str, int]) -> list[str]:
    unknown = [name for name in batch if name not in SUBSETS]
    if unknown:
        raise InputError(
            f"the batch sizes name the unknown subset {unknown[0]!r}; the subsets are {', '.join(SUBSETS)}"
        )
    return [name for name in SUBSETS if name in batch]
