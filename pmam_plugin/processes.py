"""What makes one run out of several processes; everything is the identity without ``torch.distributed``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def share() -> tuple[int, int]:
    """(rank, number of processes)."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Replace every tensor by its sum over all processes, in place."""
    if share()[1] > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def wait_for_all() -> None:
    """Go on once every process is here."""
    if share()[1] > 1:
        dist.barrier()


def gather_objects(value: T) -> list[T]:
    """What every process has, in the order of their ranks; for small things, which are pickled."""
    if share()[1] == 1:
        return [value]
    values: list[T] = [value] * share()[1]
    dist.all_gather_object(values, value)
    return values


def gather_dealt(values: Sequence[T]) -> list[T]:
    """One list again of what was dealt out in turn, one to each process, the first to the first."""
    rounds = zip_longest(*([(value,) for value in part] for part in gather_objects(list(values))), fillvalue=())
    return list(chain.from_iterable(chain.from_iterable(rounds)))


def gather_rows(values: Tensor, rows: Sequence[Tensor]) -> Tensor:
    """A tensor of the whole batch from every process's rows of it; no gradient passes.

    Args:
        values: this process's, ``(its rows, ...)``.
        rows: for every process, where its rows belong, ``(its rows,)`` each; together every row once.
    """
    if len(rows) == 1:
        return values
    most = max(map(len, rows))
    padded = values.new_zeros(most, *values.shape[1:])
    padded[: len(values)] = values.detach()
    parts = [torch.empty_like(padded) for _ in rows]
    dist.all_gather(parts, padded)
    whole = values.new_empty(sum(map(len, rows)), *values.shape[1:])
    for part, places in zip(parts, rows, strict=True):
        whole[places.to(whole.device)] = part[: len(places)]
    return whole
