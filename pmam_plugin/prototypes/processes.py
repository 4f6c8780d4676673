"""Sums over processes: what makes one fit out of the parts that several processes hold.

Every function is the identity when ``torch.distributed`` is not initialised, so the estimators are written once.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def process_count() -> int:
    """Number of processes that fit together (1 without torch.distributed)."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Replace every tensor by its sum over all processes, in place."""
    if process_count() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def rows_of_all_processes(rows: Tensor) -> Tensor:
    """Rows of all processes one after the other, ``(sum of n, ...)``, the same in every process."""
    world = process_count()
    if world == 1:
        return rows
    lengths = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world)]
    dist.all_gather(lengths, torch.tensor([len(rows)], dtype=torch.int64, device=rows.device))
    longest = max(int(length) for length in lengths)
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(length)] for part, length in zip(parts, lengths)])
