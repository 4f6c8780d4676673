"""Frames onto another time grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def interpolate_frames(frames: Tensor, length: int, ratio: float | None = None, offset: float = 0.0) -> Tensor:
    """Linear interpolation along time, each input frame standing at the middle of what it covers.

    Output frame ``t`` reads the input at ``(t + 0.5 - offset) / ratio - 0.5``, clamped at both ends; with the default
    ratio that is ``torch.nn.functional.interpolate(mode="linear", align_corners=False)``. A fixed ratio keeps two
    streams of one clip aligned whatever its length, where stretching to a common length would not.

    Args:
        frames: ``(batch, frames, dim)``.
        length: number of output frames.
        ratio: output frames per input frame; by default the two lengths span the same time.
        offset: output frames by which the input frames stand later.

    Returns:
        ``(batch, length, dim)``, in the dtype of ``frames``.
    """
    if ratio is None:
        ratio = length / frames.shape[1]
    if ratio == 1 and offset == 0 and length == frames.shape[1]:
        return frames
    last = frames.shape[1] - 1
    position = (torch.arange(length, device=frames.device, dtype=torch.float64) + (0.5 - offset)) / ratio - 0.5
    position = position.clamp(0, last)
    left = position.floor().long()
    right = (left + 1).clamp(max=last)
    weight = (position - left).to(frames.dtype)[:, None]
    return torch.lerp(frames[:, left], frames[:, right], weight)


@dataclass(frozen=True)
class Grid:
    """How the columns of a slower grid lie among the frames; see :func:`interpolate_frames`.

    Attributes:
        ratio: frames per column.
        offset: frames by which the columns stand later.
    """

    ratio: float
    offset: float = 0.0

    def interpolate(self, columns: Tensor, frames: int) -> Tensor:
        """Columns ``(batch, columns, dim)`` at ``frames`` frames, ``(batch, frames, dim)``."""
        return interpolate_frames(columns, frames, self.ratio, self.offset)

    def between(self, columns: int) -> tuple[int, int]:
        """Frames from the first column to the last, as (first, one past the last); the others repeat one of the two."""
        middle = (self.ratio - 1) / 2 + self.offset
        return math.ceil(middle), math.floor(middle + (columns - 1) * self.ratio) + 1
