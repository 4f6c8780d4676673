"""What front ends share, and several of them over one waveform.

Each front end works in two steps, so that clips can be mixed in between, where sounds add up:
``power`` turns waveforms into a linear mel spectrogram and ``scale`` turns that into what the network sees (logarithm,
then normalisation). Both run in float32 even under autocast: half precision has no room for the range of a spectrum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

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
        return (power if self.exponent == 2 else power.sqrt()).to(waveform.dtype)

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
