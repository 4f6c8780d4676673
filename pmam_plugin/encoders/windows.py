"""Sliding-window encoding with full coverage, many windows at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pmam_plugin.nn.windows import Windows

# Enough to keep the device busy; more would only cost memory.
WINDOWS_AT_ONCE = {"cuda": 32, "cpu": 8}


def window_starts(frames: int, length: int, hop: int) -> list[int]:
    """First frames of equally long windows that cover a clip; the last window ends where the clip ends."""
    if length >= frames:
        return [0]
    return [*range(0, frames - length, hop), frames - length]


def encode_windows(
    encode: Callable[[Tensor], Tensor],
    mel: Tensor,
    windows: Windows,
    frame_rate: float,
    sure: Callable[[int], tuple[int, int]],
) -> Tensor:
    """Encode a clip window by window and average where windows overlap.

    Frames that the encoder had to extrapolate at the edges of a window count only at those of the clip, where there is
    nothing better.

    Args:
        encode: ``(windows, mel, frames) -> (windows, frames, dim)``.
        mel: ``(batch, mel, frames)``.
        windows: length and hop.
        frame_rate: of ``mel`` and of the encoded frames.
        sure: from frames of a window to those of them that the encoder does not extrapolate, as (first, one past the
            last).

    Returns:
        ``(batch, frames, dim)``; every frame is covered.
    """
    batch, _, frames = mel.shape
    length = min(round(windows.length_seconds * frame_rate), frames)
    first_sure, end_sure = sure(length)
    if end_sure <= first_sure:
        first_sure, end_sure = 0, length
    starts = window_starts(frames, length, max(1, min(round(windows.hop_seconds * frame_rate), end_sure - first_sure)))
    most = WINDOWS_AT_ONCE.get(mel.device.type, 8)
    at_once = max(1, most // batch)
    total: Tensor | None = None
    count = mel.new_zeros(frames, 1)
    for first in range(0, len(starts), at_once):
        chosen = starts[first : first + at_once]
        pieces = torch.cat([mel[..., start : start + length] for start in chosen])
        encoded = torch.cat([encode(piece) for piece in pieces.split(most)]).unflatten(0, (-1, batch))
        total = encoded.new_zeros(batch, frames, encoded.shape[-1]) if total is None else total
        # Summed as they come: together they would take several times the memory of the encoder.
        for start, window in zip(chosen, encoded, strict=True):
            kept = slice(0 if start == 0 else first_sure, length if start == starts[-1] else end_sure)
            total[:, start:][:, kept] += window[:, kept]
            count[start:][kept] += 1
    assert total is not None
    return total / count
