"""Augmentations along frequency; times, and with them labels, stay as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from pmam_plugin.augment.base import FeatureAugmentation, check_range, uniform
from pmam_plugin.augment.time import opened_frames, roll_frames

PASST_UNITS_PER_DECIBEL = math.log(10) / 50
"""How much a feature of PaSSTMel or LogMel rises when the sound gets 1 dB louder."""


class FilterAugment(FeatureAugmentation):
    """A random step-shaped filter on log features: bands of constant random gain (FilterAugment, ICASSP 2022).

    The borders of the bands are common to the batch, the gains are drawn for every clip. The PMAM reference applies the
    gain of an amplitude to a power spectrum: its decibels are half as many here.

    Args:
        decibels: gains are uniform in +- this.
        bands: smallest and largest number of bands.
        minimum_bins: smallest width of a band.
        probability: that a clip is changed.
        units_per_decibel: how much the features rise when the sound gets 1 dB louder; the default is that of PaSSTMel
            and LogMel.
    """

    def __init__(
        self,
        decibels: float = 26.0,
        bands: tuple[int, int] = (2, 4),
        minimum_bins: int = 4,
        probability: float = 1.0,
        units_per_decibel: float = PASST_UNITS_PER_DECIBEL,
    ) -> None:
        super().__init__(probability)
        check_range("the number of bands", bands[0], bands[1], 1, math.inf)
        self.decibels, self.bands, self.minimum_bins = decibels, (bands[0], bands[1]), minimum_bins
        self.units_per_decibel = units_per_decibel

    def apply(self, mel: Tensor, generator: Generator | None) -> Tensor:
        """Filter all clips."""
        batch, bins, _ = mel.shape
        count = int(torch.randint(self.bands[0], self.bands[1] + 1, (), generator=generator))
        room = bins - self.minimum_bins * count
        if room < 0:
            raise ValueError(f"{bins} bins have no room for {count} bands of at least {self.minimum_bins}")
        offsets = torch.randint(room + 1, (count - 1,), generator=generator).sort().values
        borders = offsets + self.minimum_bins * torch.arange(1, count)
        gains = uniform((batch, count), -self.decibels, self.decibels, generator)
        return mel + (self.units_per_decibel * filter_augment_gain(borders, gains, bins)).to(mel)[:, :, None]


class FrequencyDistortion(FeatureAugmentation):
    """Bend the frequency axis by one period of a sine, the same for the whole batch (PMAM).

    Args:
        maximum: largest amplitude as a share of the axis; the amplitude is uniform from 0 up to it. At 0.03 no bin
            moves by more than 3 % of the bins, and below 1 / (2 pi) the axis never folds.
        probability: that a clip is changed.
    """

    def __init__(self, maximum: float = 0.03, probability: float = 1.0) -> None:
        super().__init__(probability)
        if not 0 <= maximum < 1 / (2 * math.pi):
            raise ValueError(f"maximum lies in [0, 1 / (2 pi)), not {maximum}")
        self.maximum = maximum

    def apply(self, mel: Tensor, generator: Generator | None) -> Tensor:
        """Bend all clips by one draw."""
        amplitude, phase = torch.rand(2, generator=generator).tolist()
        return distort_frequency(mel, self.maximum * amplitude, phase)


class FrequencyWarp(FeatureAugmentation):
    """Cut out a range of bands and stretch it over the whole axis, by bicubic interpolation (ATST).

    Args:
        minimum: smallest height of the range as a share of the bands; uniform from there to 1.
        probability: of a warp; drawn for every clip or for the batch, as ``draw_per`` says.
        draw_per: whether every clip has its own warp or the batch has one (ATST-SED).
        streams: names of the features to change; all of them when None. ATST-SED warps ``atst`` only.
    """

    def __init__(
        self,
        minimum: float = 0.6,
        probability: float = 0.5,
        draw_per: Literal["batch", "clip"] = "clip",
        streams: Sequence[str] | None = None,
    ) -> None:
        super().__init__(probability, streams)
        check_range("the height of the warp", minimum, 1.0, 0, 1)
        if draw_per not in ("batch", "clip"):
            raise ValueError(f"draw_per is batch or clip, not {draw_per!r}")
        self.minimum, self.draw_per = minimum, draw_per

    def choose(self, batch: int, generator: Generator | None) -> Tensor:
        """Which clips are warped: all or none, where the batch has one warp."""
        if self.draw_per == "clip":
            return super().choose(batch, generator)
        return super().choose(1, generator).expand(batch)

    def apply(self, mel: Tensor, generator: Generator | None) -> Tensor:
        """Warp all clips."""
        batch, bins, _ = mel.shape
        draws = batch if self.draw_per == "clip" else 1
        heights = (uniform(draws, self.minimum, 1.0, generator) * bins).long().clamp(min(2, bins), bins)
        starts = (torch.rand(draws, generator=generator) * (bins - heights + 1)).long()
        return warp_frequency(mel, starts, heights)


class FrequencyMask(FeatureAugmentation):
    """Fill a range of bands of every chosen clip with the mean of what was there (SEDT).

    Args:
        minimum, maximum: height of the range, drawn uniformly, as a share of the bands.
        probability: that a clip is masked.
    """

    def __init__(self, minimum: float = 0.03, maximum: float = 0.4, probability: float = 0.5) -> None:
        super().__init__(probability)
        check_range("the masked share of the bands", minimum, maximum, 0, 1)
        self.minimum, self.maximum = minimum, maximum

    def apply(self, mel: Tensor, generator: Generator | None) -> Tensor:
        """Mask all clips."""
        batch, bins, frames = mel.shape
        heights = (uniform(batch, self.minimum, self.maximum, generator) * bins).long()
        starts = (torch.rand(batch, generator=generator) * (bins - heights + 1)).long()
        band = torch.arange(bins)
        hidden = (band >= starts[:, None]) & (band < (starts + heights)[:, None])
        inside = hidden.to(mel.device)[:, :, None]
        count = heights.clamp_min(1).to(mel)[:, None, None] * frames
        mean = mel.masked_fill(~inside, 0.0).sum(dim=(1, 2), keepdim=True) / count
        return torch.where(inside, mean, mel)


class FrequencyShift(FeatureAugmentation):
    """Move every chosen clip up or down by a few bands (SEDT).

    Args:
        std_bands: standard deviation of the normal draw that is rounded towards zero.
        maximum: largest shift in bands; larger draws are drawn again.
        probability: that a clip is shifted.
    """

    def __init__(self, std_bands: float = 2.0, maximum: int = 4, probability: float = 0.5) -> None:
        super().__init__(probability)
        if std_bands <= 0 or maximum < 0:
            raise ValueError("std_bands must be positive and maximum must not be negative")
        self.std_bands, self.maximum = std_bands, maximum

    def apply(self, mel: Tensor, generator: Generator | None) -> Tensor:
        """Shift all clips."""
        # Drawing again until it fits is the same as drawing from the part of the normal law that fits.
        edge = float(torch.special.ndtr(torch.tensor((self.maximum + 1) / self.std_bands, dtype=torch.float64)))
        level = uniform(mel.shape[0], 0.0, 1.0, generator).double() * (2 * edge - 1) + (1 - edge)
        shifts = (torch.special.ndtri(level) * self.std_bands).trunc().long().clamp(-self.maximum, self.maximum)
        return shift_frequency(mel, shifts)  # zero is the mean of a standardised band


def filter_augment_gain(borders: Tensor, gains: Tensor, bins: int) -> Tensor:
    """Spread the gains of bands over the bins they cover.

    Args:
        borders: first bin of every band but the lowest, ascending, ``(bands - 1,)``.
        gains: ``(batch, bands)``.
        bins: number of mel bins.

    Returns:
        ``(batch, bins)``.
    """
    return gains[:, torch.bucketize(torch.arange(bins), borders, right=True)]


def distort_frequency(mel: Tensor, amplitude: float, phase: float) -> Tensor:
    """Move bin ``j`` of ``F`` to ``F (j/F + amplitude sin(2 pi (j/F + phase)))`` and read whole bins off again.

    Args:
        mel: ``(batch, mel, frames)``.
        amplitude: as a share of the axis, below ``1 / (2 pi)``.
        phase: in periods.

    Returns:
        Linear interpolation between the moved bins; beyond the outermost of them, their value.
    """
    bins = mel.shape[1]
    place = torch.arange(bins, dtype=torch.float64)
    moved = bins * (place / bins + amplitude * torch.sin(2 * math.pi * (place / bins + phase)))
    above = torch.searchsorted(moved, place).clamp(1, bins - 1)
    share = ((place - moved[above - 1]) / (moved[above] - moved[above - 1])).clamp(0.0, 1.0)
    above = above.to(mel.device)
    return torch.lerp(mel[:, above - 1], mel[:, above], share.to(mel)[:, None])


def warp_frequency(mel: Tensor, starts: Tensor, heights: Tensor) -> Tensor:
    """Stretch bands ``start .. start + height - 1`` over the whole axis, by cubic interpolation.

    The same as cropping and ``torch.nn.functional.interpolate(..., mode="bicubic", align_corners=True)``, but with a
    range for every clip.

    Args:
        mel: ``(batch, mel, frames)``.
        starts: first band of the range, ``(batch,)`` or ``(1,)`` for all clips.
        heights: number of bands of the range, alike.

    Returns:
        ``(batch, mel, frames)``.
    """
    bins = mel.shape[1]
    heights = heights[:, None].double()
    position = torch.arange(bins, dtype=torch.float64) * (heights - 1) / max(1, bins - 1)
    below = position.floor()
    distance = position - below
    matrix = torch.zeros(len(starts), bins, bins, dtype=torch.float64)
    for step, weight in zip((-1, 0, 1, 2), _cubic_weights(distance)):
        # Bands beyond the range repeat its outermost ones.
        source = torch.minimum((below + step).clamp_min(0), heights - 1).long() + starts[:, None]
        matrix.scatter_add_(2, source[:, :, None], weight[:, :, None])
    return torch.matmul(matrix.to(mel), mel)


def shift_frequency(mel: Tensor, shifts: Tensor, fill: float = 0.0) -> Tensor:
    """Move every clip up by ``shifts`` bands (down where negative), ``(batch,)``; empty bands get ``fill``."""
    opened = opened_frames(shifts, mel.shape[1])[:, :, None]
    return roll_frames(mel, shifts, dim=1).masked_fill(opened.to(mel.device), fill)


def _cubic_weights(distance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of the four neighbours of a point ``distance`` after the second one (Keys' kernel, a = -0.75)."""
    a = -0.75

    def near(x: Tensor) -> Tensor:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: Tensor) -> Tensor:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return far(distance + 1), near(distance), near(1 - distance), far(2 - distance)
