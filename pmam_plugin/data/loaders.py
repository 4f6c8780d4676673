"""Data loaders that a killed run can resume exactly."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from pmam_plugin.data.batch import collate
from pmam_plugin.data.dataset import ClipDataset
from pmam_plugin.data.sampler import SubsetBatchSampler


def automatic_workers(device_type: str) -> int:
    """Processes that read clips ahead for one process that trains, where nothing says how many.

    Beside a GPU, the cores that it leaves over, up to eight. On a CPU the training itself keeps the cores busy, and
    decoding takes little beside it: one for every four cores beyond the first four, so none on a laptop's two or four.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's
    return max(0, min(8, (cores - 4) // 4 if device_type == "cpu" else cores - 1))


def training_loader(
    dataset: ClipDataset,
    batch: Mapping[str, int],
    seed: int,
    steps_per_epoch: int | str = "smallest",
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Any:
    """A SpeechBrain ``SaveableDataLoader`` over batches of mixed subsets.

    It has a generator of its own: creating an iterator draws from the loader's generator, and if that were the global
    one, a run resumed in mid-epoch would be one draw off.

    Args:
        dataset: of all subsets in ``batch``.
        batch: subset -> clips per batch of all processes together.
        seed: of the order.
        steps_per_epoch: see :class:`SubsetBatchSampler`.
        workers: processes that read ahead; with the waveform cache none are needed.
        rank, world_size: of the process.
    """
    from speechbrain.dataio.dataloader import SaveableDataLoader

    sampler = SubsetBatchSampler(dataset.indices, batch, seed, steps_per_epoch, rank, world_size)
    return SaveableDataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(seed),
        pin_memory=torch.cuda.is_available(),
    )


def evaluation_loader(
    dataset: ClipDataset,
    batch_clips: int,
    workers: int = 0,
    indices: Sequence[int] | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[Any]:
    """A loader over clips in their order, each once; every process gets its batches of them.

    Args:
        dataset: of the clips.
        batch_clips: clips at a time; the last batch may be smaller.
        workers: processes that read ahead.
        indices: of the clips wanted (a process's share, those not done yet); all when not given.
        rank, world_size: of the process; batches are dealt out in turn, and are the same for any number of processes.
    """
    wanted = range(len(dataset)) if indices is None else indices
    begins = range(rank * batch_clips, len(wanted), world_size * batch_clips)
    batches: Any = [wanted[begin : begin + batch_clips] for begin in begins]  # slices of a range take next to no memory
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        generator=torch.Generator().manual_seed(0),
        pin_memory=torch.cuda.is_available(),
    )
