"""The front ends of published systems, and a small generic one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from pmam_plugin.config import configurable
from pmam_plugin.features.banks import band_statistics, kaldi_filterbank, triangular_filterbank
from pmam_plugin.features.base import MelFrontEnd


class _JitteredMel(MelFrontEnd):
    """Pre-emphasis (``y[n] = x[n+1] - 0.97 x[n]``) and 100 frames/s through a Kaldi filterbank of a varying range.

    In training mode that range is drawn anew for every batch, from the torch generator of the CPU: the lower end from
    0 up to ``low_jitter``, the upper end within ``high_jitter / 2`` of ``(sample_rate - high_jitter) / 2``.
    """

    def __init__(
        self, sample_rate: int, n_mels: int, n_fft: int, window: Tensor, low_jitter: int = 10, high_jitter: int = 2000
    ) -> None:
        centre = sample_rate / 2 - high_jitter // 2
        # For evaluation; training builds a jittered bank for every batch.
        bank = kaldi_filterbank(n_mels, n_fft, sample_rate, 0.0, centre)
        super().__init__(sample_rate, sample_rate // 100, n_fft, window, bank)
        self.low_jitter, self.high_jitter, self._centre = low_jitter, high_jitter, centre

    def frames(self, samples: int) -> int:
        """Number of frames; pre-emphasis takes one sample, so 10 s give exactly 1000."""
        return 1 + max(0, samples - 1) // self.hop

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Power spectrum of the pre-emphasised waveform."""
        if waveform.shape[-1] < 2:
            waveform = functional.pad(waveform, (0, 1))
        return super().spectrum(waveform[:, 1:] - 0.97 * waveform[:, :-1])

    def _mel(self, spectrum: Tensor) -> Tensor:
        if not self.training or (self.low_jitter <= 1 and self.high_jitter <= 1):
            return super()._mel(spectrum)
        low = int(torch.randint(max(1, self.low_jitter), ()))
        high = self._centre + self.high_jitter // 2 - int(torch.randint(max(1, self.high_jitter), ()))
        bank = kaldi_filterbank(self.n_mels, self.n_fft, self.sample_rate, float(low), high, spectrum.device)
        return torch.matmul(bank, spectrum)


