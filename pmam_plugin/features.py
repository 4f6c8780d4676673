"""Log-mel front ends, one per published system and a small generic one.

Each front end works in two steps, so that clips can be mixed in between, where sounds add up:
``power`` turns waveforms into a linear mel spectrogram and ``scale`` turns that into what the network sees (logarithm,
then normalisation). Both run in float32 even under autocast: half precision has no room for the range of a spectrum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmam_plugin.config import configurable


class MelFrontEnd(nn.Module):
    """Base of the front ends: a centred short-time Fourier transform and a mel filterbank.

    Args:
        sample_rate: of the waveforms, Hz.
        hop: samples from one frame to the next.
        n_fft: length of the Fourier transform, samples; the window is centred in it.
        window: analysis window, ``(up to n_fft samples,)``.
        filterbank: weights of the bins in each band, ``(n_mels, n_fft // 2 + 1)``.
        exponent: 2 for a power spectrum, 1 for a magnitude spectrum.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(
        self, sample_rate: int, hop: int, n_fft: int, window: Tensor, filterbank: Tensor, exponent: float = 2.0
    ) -> None:
        super().__init__()
        self.sample_rate, self.n_mels, self.hop, self.n_fft = sample_rate, len(filterbank), hop, n_fft
        self.exponent = exponent
        left = (n_fft - len(window)) // 2
        window = functional.pad(window, (left, n_fft - len(window) - left))
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filterbank", filterbank, persistent=False)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop

    def frames(self, samples: int) -> int:
        """Number of frames of a waveform of this many samples."""
        return 1 + samples // self.hop

    def power(self, waveform: Tensor) -> Tensor:
        """Linear mel spectrogram (power or magnitude, as the system has it).

        Args:
            waveform: ``(batch, samples)``, full scale 1.

        Returns:
            Non-negative float32, ``(batch, mel, frames)``.
        """
        if waveform.ndim != 2 or waveform.shape[-1] == 0:
            raise ValueError(f"expected a waveform (batch, samples), not {tuple(waveform.shape)}")
        with torch.autocast(waveform.device.type, enabled=False):
            return self._mel(self.spectrum(waveform.float()))

    def scale(self, mel: Tensor) -> Tensor:
        """Logarithm and normalisation of a linear mel spectrogram, ``(batch, mel, frames)`` in and out."""
        with torch.autocast(mel.device.type, enabled=False):
            return self.normalise(mel.float())

    def forward(self, waveform: Tensor) -> Tensor:
        """``scale(power(waveform))``: ``(batch, samples)`` -> ``(batch, mel, frames)``."""
        return self.scale(self.power(waveform))

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Power or magnitude spectrum, ``(batch, samples)`` -> ``(batch, bins, frames)``."""
        # Frames cut, windowed and transformed by hand: several times faster on a CPU than torch.stft.
        segments = self.extended(waveform).unfold(-1, self.n_fft, self.hop)
        spectrum = torch.fft.rfft(self.conditioned(segments) * self.window).transpose(1, 2)
        power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)
        return power if self.exponent == 2 else power.sqrt()

    def conditioned(self, segments: Tensor) -> Tensor:
        """What is done to the ``(..., n_fft)`` samples of each frame before they are windowed: something linear."""
        return segments

    def extended(self, waveform: Tensor) -> Tensor:
        """The waveform with what frames hear beyond its ends: its reflection, so that frames are centred."""
        samples, margin = waveform.shape[-1], self.n_fft // 2
        # Reflection needs more samples than the margin; zeros beyond a very short clip change no frame count.
        waveform = functional.pad(waveform, (0, max(0, margin + 1 - samples)))
        waveform = functional.pad(waveform[:, None], (margin, margin), mode="reflect")[:, 0]
        return waveform[:, : samples // self.hop * self.hop + self.n_fft]

    def normalise(self, mel: Tensor) -> Tensor:
        """What :meth:`scale` does, in float32."""
        raise NotImplementedError

    def _mel(self, spectrum: Tensor) -> Tensor:
        return torch.matmul(self.filterbank, spectrum)


class _JitteredMel(MelFrontEnd):
    """Pre-emphasis (``y[n] = x[n+1] - 0.97 x[n]``) and 100 frames/s through a Kaldi filterbank of a varying range.

    In training mode that range is drawn anew for every batch, from the torch generator of the CPU: the lower end from
    0 up to ``low_jitter``, the upper end within ``high_jitter / 2`` of ``(sample_rate - high_jitter) / 2``.
    """

    def __init__(
        self, sample_rate: int, n_mels: int, n_fft: int, window: Tensor, low_jitter: int, high_jitter: int
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

    Args:
        periodic: the Hann window is periodic, as frame-PaSST's front end has it, which is this one otherwise.
        low_jitter: number of whole-Hz values the lower end can take in training, from 0 on.
        high_jitter: number of whole-Hz values the upper end can take, around 7 kHz (for the published 2000 Hz).
    """

    def __init__(self, periodic: bool = False, low_jitter: int = 10, high_jitter: int = 2000) -> None:
        super().__init__(16000, 128, 512, torch.hann_window(400, periodic=periodic), low_jitter, high_jitter)

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
        bank = _triangular_filterbank(64, 1024, 16000, 60.0, 7800.0, "htk")
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

    def normalise(self, mel: Tensor) -> Tensor:
        """Natural logarithm."""
        return mel.add(0.001).log_()


@configurable
class CRNNMel(MelFrontEnd):
    """Front end of the DCASE baseline's CRNN: 16 kHz, 62.5 frames/s, 128 HTK mel bands, dB scaled to [0, 1] by clip."""

    def __init__(self) -> None:
        window = torch.hamming_window(2048, periodic=False)
        bank = _triangular_filterbank(128, 2048, 16000, 0.0, 8000.0, "htk")
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
        bank = _triangular_filterbank(n_mels, n_fft, sample_rate, 0.0, sample_rate / 2, "slaney")
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
    """A generic small front end: HTK mel power, ``ln(mel + 1e-5)`` mapped to about [-1, 1] by a fixed affine map.

    Args:
        sample_rate: Hz.
        n_mels: mel bands from 0 Hz to half the sample rate.
        window_seconds: length of the Hann window.
        hop_seconds: from one frame to the next.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        n_mels: int = 64,
        window_seconds: float = 0.025,
        hop_seconds: float = 0.01,
    ) -> None:
        samples = round(window_seconds * sample_rate)
        n_fft = 2 ** math.ceil(math.log2(samples))
        bank = _triangular_filterbank(n_mels, n_fft, sample_rate, 0.0, sample_rate / 2, "htk")
        super().__init__(sample_rate, round(hop_seconds * sample_rate), n_fft, torch.hann_window(samples), bank)

    def normalise(self, mel: Tensor) -> Tensor:
        """Natural logarithm; silence lies at -1.4, full scale near 2."""
        return mel.add(1e-5).log_().add_(4.5).div_(5.0)


@configurable
class FrontEnds(nn.Module):
    """Named front ends over the same waveform.

    Args:
        front_ends: name -> front end; a single one is called ``mel``, ATST-SED has ``atst`` and ``crnn``.

    Raises:
        ValueError: no front end, or front ends of different sample rates.
    """

    def __init__(self, **front_ends: MelFrontEnd) -> None:
        super().__init__()
        rates = {name: front_end.sample_rate for name, front_end in front_ends.items()}
        if len(set(rates.values())) != 1:
            raise ValueError(f"front ends must share one sample rate, not {rates or 'be absent'}")
        self.front_ends = nn.ModuleDict(front_ends)

    def named(self) -> dict[str, MelFrontEnd]:
        """The front ends by name."""
        return {name: cast(MelFrontEnd, front_end) for name, front_end in self.front_ends.items()}

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms, Hz."""
        return next(iter(self.named().values())).sample_rate

    @property
    def frame_rates(self) -> dict[str, float]:
        """Frames per second of every stream."""
        return {name: front_end.frame_rate for name, front_end in self.named().items()}

    def frames(self, samples: int) -> dict[str, int]:
        """Number of frames of every stream for a waveform of this many samples."""
        return {name: front_end.frames(samples) for name, front_end in self.named().items()}

    def power(self, waveform: Tensor) -> dict[str, Tensor]:
        """Linear mel spectrograms of a waveform ``(batch, samples)``."""
        return {name: front_end.power(waveform) for name, front_end in self.named().items()}

    def scale(self, mels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logarithm and normalisation of what :meth:`power` returned."""
        return {name: front_end.scale(mels[name]) for name, front_end in self.named().items()}

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        """Features, name -> ``(batch, mel, frames)``, of a waveform ``(batch, samples)``."""
        return {name: front_end(waveform) for name, front_end in self.named().items()}


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


def _triangular_filterbank(
    n_mels: int, n_fft: int, sample_rate: int, low: float, high: float, mel_scale: str
) -> Tensor:
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(n_fft // 2 + 1, low, high, n_mels, sample_rate, None, mel_scale).T.contiguous()


def _with_dynamic_range(decibels: Tensor, dynamic_range: float) -> Tensor:
    """Raise what lies further below the maximum of its own clip than ``dynamic_range`` dB, ``(batch, mel, frames)``."""
    return torch.maximum(decibels, decibels.amax(dim=(1, 2), keepdim=True) - dynamic_range)
