"""Mel filterbanks, and statistics of mel bands."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def kaldi_filterbank(
    n_mels: int,
    n_fft: int,
    sample_rate: int,
    low: float,
    high: float,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Triangles evenly spaced on Kaldi's mel scale ``1127 ln(1 + f / 700)`` and straight on that scale, not in Hz.

    Args:
        n_mels: bands.
        n_fft: length of the Fourier transform; the bin at half the sample rate gets no weight.
        sample_rate: Hz.
        low: lower end of the lowest band, Hz.
        high: upper end of the highest band, Hz.
        device: where to build it.
        dtype: computed in; what was trained with rounded feet of its triangles knows them so.

    Returns:
        Weights without area normalisation, ``(n_mels, n_fft // 2 + 1)``.
    """
    low_mel, high_mel = (1127.0 * math.log1p(hertz / 700.0) for hertz in (low, high))
    step = (high_mel - low_mel) / (n_mels + 1)
    left = low_mel + step * torch.arange(n_mels, device=device, dtype=dtype)[:, None]
    bins = torch.arange(n_fft // 2 + 1, device=device, dtype=dtype) * (sample_rate / n_fft)
    position = (1127.0 * torch.log1p(bins / 700.0) - left) / step  # 0 at the left foot, 1 at the tip, 2 at the right
    bank = torch.minimum(position, 2.0 - position).clamp_min_(0.0)
    bank[:, -1] = 0.0
    return bank.float()


def triangular_filterbank(n_mels: int, n_fft: int, sample_rate: int, low: float, high: float, mel_scale: str) -> Tensor:
    """Torchaudio's triangles, straight in Hz, ``(n_mels, n_fft // 2 + 1)``; ``mel_scale`` is htk or slaney."""
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(n_fft // 2 + 1, low, high, n_mels, sample_rate, None, mel_scale).T.contiguous()


def band_statistics(mels: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every band over all clips and frames, in one pass and double precision.

    Args:
        mels: log-mel spectrograms, each ``(batch, mel, frames)``.

    Returns:
        float32 mean and standard deviation (at least 1e-6), each ``(mel,)``.

    Raises:
        ValueError: there was nothing to measure.
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for mel in mels:
        values = mel.double()
        count += values.shape[0] * values.shape[2]
        total = total + values.sum(dim=(0, 2))
        squares = squares + values.square().sum(dim=(0, 2))
    if count == 0:
        raise ValueError("no frames to take the statistics of the bands from")
    mean = total / count
    variance = (squares / count - mean.square()).clamp_min(1e-12)
    return mean.float(), variance.sqrt().float()