@configurable
class PaSSTMel(_JitteredMel):
    """Front end of PaSST and PMAM: 32 kHz, 100 frames/s, 128 Kaldi mel bands, ``(ln(mel + 1e-5) + 4.5) / 5``.

    Every clip is scaled to a peak of 1 and pre-emphasised. In training mode the upper end of the filterbank lies
    around 15 kHz (for the published 2000 Hz).

    Args:
        n_mels: mel bands.
        low_jitter: number of whole-Hz values the lower end can take, from 0 on.
        high_jitter: number of whole-Hz values the upper end can take.
        peak_normalise: scale every clip to a peak of 1 (PMAM); the original PaSST does not, and has jitters 1 and
            1000 Hz.
    """

    def __init__(
        self, n_mels: int = 128, low_jitter: int = 10, high_jitter: int = 2000, peak_normalise: bool = True
    ) -> None:
        super().__init__(32000, n_mels, 1024, torch.hann_window(800, periodic=False), low_jitter, high_jitter)
        self.peak_normalise = peak_normalise

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Power spectrum of the normalised, pre-emphasised waveform."""
        if self.peak_normalise:
            waveform = waveform / (waveform.abs().amax(dim=-1, keepdim=True) + 1e-10)
        return super().spectrum(waveform)

    def normalise(self, mel: Tensor) -> Tensor:
        """Natural logarithm and the fixed affine map of PaSST."""
        return mel.add(1e-5).log_().add_(4.5).div_(5.0)


@configurable
class MobileNetMel(_JitteredMel):
    """Front end of frame-MobileNet: 16 kHz, 100 frames/s, 128 Kaldi mel bands, ``(ln(max(mel, 1e-7)) + 4.5) / 5``.

    In training the bands begin within 10 Hz of 0 and end within 1 kHz of 7 kHz.

    Args:
        periodic: the Hann window is periodic, as frame-PaSST's front end has it, which is this one otherwise.
    """

    def __init__(self, periodic: bool = False) -> None:
        super().__init__(16000, 128, 512, torch.hann_window(400, periodic=periodic))

    def normalise(self, mel: Tensor) -> Tensor:
        """Natural logarithm and the fixed affine map of PaSST."""
        return mel.clamp_min(1e-7).log_().add_(4.5).div_(5.0)


@configurable
class KaldiMel(MelFrontEnd):
    """Kaldi's log-mel filterbank features: 16 kHz, 100 frames/s, 128 bands from 20 Hz to 8 kHz, standardised.

    Frame k hears the 400 samples from 160 k on and nothing beyond the clip: 998 frames for 10 s. Each frame loses its
    mean and is pre-emphasised by itself. ``(ln(max(mel, 2^-23)) - mean) / (2 std)``; the defaults are BEATs'. The
    Audio Spectrogram Transformer has ``level=1, window="hanning", mean=-4.2677393, std=4.5689974``.

    Args:
        n_mels: mel bands.
        level: what full scale counts as; BEATs thinks in 16-bit integers.
        window: Kaldi's ``povey`` (a Hann window to the power 0.85) or ``hanning``; neither is periodic.
        mean: of the logarithm.
        std: of the logarithm.
    """

    def __init__(
        self,
        n_mels: int = 128,
        level: float = 32768.0,
        window: Literal["povey", "hanning"] = "povey",
        mean: float = 15.41663,
        std: float = 6.55582,
    ) -> None:
        if window not in ("povey", "hanning"):
            raise ValueError(f"window is povey or hanning, not {window!r}")
        hann = torch.hann_window(400, periodic=False)
        bank = kaldi_filterbank(n_mels, 512, 16000, 20.0, 8000.0)
        super().__init__(16000, 160, 512, hann.pow(0.85) if window == "povey" else hann, bank)
        self.level, self.mean, self.std = level, mean, std

    def frames(self, samples: int) -> int:
        """Number of whole frames; a clip shorter than one is filled up with silence."""
        return 1 + max(0, samples - 400) // self.hop

    def extended(self, waveform: Tensor) -> Tensor:
        """At its level, with zeros around; the window has a margin on either side in the Fourier transform."""
        margin = (self.n_fft - 400) // 2
        missing = max(0, 400 - waveform.shape[-1])
        return functional.pad(waveform * self.level, (margin, margin + missing))

    def conditioned(self, segments: Tensor) -> Tensor:
        """Frames without their mean, pre-emphasised; what lies in the margins belongs to others."""
        margin = (self.n_fft - 400) // 2
        frames = segments[..., margin : margin + 400]
        frames = frames - frames.mean(dim=-1, keepdim=True)
        frames = frames - 0.97 * torch.cat((frames[..., :1], frames[..., :-1]), dim=-1)
        return functional.pad(frames, (margin, margin))

    def normalise(self, mel: Tensor) -> Tensor:
        """Natural logarithm, standardised to half a deviation."""
        return mel.clamp_min(2.0**-23).log_().sub_(self.mean).div_(2 * self.std)


@configurable
class ATSTMel(MelFrontEnd):
    """Front end of ATST-Frame: 16 kHz, 100 frames/s, 64 HTK mel bands, power in dB mapped to about [-1, 1].

    The floor 80 dB below the loudest cell is taken per clip; the reference takes it per batch, so that a clip's
    features depend on its neighbours.

    Args:
        floor_db: values are clamped from below here (ATST-SED and its checkpoints); None as in the pre-training of
            ATST-Frame.
    """

    def __init__(self, floor_db: float | None = -50.0) -> None:
        bank = triangular_filterbank(64, 1024, 16000, 60.0, 7800.0, "htk")
        super().__init__(16000, 160, 1024, torch.hann_window(1024), bank)
        self.floor_db = floor_db

    def normalise(self, mel: Tensor) -> Tensor:
        """Decibels, floors, and the fixed affine map of the pre-training."""
        decibels = _with_dynamic_range(mel.clamp_min(1e-10).log10_().mul_(10.0), 80.0)
        if self.floor_db is not None:
            decibels = decibels.clamp(self.floor_db, 80.0)
        low, high = -79.6482, 50.6842
        return (decibels - low) * (2.0 / (high - low)) - 1.0


@configurable
class YAMNetMel(MelFrontEnd):
    """Front end of YAMNet: 16 kHz, 100 frames/s, 64 HTK mel bands of magnitude, ``ln(mel + 0.001)``.

    Frame k hears the 400 samples from 160 k on, zeros where the clip has ended. Every frame that starts within the
    clip is there; those that the published padding adds are silence, ``ln(0.001)``, and left to the encoder.
    """

    def __init__(self) -> None:
        # In double precision first: a rounded window leaks loud bands into silent ones, where the logarithm sees it.
        window = torch.hann_window(400, dtype=torch.float64).float()
        # Straight in mel, as Kaldi's: triangles of unit height, nothing for the constant, nothing at 8 kHz.
        bank = kaldi_filterbank(64, 512, 16000, 125.0, 7500.0, dtype=torch.float64)
        super().__init__(16000, 160, 512, window, bank, exponent=1.0)

    def frames(self, samples: int) -> int:
        """Number of started hops: 1000 for 10 s."""
        return -(-samples // self.hop)

    def extended(self, waveform: Tensor) -> Tensor:
        """With zeros after the end; the window has a margin on either side in the Fourier transform."""
        margin = (self.n_fft - 400) // 2
        return functional.pad(waveform, (margin, self.n_fft - margin - 1))

    def conditioned(self, segments: Tensor) -> Tensor:
        """In double precision on CPUs: single rounds the logarithm of a silent band by up to 1e-4."""
        return segments.double() if segments.device.type == "cpu" else segments

    def normalise(self, mel: Tensor) -> Tensor:
        """Natural logarithm."""
        return mel.add(0.001).log_()


@configurable
class CRNNMel(MelFrontEnd):
    """Front end of the DCASE baseline's CRNN: 16 kHz, 62.5 frames/s, 128 HTK mel bands, dB scaled to [0, 1] by clip."""

    def __init__(self) -> None:
        window = torch.hamming_window(2048, periodic=False)
        bank = triangular_filterbank(128, 2048, 16000, 0.0, 8000.0, "htk")
        super().__init__(16000, 256, 2048, window, bank, exponent=1.0)

    def log(self, mel: Tensor) -> Tensor:
        """Decibels, clamped to [-50, 80]."""
        return mel.clamp_min(1e-5).log10_().mul_(20.0).clamp_(-50.0, 80.0)

    def normalise(self, mel: Tensor) -> Tensor:
        """Decibels, then minimum to 0 and maximum to 1 over a clip."""
        decibels = self.log(mel)
        low, high = decibels.amin(dim=(1, 2), keepdim=True), decibels.amax(dim=(1, 2), keepdim=True)
        return (decibels - low) / (high - low + 1e-8)


