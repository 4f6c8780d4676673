"""Building blocks of synthetic sounds: noises, contours, harmonic and modal tones, rooms and equalisers.

All take a numpy generator and return float32 waveforms of no particular level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft

Array = np.ndarray
Random = np.random.Generator

# Control signals (pitch, formants, envelopes) change slowly: computed at this rate, then interpolated.
CONTROL_RATE = 200


def between(rng: Random, low: float, high: float) -> float:
    """Uniform draw."""
    return float(rng.uniform(low, high))


def log_between(rng: Random, low: float, high: float) -> float:
    """Draw uniform in the logarithm, as befits pitches and rates."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def white(rng: Random, samples: int) -> Array:
    """White noise of unit variance, ``(samples,)``."""
    return rng.standard_normal(samples, dtype=np.float32)


def rms(wave: Array) -> float:
    """Root mean square, never zero."""
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float32)) + 1e-20))


def contour(rng: Random, samples: int, rate: int, points_per_second: float, spread: float) -> Array:
    """A smooth random curve around 0 with about this standard deviation, ``(samples,)``."""
    count = max(4, int(np.ceil(samples / rate * points_per_second)) + 3)
    points = rng.standard_normal(count) * spread
    # Cosine steps between random points: smooth, and cheaper than a spline.
    position = np.linspace(0, count - 1.001, max(2, int(samples / rate * CONTROL_RATE)))
    left = position.astype(int)
    weight = 0.5 - 0.5 * np.cos(np.pi * (position - left))
    curve = points[left] * (1 - weight) + points[left + 1] * weight
    return stretch(curve, samples)


def stretch(control: Array, samples: int) -> Array:
    """Interpolate a control signal linearly to audio rate, ``(samples,)``."""
    places = np.linspace(0, len(control) - 1, samples, dtype=np.float32)
    return np.interp(places, np.arange(len(control)), control).astype(np.float32)


def polyline(times: Sequence[float], values: Sequence[float], samples: int) -> Array:
    """Straight lines through points; ``times`` run from 0 to 1 over the whole length, ``(samples,)``."""
    return np.interp(np.linspace(0, 1, samples, dtype=np.float32), times, values).astype(np.float32)


def filtered(wave: Array, gain: Array) -> Array:
    """Multiply the spectrum with a curve of any number of points, spaced evenly from 0 Hz to half the sample rate."""
    size = fft.next_fast_len(len(wave), real=True)
    spectrum = fft.rfft(wave, size)
    return fft.irfft(spectrum * stretch(gain, len(spectrum)), size)[: len(wave)].astype(np.float32)


def colour(frequencies: Array, slope: float, low: float = 20.0, high: float = 2e4) -> Array:
    """Gain of a noise colour: ``slope`` dB per octave around 1 kHz, rolled off below ``low`` and above ``high`` Hz."""
    safe = np.maximum(frequencies, 10.0)
    tilt = (safe / 1000.0) ** (slope / 6.02)
    return tilt / np.sqrt((1 + (low / safe) ** 6) * (1 + (safe / high) ** 6))


def frequency_axis(rate: int) -> Array:
    """Frequencies of the points of a gain curve, in Hz."""
    return np.linspace(0, rate / 2, 1025)


def coloured_noise(rng: Random, samples: int, rate: int, slope: float, low: float = 20.0, high: float = 2e4) -> Array:
    """Noise with a spectrum as :func:`colour` describes, of unit level, ``(samples,)``."""
    noise = filtered(white(rng, samples), colour(frequency_axis(rate), slope, low, high))
    return noise / rms(noise)


def equaliser(rng: Random, rate: int, spread: float) -> Array:
    """A random smooth gain curve with this standard deviation in dB, seven bands spaced evenly in octaves."""
    frequencies = np.maximum(frequency_axis(rate), 60.0)
    centres = np.linspace(np.log2(60.0), np.log2(rate / 2), 7)
    decibels = np.interp(np.log2(frequencies), centres, rng.standard_normal(7) * spread)
    return 10 ** (decibels / 20)


def harmonics(pitch: Array, amplitudes: Array, rate: int) -> Array:
    """Sum of harmonics of a moving pitch in Hz, ``(samples,)``; those above half the sample rate are silent.

    Their amplitudes are ``(harmonics,)`` or, moving at control rate, ``(harmonics, points)``.
    """
    phase = np.cumsum(pitch, dtype=np.float64) * (2 * np.pi / rate)
    twice_cosine = (2 * np.cos(phase)).astype(np.float32)
    current, previous = np.sin(phase).astype(np.float32), np.zeros(len(pitch), np.float32)
    total = np.zeros(len(pitch), np.float32)
    highest = float(pitch.max())
    for number, amplitude in enumerate(amplitudes, start=1):
        if number * highest >= rate / 2:
            break
        total += current * (stretch(amplitude, len(pitch)) if amplitudes.ndim == 2 else np.float32(amplitude))
        # sin((n+1)x) = 2 cos(x) sin(nx) - sin((n-1)x): no sine per harmonic.
        current, previous = twice_cosine * current - previous, current
    return total


