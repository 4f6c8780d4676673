"""Log-mel pictures of recordings of any length, in numpy, one pass over blocks of sound."""

from __future__ import annotations

from typing import Any

import numpy as np

from pmam_plugin.report.media import SAMPLE_RATE, png

_WINDOW = 512  # samples: 32 ms
_HOP = 160  # samples: 10 ms
_MOST_COLUMNS = 12_000  # of one picture: some phones draw nothing wider than 16 384
_LEVELS = 64  # grey levels kept: compresses well and shows no steps


def mel_bank(bands: int) -> np.ndarray:
    """Triangular filters equally spaced in mel from 0 to the Nyquist frequency, ``(bands, frequencies)``.

    Each filter sums to one, so that a band shows the mean power in it; a band narrower than a bin takes the nearest.
    """
    edges = mel_to_hertz(np.linspace(0.0, hertz_to_mel(SAMPLE_RATE / 2), bands + 2))
    bins = np.arange(_WINDOW // 2 + 1) * SAMPLE_RATE / _WINDOW
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bank = np.clip(np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)), 0.0, None)
    empty = bank.sum(axis=1) == 0
    bank[empty, np.abs(bins[None] - middle).argmin(axis=1)[empty]] = 1.0
    return (bank / bank.sum(axis=1, keepdims=True)).astype(np.float32)


def hertz_to_mel(hertz: Any) -> Any:
    """The mel scale of HTK and Kaldi: 2595 log10(1 + f / 700 Hz)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hertz) / 700.0)


def mel_to_hertz(mel: Any) -> Any:
    """Inverse of :func:`hertz_to_mel`."""
    return 700.0 * (10.0 ** (np.asarray(mel) / 2595.0) - 1.0)


class SpectrogramBuilder:
    """Collect the mel power of a recording block by block.

    Column ``i`` of the result shows the loudest of the frames centred in ``[i, i + 1) * seconds_per_column``: a click
    stays visible in an hour-long picture.

    Args:
        duration: of the whole recording in seconds; decides how many 10 ms frames share a column.
        bands: rows of the picture.
    """

    def __init__(self, duration: float, bands: int = 96) -> None:
        self._group = max(1, int(np.ceil(duration * SAMPLE_RATE / _HOP / _MOST_COLUMNS)))
        self._bank = mel_bank(bands)
        self._taper = np.hanning(_WINDOW).astype(np.float32)
        # Half a window of silence in front puts frame j's centre at (j + 0.5) hops.
        self._rest = np.zeros((_WINDOW - _HOP) // 2, dtype=np.float32)
        self._pending = np.zeros((0, bands), dtype=np.float32)
        self._columns: list[np.ndarray] = []

    @property
    def seconds_per_column(self) -> float:
        """Width of a column in seconds."""
        return self._group * _HOP / SAMPLE_RATE

    def add(self, samples: np.ndarray) -> None:
        """Append float32 ``(samples,)`` at 16 kHz."""
        self._rest = np.concatenate([self._rest, samples])
        count = (len(self._rest) - _WINDOW) // _HOP + 1
        if count <= 0:
            return
        for start in range(0, count, 4096):  # bounds the memory of the spectra
            frames = np.lib.stride_tricks.sliding_window_view(self._rest, _WINDOW)[
                start * _HOP : min(count, start + 4096) * _HOP : _HOP
            ]
            spectrum = np.fft.rfft(frames * self._taper, axis=1)
            power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32) @ self._bank.T
            self._pool(power)
        self._rest = self._rest[count * _HOP :]

    def finish(self) -> np.ndarray:
        """Mel power in dB, ``(bands, columns)`` float32; at least one column."""
        self.add(np.zeros((_WINDOW - _HOP) // 2 + _HOP - 1, dtype=np.float32))
        if len(self._pending) or not self._columns:
            padded = self._pending if len(self._pending) else np.zeros((1, len(self._bank)), dtype=np.float32)
            self._columns.append(padded.max(axis=0, keepdims=True))
        return 10.0 * np.log10(np.concatenate(self._columns).T + 1e-10)

    def _pool(self, power: np.ndarray) -> None:
        power = np.concatenate([self._pending, power])
        whole = len(power) // self._group * self._group
        if whole:
            self._columns.append(power[:whole].reshape(-1, self._group, power.shape[1]).max(axis=1))
        self._pending = power[whole:]


def log_mel(samples: np.ndarray, bands: int = 96) -> np.ndarray:
    """Mel power of mono sound at 16 kHz in dB, ``(bands, columns)``, a column per 10 ms (longer beyond two minutes)."""
    builder = SpectrogramBuilder(len(samples) / SAMPLE_RATE, bands)
    builder.add(samples)
    return builder.finish()


def picture(decibels: np.ndarray, dynamic_range: float = 70.0, lift: bool = True) -> np.ndarray:
    """Grey levels of a spectrogram: the loudest values white, ``dynamic_range`` dB less black.

    Args:
        decibels: ``(bands, columns)``, lowest band first.
        dynamic_range: in dB.
        lift: raise black to the quiet tenth of the values, so that a noisy recording keeps its contrast.

    Returns:
        uint8 of the same shape, highest band first.
    """
    top = float(np.percentile(decibels, 99.9))
    floor = top - dynamic_range
    if lift:
        floor = max(floor, float(np.percentile(decibels, 10)) - 3.0)
    level = np.clip((decibels - floor) / max(top - floor, 1e-6), 0.0, 1.0)
    return (np.rint(level * (_LEVELS - 1)) * (255 // (_LEVELS - 1))).astype(np.uint8)[::-1]


def spectrogram_data(decibels: np.ndarray, seconds_per_column: float) -> dict[str, Any]:
    """What the page's player draws: the picture, the seconds it spans, and where frequencies lie (0 bottom, 1 top)."""
    whole = hertz_to_mel(SAMPLE_RATE / 2)
    ticks = [[f"{hertz / 1000:g}k", float(hertz_to_mel(hertz) / whole)] for hertz in (500, 1000, 2000, 4000)]
    return {"png": png(picture(decibels)), "seconds": decibels.shape[1] * seconds_per_column, "ticks": ticks}
