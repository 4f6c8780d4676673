"""Several processes for a test, which share one import of the package."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes


def run_processes(work: Callable[..., None], count: int, *arguments: Any, backend: str = "gloo") -> None:
    """Run ``work(rank, *arguments)`` in ``count`` processes of a group; what one of them raises is raised here.

    With the backend ``nccl`` each has a GPU of its own.
    """
    multiprocessing.set_forkserver_preload([work.__module__])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start_processes(_work, (count, port, backend, work, arguments), count, start_method="forkserver")


def _work(
    rank: int, count: int, port: int, backend: str, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}  # as torchrun does
    torch.set_num_threads(1)
    if backend == "nccl":
        torch.cuda.set_device(rank)
        torch.backends.cudnn.allow_tf32 = False
    dist.init_process_group(backend, f"tcp://127.0.0.1:{port}", world_size=count, rank=rank)
    work(rank, *arguments)
    dist.destroy_process_group()