def formant_gain(frequencies: Array, formants: Array, bandwidths: Sequence[float]) -> Array:
    """Amplitude response of a vocal tract at ``frequencies``, a sum of resonances that weaken with their number.

    All in Hz; the first axis of ``formants`` counts the resonances, the others broadcast against ``frequencies``.
    """
    gain = np.full(np.shape(frequencies), 0.005)
    for number, (formant, bandwidth) in enumerate(zip(formants, bandwidths)):
        gain = gain + 0.6**number / (1 + ((frequencies - formant) / (0.5 * bandwidth)) ** 2)
    return gain


def voiced(rng: Random, pitch: Array, formants: Array, bandwidths: Sequence[float], rate: int, tilt: float) -> Array:
    """A voice: harmonics of a moving, jittering pitch through moving formants, ``(points * rate / CONTROL_RATE,)``.

    Pitch ``(points,)`` and formants ``(formants, points)`` are in Hz at control rate, a bandwidth per formant in Hz;
    ``tilt`` is that of the glottal source in dB per octave (negative).
    """
    samples = len(pitch) * rate // CONTROL_RATE
    pitch = pitch * (1 + 0.008 * rng.standard_normal(len(pitch)))
    numbers = np.arange(1, max(2, int(rate / 2 / pitch.max())))[:, None]
    source = numbers.astype(float) ** (tilt / 6.02)
    amplitudes = source * formant_gain(numbers * pitch, formants[:, None, :], bandwidths)
    return harmonics(stretch(pitch, samples), amplitudes, rate)


def modes(rng: Random, frequencies: Array, decays: Array, rate: int, seconds: float) -> Array:
    """A struck object: decaying sines of random phase and gain.

    A mode has a frequency in Hz (above half the sample rate it is left out) and a time constant in seconds.
    """
    time = np.arange(int(seconds * rate), dtype=np.float32) / rate
    audible = frequencies < 0.48 * rate
    frequencies, decays = frequencies[audible, None], decays[audible, None]
    gains = rng.uniform(0.3, 1.0, frequencies.shape)
    phases = rng.uniform(0, 2 * np.pi, frequencies.shape)
    return (
        (gains * np.exp(-time / decays) * np.sin(2 * np.pi * frequencies * time + phases))
        .sum(axis=0)
        .astype(np.float32)
    )


def scatter(rng: Random, samples: int, kernels: Sequence[Array], places: Array, gains: Array) -> Array:
    """Add randomly chosen kernels at places (samples) with gains, ``(samples,)``; what sticks out is cut."""
    longest = max(map(len, kernels))
    total = np.zeros(samples + longest, np.float32)
    for place, gain, choice in zip(places.astype(int), gains, rng.integers(len(kernels), size=len(places))):
        kernel = kernels[choice] if place < samples else kernels[choice][:0]
        total[place : place + len(kernel)] += np.float32(gain) * kernel
    return total[:samples]


def poisson_places(rng: Random, samples: int, rate: int, per_second: float) -> Array:
    """Places (samples) of events that happen at random, at least one."""
    return np.sort(rng.integers(0, samples, max(1, rng.poisson(per_second * samples / rate))))


def faded(wave: Array, rate: int, attack: float, release: float) -> Array:
    """Fade in and out with raised cosines of these lengths in seconds, each at most half of the whole."""
    wave = wave.astype(np.float32, copy=True)
    for seconds, side in ((attack, slice(None)), (release, slice(None, None, -1))):
        size = min(int(seconds * rate), len(wave) // 2)
        wave[side][:size] *= (0.5 - 0.5 * np.cos(np.pi * np.arange(size) / max(1, size))).astype(np.float32)
    return wave


def in_room(rng: Random, wave: Array, rate: int, eq_spread: float) -> Array:
    """Put a dry sound into a random small room and behind a random equaliser; the result is longer by the room's tail.

    The room is decaying noise (reverberation time 0.1 to 0.5 s) under a direct path, 2 to 20 dB weaker.
    """
    reverberation = between(rng, 0.1, 0.5)
    tail = int(0.6 * reverberation * rate)
    response = white(rng, tail) * np.exp(-6.9 * np.arange(tail, dtype=np.float32) / (reverberation * rate))
    response *= 10 ** (-between(rng, 2, 20) / 20) / np.sqrt(np.sum(response**2))
    response[0] = 1.0
    size = fft.next_fast_len(len(wave) + tail, real=True)
    spectrum = fft.rfft(wave, size) * fft.rfft(response.astype(np.float32), size)
    spectrum *= stretch(equaliser(rng, rate, eq_spread), len(spectrum))
    return fft.irfft(spectrum, size)[: len(wave) + tail].astype(np.float32)