@configurable
class SEDTMel(MelFrontEnd):
    """Front end of SEDT: 64 Slaney mel bands of magnitude, in dB with a range of 80 dB, standardised per band.

    The statistics of the bands belong to a training set: :meth:`fit` measures them, and they are saved with the model.

    Args:
        sample_rate: 16000 (DCASE) or 44100 (URBAN-SED), Hz.
        n_mels: mel bands.
        hop: samples per frame; 323 (DCASE) or 882 (URBAN-SED).
        window_samples: length of the symmetric Hamming window; 1024 or 1764.
        n_fft: length of the Fourier transform; 1024 or 2048.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_mels: int = 64,
        hop: int = 323,
        window_samples: int = 1024,
        n_fft: int = 1024,
    ) -> None:
        window = torch.hamming_window(window_samples, periodic=False)
        bank = triangular_filterbank(n_mels, n_fft, sample_rate, 0.0, sample_rate / 2, "slaney")
        super().__init__(sample_rate, hop, n_fft, window, bank, exponent=1.0)
        self.register_buffer("mean", torch.zeros(n_mels))
        self.register_buffer("std", torch.ones(n_mels))

    def frames(self, samples: int) -> int:
        """Number of frames, the clip's length in hops rounded up: 496 for 10 s (DCASE), 500 (URBAN-SED)."""
        return math.ceil(samples / self.hop)

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Magnitude spectrum, without the frame beyond the end that a length of whole hops brings."""
        return super().spectrum(waveform)[..., : self.frames(waveform.shape[-1])]

    def log(self, mel: Tensor) -> Tensor:
        """Decibels, floored 80 dB below the loudest cell of the clip."""
        return _with_dynamic_range(mel.clamp_min(1e-5).log10_().mul_(20.0), 80.0)

    def normalise(self, mel: Tensor) -> Tensor:
        """Decibels with mean 0 and standard deviation 1 in every band, by the training set's statistics."""
        return (self.log(mel) - self.mean[:, None]) / self.std[:, None]

    def fit(self, waveforms: Iterable[Tensor]) -> SEDTMel:
        """Measure the statistics of the bands on batches of waveforms ``(batch, samples)``; returns itself."""
        mean, std = band_statistics(self.log(self.power(waveform)) for waveform in waveforms)
        self.mean.copy_(mean)
        self.std.copy_(std)
        return self


@configurable
class LogMel(MelFrontEnd):
    """A generic small front end: 25 ms windows, HTK mel power, ``ln(mel + 1e-5)`` mapped to about [-1, 1].

    Args:
        sample_rate: Hz.
        n_mels: mel bands from 0 Hz to half the sample rate.
        hop_seconds: from one frame to the next.
    """

    def __init__(self, sample_rate: int = 16000, n_mels: int = 64, hop_seconds: float = 0.01) -> None:
        samples = round(0.025 * sample_rate)
        n_fft = 2 ** math.ceil(math.log2(samples))
        bank = triangular_filterbank(n_mels, n_fft, sample_rate, 0.0, sample_rate / 2, "htk")
        super().__init__(sample_rate, round(hop_seconds * sample_rate), n_fft, torch.hann_window(samples), bank)

    def normalise(self, mel: Tensor) -> Tensor:
        """Natural logarithm; silence lies at -1.4, full scale near 2."""
        return mel.add(1e-5).log_().add_(4.5).div_(5.0)


def _with_dynamic_range(decibels: Tensor, dynamic_range: float) -> Tensor:
    """Raise what lies further below the maximum of its own clip than ``dynamic_range`` dB, ``(batch, mel, frames)``."""
    return torch.maximum(decibels, decibels.amax(dim=(1, 2), keepdim=True) - dynamic_range)
