"""Noise on linear mel spectrograms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from pmam_plugin.augment.base import FeatureAugmentation


class AdditiveNoise(FeatureAugmentation):
    """Noise of the clip's own long-term spectrum, for *linear* mel features, before the logarithm (SEDT).

    Args:
        snr_decibels: mean square of a band over that of its noise; 30 in SEDT's semi-supervised recipe.
        probability: that a clip is changed.
        streams: names of the features to change; all of them when None.
    """

    def __init__(
        self, snr_decibels: float = 30.0, probability: float = 0.5, streams: Sequence[str] | None = None
    ) -> None:
        super().__init__(probability, streams)
        self.snr_decibels = snr_decibels

    def apply(self, mel: Tensor, generator: Generator | None) -> Tensor:
        """Add noise to all clips."""
        noise = torch.randn(mel.shape, generator=generator).to(mel)
        return add_band_noise(mel, noise, self.snr_decibels)


def add_band_noise(mel: Tensor, noise: Tensor, snr_decibels: float) -> Tensor:
    """Scale unit noise band by band to the wanted ratio and add it; sums below zero become zero.

    Args:
        mel: linear mel, ``(batch, mel, frames)``.
        noise: of variance 1, the same shape.
        snr_decibels: mean square of a band over that of its noise, dB.
    """
    level = mel.square().mean(dim=2, keepdim=True) * 10 ** (-snr_decibels / 10)
    return (mel + noise * level.sqrt()).clamp_min(0.0)
