"""Frames to fit on: an array or a memory-mapped file, read in batches, each process its own part."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.processes import share, wait_for_all
from pmam_plugin.prototypes.store import ArrayStore


class Frames:
    """All frames of a fit as float32 batches on one device; iterating yields this process's part, always in one order.

    Args:
        frames: array, memory map or tensor ``(n, D)``, the same in every process.
        device: where the batches go.
        batch_frames: frames per batch.
        at_least: frames that the fit needs.
        transform: applied to every batch.

    Raises:
        InputError: not two-dimensional, fewer frames than needed, or, while iterating, NaN or infinite values.
    """

    def __init__(
        self,
        frames: Tensor | NDArray[Any],
        device: str | torch.device = "cpu",
        batch_frames: int = 32768,
        at_least: int = 1,
        transform: Callable[[Tensor], Tensor] | None = None,
    ):
        self.frames = frames if isinstance(frames, Tensor | np.ndarray) else np.asarray(frames)
        self.device, self.batch_frames, self.transform = torch.device(device), batch_frames, transform
        if self.frames.ndim != 2 or self.frames.shape[1] == 0:
            raise InputError(f"frames must have the shape (n, dimensions), got {tuple(self.frames.shape)}")
        world = share()[1]
        if len(self) < max(at_least, world):
            raise InputError(
                f"there are {len(self)} frames to fit on where at least {max(at_least, world)} are needed; check the "
                "data and its subsampling, or ask for fewer prototypes or components"
            )

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Tensor]:
        rank, world = share()
        begin, end = len(self) * rank // world, len(self) * (rank + 1) // world
        for start in range(begin, end, self.batch_frames):
            yield self._read(slice(start, min(start + self.batch_frames, end)), start)

    def sample(self, count: int, seed: int) -> NDArray[np.float32]:
        """At most ``count`` distinct rows drawn uniformly, in random order, the same in every process."""
        chosen = np.random.default_rng(seed).choice(len(self), min(count, len(self)), replace=False)
        order = np.argsort(chosen)  # a memory map is read front to back
        rows = np.empty(len(chosen), dtype=np.int64)
        rows[order] = np.arange(len(chosen))
        return self._read(chosen[order], 0)[torch.from_numpy(rows).to(self.device)].cpu().numpy()

    def _read(self, rows: slice | NDArray[np.int64], before: int) -> Tensor:
        part = self.frames[rows]
        if isinstance(part, np.ndarray):
            mapped = isinstance(self.frames, np.memmap) or not part.flags.writeable
            part = torch.from_numpy(np.array(part, np.float32) if mapped else np.ascontiguousarray(part, np.float32))
        batch = part.to(device=self.device, dtype=torch.float32)
        if not torch.isfinite(batch.sum()) and not torch.isfinite(batch).all():
            frame, coordinate = (~torch.isfinite(batch)).nonzero()[0].tolist()
            raise InputError(
                f"frame {before + frame}, dimension {coordinate} is {float(batch[frame, coordinate])}; find where the "
                "embeddings become NaN or infinite, or drop such frames before fitting"
            )
        return batch if self.transform is None else self.transform(batch)


def draw_frames(
    store: ArrayStore, clips: Sequence[str], run: int, seed: int, path: str | os.PathLike[str]
) -> NDArray[np.float16]:
    """One frame, drawn uniformly, of every run of ``run`` frames of each clip, in a file of their own.

    An estimator then reads these frames only, however often, not all embeddings every time. Processes share the
    clips; the draws depend on the seed and the clip alone. A finished file is taken as it is.

    Args:
        store: of the embeddings.
        clips: whose frames take part.
        run: length of a run; a shorter one at the end of a clip gives one frame too.
        seed: of the draws.
        path: of the file, a ``.npy``.

    Returns:
        A memory map ``(n, dim)``, float16.

    Raises:
        InputError: a clip that is not in the store, or a run below one.
    """
    target, partial = Path(path), Path(f"{path}.part")
    if run < 1:
        raise InputError(f"the subsampling of frames must be at least 1, got {run}")
    if not target.exists():
        clips = sorted(set(clips))
        ends = np.cumsum([-(-store.length(clip) // run) for clip in clips], dtype=np.int64)
        rank, world = share()
        if rank == 0:
            shape = (int(ends[-1]) if len(ends) else 0, store.width)
            np.lib.format.open_memmap(partial, "w+", np.float16, shape).flush()
        wait_for_all()
        rows = np.load(partial, mmap_mode="r+") if len(ends) else None
        for position in range(rank, len(clips), world):
            random = np.random.default_rng([seed, zlib.crc32(clips[position].encode())])
            drawn = store[clips[position]][one_of_every_run(store.length(clips[position]), run, random)]
            assert rows is not None
            rows[ends[position] - len(drawn) : ends[position]] = drawn
        if rows is not None:
            rows.flush()
        wait_for_all()
        if rank == 0:
            os.replace(partial, target)
        wait_for_all()
    return np.load(target, mmap_mode="r")


def one_of_every_run(frames: int, run: int, random: np.random.Generator) -> NDArray[np.int64]:
    """One uniformly drawn frame of every run of ``run`` consecutive frames; the last run may be shorter.

    Returns:
        Frame numbers below ``frames``, ascending, ``(ceil(frames / run),)``.
    """
    starts = np.arange(0, frames, run)
    lengths = np.minimum(run, frames - starts)
    return starts + np.floor(random.random(len(starts)) * lengths).astype(np.int64)


def as_frames(frames: Any, device: torch.device, width: int) -> Tensor:
    """A 2-D array or tensor as float32 on ``device``.

    Raises:
        InputError: not two-dimensional, of another width than the fitted data, or not finite.
    """
    tensor = frames if isinstance(frames, Tensor) else torch.as_tensor(np.asarray(frames))
    if tensor.ndim != 2 or tensor.shape[1] != width:
        raise InputError(f"expected frames of shape (n, {width}) as in fit, got {tuple(tensor.shape)}")
    tensor = tensor.to(device=device, dtype=torch.float32)
    if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
        raise InputError("the frames contain NaN or infinite values; remove them first")
    return tensor
