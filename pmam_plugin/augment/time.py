"""Augmentations that move time."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from pmam_plugin.augment.base import Features, Targets, is_frame_wise


class FrameShift:
    """Roll every clip by a time of its own, audio and labels together (PMAM, DCASE baseline).

    The time is a normal draw rounded towards zero to whole frames of the coarsest stream or target, so that labels stay
    exact; a finer grid whose rate is a multiple of the coarsest one's moves by whole frames too, and any other (ATST's
    100 frames/s beside labels at 15.625) by the nearest frame.

    Args:
        std_seconds: standard deviation of the shift; PMAM shifts by 90 frames of 10 ms.
        clip_seconds: length of the clips.
        frame_rates: frames per second of streams and targets by name; where a name is absent, the number of frames
            divided by ``clip_seconds``, which for a grid with a frame too many or a rest at the end is off by a
            fraction of a per cent.
        wrap: what leaves at one end enters at the other, which cuts an event in two (harmless where every frame has its
            own label). False, for models whose targets are whole events: it is gone, and what opens at the other end
            is silence without events, marked as padding. Features must be linear then, since silence is written as 0.
    """

    def __init__(
        self,
        std_seconds: float = 0.9,
        clip_seconds: float = 10.0,
        frame_rates: Mapping[str, float] | None = None,
        wrap: bool = True,
    ) -> None:
        if std_seconds < 0 or clip_seconds <= 0:
            raise ValueError("std_seconds must not be negative and clip_seconds must be positive")
        self.std_seconds, self.clip_seconds = std_seconds, clip_seconds
        self.frame_rates, self.wrap = dict(frame_rates or {}), wrap

    def __call__(
        self, features: Features, targets: Targets, generator: Generator | None = None
    ) -> tuple[Features, Targets]:
        """Shift every clip by a draw of its own."""
        lengths = {name: value.shape[-1] for name, value in features.items()}
        lengths |= {name: value.shape[1] for name, value in targets.items() if is_frame_wise(value)}
        rates = {name: self.frame_rates.get(name, frames / self.clip_seconds) for name, frames in lengths.items()}
        coarsest = min(rates.values())
        batch = next(iter(features.values())).shape[0]
        steps = (torch.randn(batch, generator=generator).double() * self.std_seconds * coarsest).trunc()

        def moved(name: str, value: Tensor, dim: int) -> Tensor:
            shifts = (steps * (rates[name] / coarsest)).round().long()
            rolled = roll_frames(value, shifts, dim)
            if self.wrap:
                return rolled
            opened = opened_frames(shifts, value.shape[dim]).to(value.device)
            empty = value.dtype == torch.bool
            return rolled.masked_fill(opened if value.ndim == 2 else opened.unsqueeze(1 if dim == -1 else 2), empty)

        return (
            {name: moved(name, value, -1) for name, value in features.items()},
            {name: moved(name, value, 1) if name in rates else value for name, value in targets.items()},
        )


def roll_frames(values: Tensor, shifts: Tensor, dim: int = -1) -> Tensor:
    """Roll every clip along time, or another axis, by its own number of frames.

    Args:
        values: ``(batch, ...)``.
        shifts: whole numbers, ``(batch,)``; positive moves later.
        dim: the axis.

    Returns:
        ``values`` with frame ``t`` of clip ``i`` at ``(t + shifts[i]) mod frames``.
    """
    dim %= values.ndim
    frames = values.shape[dim]
    source = (torch.arange(frames, device=values.device) - shifts.to(values.device)[:, None]) % frames
    shape = [len(values)] + [frames if axis == dim else 1 for axis in range(1, values.ndim)]
    return torch.gather(values, dim, source.view(shape).expand_as(values))


def opened_frames(shifts: Tensor, frames: int) -> Tensor:
    """True where a shift that does not wrap leaves a frame empty, ``(batch, frames)``, for ``shifts`` ``(batch,)``."""
    source = torch.arange(frames, device=shifts.device) - shifts[:, None]
    return (source < 0) | (source >= frames)
