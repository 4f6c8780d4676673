"""Samples of any type, channels and rate -> mono float32 waveforms at one rate."""

from __future__ import annotations

import math

import numpy as np
import soxr
import torch
from torch import Tensor

from pmam_plugin.errors import InputError

# Full scale is 1, and files scaled to 16-bit integers exist; the power of anything larger leaves single precision.
LARGEST_SAMPLE = 1e6
RATES = (50, 20_000_000)
"""Sample rates of sound, from whales' to bats', in Hz; a header that says another one is broken."""


def as_mono(samples: np.ndarray | Tensor, name: str, channels_last: bool | None = None) -> np.ndarray:
    """Samples of any numeric type and one or two axes as a mono waveform at full scale 1.

    Args:
        samples: ``(samples,)``, ``(samples, channels)`` or ``(channels, samples)``.
        name: what messages call them.
        channels_last: which of two axes the channels are; None takes the shorter one.

    Returns:
        float32, ``(samples,)``.

    Raises:
        InputError: more than two axes, or not numbers.
    """
    if isinstance(samples, Tensor):
        samples = samples.detach().cpu()
        # numpy knows no bfloat16
        samples = (samples.float() if samples.is_floating_point() else samples).numpy()
    array = np.asarray(samples)
    if array.ndim not in (1, 2):
        raise InputError(f"{name} have {array.ndim} axes; give (samples,) or (samples, channels)")
    array = _as_float(array, name)
    if array.ndim == 2 and array.size:
        last = array.shape[0] >= array.shape[1] if channels_last is None else channels_last
        array = mean_of_channels(array if last else array.T)
    return array.reshape(-1)


def to_mono_resampled(samples: np.ndarray | Tensor, source_rate: int, sample_rate: int) -> Tensor:
    """Average the channels of samples already in memory, and resample them.

    Args:
        samples: ``(samples,)``, ``(samples, channels)`` or ``(channels, samples)``: of two axes the shorter one is
            taken to be the channels. Floating point at full scale 1, or integer PCM (scaled to it).
        source_rate: the rate of ``samples``, in Hz.
        sample_rate: the rate wanted, in Hz.

    Returns:
        float32 waveform on the CPU, ``(samples,)``.

    Raises:
        InputError: no samples, NaN or infinite samples, more than two axes, or not numbers.
    """
    name = "the given samples"
    resampler = MonoResampler(source_rate, sample_rate, name)
    wave = torch.cat((resampler.feed(samples), resampler.finish()))
    if not resampler.received:
        raise InputError(f"{name}: no samples (zero length); leave the recording out or record it again")
    return wave


def fit_length(waveform: Tensor, samples: int) -> Tensor:
    """Zero-pad at the end, or cut, the last axis to ``samples`` values."""
    missing = samples - waveform.shape[-1]
    return torch.nn.functional.pad(waveform, (0, missing)) if missing > 0 else waveform[..., :samples]


class MonoResampler:
    """Average channels and resample audio that arrives in pieces; one piece gives what many give.

    Of two axes the shorter one of the first piece is that of the channels, and stays so: a last piece may be short.

    Args:
        source_rate: of the pieces, Hz.
        sample_rate: wanted, Hz.
        name: what messages call the recording.

    Attributes:
        received: samples fed so far.

    Raises:
        InputError: a rate that is none of sound.
    """

    def __init__(self, source_rate: int, sample_rate: int, name: str) -> None:
        if source_rate <= 0 or sample_rate <= 0:
            raise InputError(f"{name}: sample rates must be positive, not {source_rate} and {sample_rate} Hz")
        if not RATES[0] <= source_rate <= RATES[1]:
            raise InputError(f"{name}: a sample rate of {source_rate} Hz is none of sound; correct it or convert again")
        self.name, self.received = name, 0
        self._channels_last: bool | None = None
        self._resampler = None
        if source_rate != sample_rate:
            self._resampler = soxr.ResampleStream(source_rate, sample_rate, 1, dtype="float32")

    def feed(self, samples: np.ndarray | Tensor) -> Tensor:
        """Samples as :func:`as_mono` takes them -> ``(samples',)``; a resampler holds some back.

        Raises:
            InputError: NaN or infinite samples, or no waveform.
        """
        if self._channels_last is None and samples.ndim == 2 and len(samples) != samples.shape[1]:
            self._channels_last = len(samples) > samples.shape[1]
        mono = as_mono(samples, self.name, self._channels_last)
        check_samples(mono, self.name)
        self.received += len(mono)
        if self._resampler is not None:
            mono = self._resampler.resample_chunk(mono, last=False)
        # A copy where numpy only lent a view or read-only memory: tensors are written to.
        return torch.from_numpy(np.require(mono, dtype=np.float32, requirements=["C", "W"]))

    def finish(self) -> Tensor:
        """What was held back."""
        if self._resampler is None:
            return torch.zeros(0)
        return torch.from_numpy(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))


def check_samples(samples: np.ndarray, name: str) -> float:
    """The largest absolute value of samples.

    Raises:
        InputError: NaN, infinite or absurd values.
    """
    peak = max(abs(float(samples.max())), abs(float(samples.min()))) if samples.size else 0.0
    if not math.isfinite(peak):
        raise InputError(f"{name}: NaN or infinite samples; repair the recording or leave it out")
    if peak > LARGEST_SAMPLE:
        raise InputError(f"{name}: samples up to {peak:.0e}, where full scale is 1; scale the recording down")
    return peak


def mean_of_channels(samples: np.ndarray) -> np.ndarray:
    """``(samples, channels)`` -> ``(samples,)``; a matrix product, many times faster than a mean over a short axis."""
    channels = samples.shape[1]
    if channels == 1:
        return samples[:, 0]
    return samples @ np.full(channels, 1.0 / channels, dtype=np.float32)


def _as_float(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype.kind == "u":
        middle = 2 ** (8 * array.dtype.itemsize - 1)
        return ((array.astype(np.float64) - middle) / middle).astype(np.float32)
    if array.dtype.kind == "i":
        return (array / 2 ** (8 * array.dtype.itemsize - 1)).astype(np.float32)
    raise InputError(f"{name} are of type {array.dtype}; give floating point or integer samples")
