"""Augmentations that move or hide time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from pmam_plugin.augment.base import (
    Features,
    Targets,
    check_probability,
    check_range,
    choose_clips,
    is_frame_wise,
    uniform,
)


class FrameShift:
    """Roll every clip by a time of its own, audio and labels together (PMAM, DCASE baseline).

    What leaves at one end enters at the other. The time is a normal draw rounded towards zero to whole frames of the
    coarsest stream or target, so that labels stay exact; a finer grid whose rate is a multiple of the coarsest one's
    moves by whole frames too, and any other (ATST's 100 frames/s beside labels at 15.625) by the nearest frame.

    Args:
        std_seconds: standard deviation of the shift; PMAM shifts by 90 frames of 10 ms.
        clip_seconds: length of the clips.
        frame_rates: frames per second of streams and targets by name; where a name is absent, the number of frames
            divided by ``clip_seconds``, which for a grid with a frame too many or a rest at the end is off by a
            fraction of a per cent.
    """

    def __init__(
        self,
        std_seconds: float = 0.9,
        clip_seconds: float = 10.0,
        frame_rates: Mapping[str, float] | None = None,
    ) -> None:
        if std_seconds < 0 or clip_seconds <= 0:
            raise ValueError("std_seconds must not be negative and clip_seconds must be positive")
        self.std_seconds, self.clip_seconds = std_seconds, clip_seconds
        self.frame_rates = dict(frame_rates or {})

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
            return roll_frames(value, (steps * (rates[name] / coarsest)).round().long(), dim)

        return (
            {name: moved(name, value, -1) for name, value in features.items()},
            {name: moved(name, value, 1) if name in rates else value for name, value in targets.items()},
        )


class TimeMask:
    """Hide one stretch of every chosen clip, at the same time in all streams (SEDT; DCASE 2024 systems).

    Args:
        minimum, maximum: length of the stretch, drawn uniformly, as a share of the clip; SEDT takes (0, 0.1).
        probability: that a clip is masked.
        fill: value of hidden cells. 0 is the mean of a standardised band and the floor of features scaled to [0, 1].
        mask_targets: frame-wise targets are zero where the sound is hidden (else the model has to guess it).
        streams: names of the features to mask; all of them when None.
    """

    def __init__(
        self,
        minimum: float = 0.0,
        maximum: float = 0.1,
        probability: float = 0.2,
        fill: float = 0.0,
        mask_targets: bool = False,
        streams: Sequence[str] | None = None,
    ) -> None:
        check_range("the masked share of the clip", minimum, maximum, 0, 1)
        check_probability(probability)
        self.minimum, self.maximum, self.probability = minimum, maximum, probability
        self.fill, self.mask_targets = fill, mask_targets
        self.streams = None if streams is None else tuple(streams)

    def __call__(
        self, features: Features, targets: Targets, generator: Generator | None = None
    ) -> tuple[Features, Targets]:
        """Mask the chosen clips."""
        batch = next(iter(features.values())).shape[0]
        chosen = choose_clips(batch, self.probability, generator)
        lengths = uniform(batch, self.minimum, self.maximum, generator) * chosen
        starts = torch.rand(batch, generator=generator) * (1 - lengths)

        def hidden(value: Tensor, frames: int) -> Tensor:
            middles = (torch.arange(frames) + 0.5) / frames
            inside = (middles >= starts[:, None]) & (middles < (starts + lengths)[:, None])
            return inside.to(value.device)

        masked = {
            name: value.masked_fill(hidden(value, value.shape[-1])[:, None], self.fill)
            if self.streams is None or name in self.streams
            else value
            for name, value in features.items()
        }
        if not self.mask_targets:
            return masked, targets
        return masked, {
            name: value.masked_fill(hidden(value, value.shape[1])[:, :, None], 0.0) if value.ndim == 3 else value
            for name, value in targets.items()
        }


def roll_frames(values: Tensor, shifts: Tensor, dim: int = -1) -> Tensor:
    """Roll every clip along time by its own number of frames.

    Args:
        values: ``(batch, ...)``.
        shifts: whole numbers, ``(batch,)``; positive moves later.
        dim: the time axis.

    Returns:
        ``values`` with frame ``t`` of clip ``i`` at ``(t + shifts[i]) mod frames``.
    """
    dim %= values.ndim
    frames = values.shape[dim]
    source = (torch.arange(frames, device=values.device) - shifts.to(values.device)[:, None]) % frames
    shape = [len(values)] + [frames if axis == dim else 1 for axis in range(1, values.ndim)]
    return torch.gather(values, dim, source.view(shape).expand_as(values))
