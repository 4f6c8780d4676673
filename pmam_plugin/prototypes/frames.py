"""Frames to fit on, whatever holds them: an array, a memory-mapped file, or batches that never fit in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes.processes import rows_of_all_processes


class FrameBatches:
    """The frames of this process as float32 batches on one device, the same ones in the same order at every pass.

    Args:
        frames: array or tensor ``(n, D)``, ``numpy.memmap`` included (read slice by slice), or an iterable of such
            batches that can be iterated again and again (an object with ``__iter__``, not a generator).
        batch_frames: frames per batch; small batches of an iterable are joined up to this size.
        device: where the batches go.

    Attributes:
        count: frames of this process, known after the first complete pass (0 before).
        width: D, known after the first batch (0 before).

    Raises:
        InputError: while iterating: not two-dimensional, empty, NaN or infinite values, or other frames than in the
            pass before.
    """

    def __init__(self, frames: Any, batch_frames: int, device: torch.device):
        if isinstance(frames, Iterator):
            raise InputError(
                "frames come from an iterator that can be read only once; pass an object whose __iter__ starts anew"
            )
        self._frames = frames
        self._batch_frames = batch_frames
        self._device = device
        self.count = 0
        self.width = 0

    def __iter__(self) -> Iterator[Tensor]:
        count = 0
        for batch in self._joined():
            if not self.count and not torch.isfinite(batch.sum()):
                _name_bad_frame(batch, count)
            count += len(batch)
            yield batch
        if self.count and count != self.count:
            raise InputError(
                f"the batches held {self.count} frames in one pass and {count} in the next; every pass must "
                "yield the same frames in the same order"
            )
        self.count = count

    def _joined(self) -> Iterator[Tensor]:
        waiting: list[Tensor] = []
        length = 0
        for batch in self._raw():
            for part in batch.split(self._batch_frames):
                if length and length + len(part) > self._batch_frames:
                    yield _join(waiting)
                    waiting, length = [], 0
                waiting.append(part)
                length += len(part)
        if waiting:
            yield _join(waiting)

    def _raw(self) -> Iterator[Tensor]:
        if isinstance(self._frames, Tensor | np.ndarray):
            self._check_shape(self._frames.shape)
            for start in range(0, len(self._frames), self._batch_frames):
                yield self._convert(self._frames[start : start + self._batch_frames])
        elif isinstance(self._frames, Iterable) and not isinstance(self._frames, str | bytes):
            for batch in self._frames:
                array = batch if isinstance(batch, Tensor | np.ndarray) else np.asarray(batch)
                self._check_shape(array.shape)
                yield self._convert(array)
        else:
            raise InputError(
                f"cannot fit on {type(self._frames).__name__}; pass an array, a tensor or an iterable of batches"
            )

    def _convert(self, batch: Tensor | np.ndarray) -> Tensor:
        if isinstance(batch, np.ndarray):
            if isinstance(batch, np.memmap) or not batch.flags.writeable:
                batch = np.array(batch, dtype=np.float32)
            batch = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32))
        return batch.to(device=self._device, dtype=torch.float32)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[1] == 0:
            raise InputError(f"frames must have the shape (n, dimensions), got {tuple(shape)}")
        if self.width and shape[1] != self.width:
            raise InputError(f"a batch has {shape[1]} dimensions where the ones before had {self.width}")
        self.width = int(shape[1])


def frames_of_all_processes(batches: FrameBatches, at_least: int, what: str) -> int:
    """Number of frames over all processes after a first pass.

    Raises:
        InputError: in every process alike, when one has no frames or all together have fewer than ``at_least``.
    """
    counts = rows_of_all_processes(torch.tensor([batches.count], device=batches._device)).tolist()
    if min(counts) == 0:
        place = "" if len(counts) == 1 else f" in process {counts.index(0)}"
        raise InputError(f"there are no frames to fit on{place}; check the data and its subsampling")
    if sum(counts) < at_least:
        raise InputError(f"{sum(counts)} frames are fewer than the {at_least} {what}; ask for fewer or give more data")
    return sum(counts)


def sample_frames(batches: FrameBatches, count: int, seed: int, at_least: int, what: str) -> Tensor:
    """Draw at most ``count`` distinct frames, uniformly, in one pass and whatever the order of the batches.

    Every frame gets a pseudo-random key from its own bits and the seed, and the smallest keys win (bottom-k
    sampling). One process or many, large batches or small: the same frames give the same sample in the same order.

    Returns:
        ``(<= count, D)``, on the device of the batches, the same in every process.
    """
    keys = torch.empty(0, dtype=torch.int64, device=batches._device)
    rows = None
    for batch in batches:
        for part in batch.split(4096):
            new = _content_keys(part, seed)
            keep = new < keys[-1] if len(keys) == count else slice(None)
            pool = part[keep] if rows is None else torch.cat([rows, part[keep]])
            keys, rows = _smallest(torch.cat([keys, new[keep]]), pool, count)
    frames_of_all_processes(batches, at_least, what)
    assert rows is not None
    keys, rows = _smallest(rows_of_all_processes(keys), rows_of_all_processes(rows), count)
    if len(rows) < min(at_least, count):
        raise InputError(f"only {len(rows)} different frames for {at_least} {what}; ask for fewer or give more data")
    return rows


def _smallest(keys: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    keys, order = keys.sort(stable=True)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    order = order[first][:count]
    return keys[first][:count], rows[order]


def _content_keys(frames: Tensor, seed: int) -> Tensor:
    """Integer arithmetic only (it wraps alike everywhere), so that no rounding depends on the size of a batch."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randint(-(2**62), 2**62, (frames.shape[1],), generator=generator, dtype=torch.int64) | 1
    bits = (frames + 0.0).contiguous().view(torch.int32).to(torch.int64)  # + 0.0: minus zero equals zero
    keys = (bits * factors.to(frames.device)).sum(dim=1) + factors[0].item()
    # splitmix64's finaliser, whose shifts fill with zeros
    keys = (keys ^ (keys >> 30 & 2**34 - 1)) * -4658895280553007687
    keys = (keys ^ (keys >> 27 & 2**37 - 1)) * -7723592293110705685
    return keys ^ (keys >> 31 & 2**33 - 1)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _name_bad_frame(batch: Tensor, before: int) -> None:
    bad = ~torch.isfinite(batch).all(dim=1)
    if bad.any():
        frame = int(bad.nonzero()[0, 0])
        coordinate = int((~torch.isfinite(batch[frame])).nonzero()[0, 0])
        raise InputError(
            f"frame {before + frame}, dimension {coordinate} is {float(batch[frame, coordinate])}; find where the "
            "embeddings become NaN or infinite, or drop such frames before fitting"
        )
