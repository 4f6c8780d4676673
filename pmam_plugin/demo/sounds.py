"""The ten domestic sounds of the built-in corpus, synthesised with all their parameters drawn at random.

Names are DESED's. The models are physical only in their outline (a motor's harmonics, struck modes, a voice's
formants); what matters is that classes differ in how they move, and overlap in which frequencies they occupy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pmam_plugin.demo.synthesis import (
    CONTROL_RATE,
    Array,
    Random,
    between,
    coloured_noise,
    contour,
    faded,
    filtered,
    formant_gain,
    frequency_axis,
    harmonics,
    log_between,
    modes,
    poisson_places,
    polyline,
    rms,
    scatter,
    stretch,
    voiced,
    white,
)


@dataclass(frozen=True)
class Sound:
    """A class of sounds."""

    make: Callable[[Random, float, int], Array]  # (rng, seconds, rate) -> a dry waveform of about that length, float32
    seconds: tuple[float, float]  # of the shortest and the longest event
    repeats: int  # most events of the class in one soundscape


def alarm_bell(rng: Random, seconds: float, rate: int) -> Array:
    """A struck bell, a beeper, or a siren."""
    samples = int(seconds * rate)
    kind = rng.integers(3)
    if kind == 0:
        ratios = np.array([1.0, 1.19, 1.56, 2.0, 2.44, 2.66, 3.01, 4.17]) * rng.uniform(0.97, 1.03, 8)
        strike = modes(rng, log_between(rng, 500, 1800) * ratios, rng.uniform(0.05, 0.4, 8), rate, 0.5)
        period = rate / between(rng, 7, 22)
        places = np.arange(0, samples - 1, period) + rng.uniform(0, 0.1 * period)
        return scatter(rng, samples, [strike], places, rng.uniform(0.7, 1.0, len(places)))
    low = log_between(rng, 550, 2400)
    high = low * between(rng, 1.15, 1.6)
    cycle = np.arange(samples) / rate * between(rng, 1.2, 6.0)
    if kind == 1:
        duty = between(rng, 0.35, 0.8)
        gate = np.convolve((cycle % 1.0) < duty, np.full(160, 1 / 160), mode="same")
        pitch = np.full(samples, low)
    else:
        sweep = cycle % 1.0 if rng.random() < 0.5 else ((cycle % 1.0) < 0.5).astype(float)
        gate, pitch = np.ones(samples), low + (high - low) * sweep
    tone = harmonics(pitch, rng.uniform(0.0, 1.0, 4) * np.array([1.0, 0.6, 0.5, 0.3]), rate)
    return (tone * gate).astype(np.float32)


def blender(rng: Random, seconds: float, rate: int) -> Array:
    """A motor under a load that stumbles several times a second, and the splashing noise of what is blended."""
    samples = int(seconds * rate)
    stumble = contour(rng, samples, rate, between(rng, 8, 16), 1.0)
    start = np.minimum(1.0, 0.4 + np.arange(samples) / rate / between(rng, 0.15, 0.5))
    pitch = log_between(rng, 90, 320) * start * (1 - 0.04 * np.clip(stumble, -2, 2))
    motor = harmonics(pitch.astype(np.float32), _comb(rng, 28), rate)
    churn = coloured_noise(rng, samples, rate, between(rng, -6, 2), low=150) * np.exp(0.9 * stumble)
    return faded(_mixed(rng, motor, churn, -5, 9) * np.exp(0.35 * stumble), rate, 0.05, 0.15)


def cat(rng: Random, seconds: float, rate: int) -> Array:
    """Meows: a pitch that rises and falls while the mouth opens and closes."""
    pitch, size = log_between(rng, 330, 900), between(rng, 0.85, 1.2)
    calls = int(rng.integers(1, 1 + max(1, round(seconds / 0.8))))
    return _phrases(rng, rate, calls, seconds, lambda length: _meow(rng, length, rate, pitch, size), 0.05, 0.22)


def dishes(rng: Random, seconds: float, rate: int) -> Array:
    """Clinks of glass and china in irregular clusters."""
    samples = int(seconds * rate)
    kernels = []
    for _ in range(int(rng.integers(2, 5))):
        frequencies = log_between(rng, 900, 3000) * np.cumprod(rng.uniform(1.05, 1.6, 6))
        clink = modes(rng, frequencies, rng.uniform(0.01, 0.14, 6), rate, 0.3)
        clink[:48] += between(rng, 0.2, 1.5) * white(rng, 48)
        kernels.append(clink)
    places = poisson_places(rng, samples, rate, log_between(rng, 4, 14))
    places[0] = 0
    return scatter(rng, samples, kernels, places, rng.gamma(1.5, 1.0, len(places)) + 0.2)


def dog(rng: Random, seconds: float, rate: int) -> Array:
    """Barks of one dog: hard onset, falling pitch, much breath."""
    pitch, size, breath = log_between(rng, 170, 700), between(rng, 0.8, 1.4), between(rng, 0.2, 0.9)
    calls = max(1, round(seconds / between(rng, 0.3, 0.55)))
    return _phrases(rng, rate, calls, seconds, lambda length: _bark(rng, length, rate, pitch, size, breath), 0.08, 0.3)


def electric_shaver(rng: Random, seconds: float, rate: int) -> Array:
    """A buzz of fixed pitch whose timbre shifts as it is moved about."""
    samples = int(seconds * rate)
    pitch = log_between(rng, 90, 320) * (1 + contour(rng, samples, rate, 1.0, 0.004))
    motion = contour(rng, samples, rate, between(rng, 1.0, 3.0), 1.0)
    dull, bright = harmonics(pitch, _comb(rng, 26), rate), harmonics(pitch, _comb(rng, 26), rate)
    weight = 1 / (1 + np.exp(-1.5 * motion))
    buzz = dull / rms(dull) * weight + bright / rms(bright) * (1 - weight)
    hiss = coloured_noise(rng, samples, rate, between(rng, -5, 3), low=300)
    return faded(_mixed(rng, buzz, hiss, 2, 14), rate, 0.02, 0.02)


def frying(rng: Random, seconds: float, rate: int) -> Array:
    """Fat that spits: countless ticks of very different strength over a hiss that swells and fades."""
    samples = int(seconds * rate)
    axis = frequency_axis(rate)
    kernels = []
    for _ in range(5):
        tick = white(rng, int(between(rng, 0.0008, 0.006) * rate) + 4)
        kernels.append(tick * np.exp(-4 * np.arange(len(tick)) / len(tick), dtype=np.float32))
    places = poisson_places(rng, samples, rate, log_between(rng, 25, 160))
    spits = scatter(rng, samples, kernels, places, rng.lognormal(0.0, 1.1, len(places)))
    body = formant_gain(axis, np.array([log_between(rng, 900, 5000)]), [between(rng, 1500, 5000)])
    hiss = coloured_noise(rng, samples, rate, between(rng, -5, 3), low=250)
    hiss *= np.exp(contour(rng, samples, rate, 1.5, 0.3))
    return faded(_mixed(rng, filtered(spits, body), hiss, -2, 8), rate, 0.3, 0.3)


def running_water(rng: Random, seconds: float, rate: int) -> Array:
    """A jet's noise with bubbles, each a short tone that rises."""
    samples = int(seconds * rate)
    centre = log_between(rng, 450, 1800)
    kernels = [_bubble(rng, rate, centre * log_between(rng, 0.5, 2.0)) for _ in range(12)]
    places = poisson_places(rng, samples, rate, log_between(rng, 25, 90))
    bubbles = scatter(rng, samples, kernels, places, rng.lognormal(0.0, 0.6, len(places)))
    jet = coloured_noise(rng, samples, rate, between(rng, -6, 3), low=200)
    jet *= np.exp(contour(rng, samples, rate, 2.0, 0.15))
    return faded(_mixed(rng, bubbles, jet, -3, 7), rate, 0.08, 0.15)


def speech(rng: Random, seconds: float, rate: int) -> Array:
    """Babble of one voice: syllables of gliding vowels, hissed or popped consonants, and a sentence melody."""
    points = int(seconds * CONTROL_RATE)
    tract, base = between(rng, 0.85, 1.2), log_between(rng, 85, 270)
    knots, loudness, hiss = _syllables(rng, points)
    time = np.arange(points)
    formants = np.stack([np.interp(time, knots, tract * rng.uniform(*span, len(knots))) for span in _FORMANT_RANGES])
    melody = np.linspace(1.12, 0.88, points) * np.exp(
        stretch(0.1 * rng.standard_normal(max(3, len(knots) // 2)), points)
    )
    voice = voiced(rng, base * melody, formants, (90, 110, 170), rate, between(rng, -12, -5))
    voice *= stretch(loudness, len(voice))
    breath = coloured_noise(rng, len(voice), rate, 4.0, low=between(rng, 1500, 3500)) * stretch(hiss, len(voice))
    return voice / rms(voice) + between(rng, 0.25, 0.7) * breath


def vacuum_cleaner(rng: Random, seconds: float, rate: int) -> Array:
    """The steady rush of a fan with its tone, running up and down slowly."""
    samples = int(seconds * rate)
    run = polyline((0, between(rng, 0.03, 0.12), between(rng, 0.88, 0.97), 1), (0.5, 1, 1, 0.6), samples)
    pitch = log_between(rng, 90, 320) * run * (1 + contour(rng, samples, rate, 0.7, 0.006))
    tone = harmonics(pitch, _comb(rng, 26), rate)
    rush = coloured_noise(rng, samples, rate, between(rng, -6, 2), low=150)
    return faded(_mixed(rng, tone, rush, -7, 7) * run**2, rate, 0.25, 0.35)


SOUNDS: dict[str, Sound] = {
    "Alarm_bell_ringing": Sound(alarm_bell, (0.8, 6.0), 2),
    "Blender": Sound(blender, (1.5, 8.0), 1),
    "Cat": Sound(cat, (0.4, 2.0), 3),
    "Dishes": Sound(dishes, (0.2, 2.0), 3),
    "Dog": Sound(dog, (0.2, 2.5), 3),
    "Electric_shaver_toothbrush": Sound(electric_shaver, (2.0, 9.0), 1),
    "Frying": Sound(frying, (3.0, 11.0), 1),
    "Running_water": Sound(running_water, (1.5, 9.0), 1),
    "Speech": Sound(speech, (0.6, 4.0), 3),
    "Vacuum_cleaner": Sound(vacuum_cleaner, (3.0, 11.0), 1),
}
"""The classes of the built-in corpus by DESED's names."""

# Lowest and highest value, in Hz, of the first three formants over the vowels.
_FORMANT_RANGES = ((280, 850), (850, 2300), (2200, 3100))


def _syllables(rng: Random, points: int) -> tuple[Array, Array, Array]:
    """Control points of the vowels, and at control rate the loudness of voice and of consonants."""
    loudness, hiss, knots = np.zeros(points), np.zeros(points), [0]
    pace, position = between(rng, 0.8, 1.3), 0
    while position < points:
        consonant = int(pace * rng.uniform(6, 22)) if rng.random() < 0.6 else 0
        hiss[position : position + consonant] = rng.uniform(0.3, 1.0)
        position += consonant
        length = int(pace * rng.uniform(16, 46))
        arch = np.sin(np.linspace(0.12, 1, length) * np.pi) ** 0.6 * rng.uniform(0.4, 1.0)
        stop = min(points, position + length)
        loudness[position:stop] = arch[: max(0, stop - position)]
        knots += [position + length // 3, position + length]
        position += length + (int(rng.uniform(10, 55)) if rng.random() < 0.25 else 0)
    return np.unique(np.minimum(knots, points - 1)), loudness, np.convolve(hiss, np.full(5, 0.2), mode="same")


def _comb(rng: Random, count: int) -> Array:
    """Amplitudes of a machine's harmonics: falling off at a random slope, some strong, some missing."""
    numbers = np.arange(1, count + 1)
    return numbers ** -between(rng, 0.2, 1.3) * rng.lognormal(0.0, 0.8, count)


def _mixed(rng: Random, first: Array, second: Array, low: float, high: float) -> Array:
    """Two parts at unit level, the first stronger by ``low`` to ``high`` dB."""
    return first / rms(first) * np.float32(10 ** (between(rng, low, high) / 20)) + second / rms(second)


def _phrases(
    rng: Random, rate: int, calls: int, seconds: float, call: Callable[[float], Array], least: float, most: float
) -> Array:
    """Calls one after the other with pauses between ``least`` and ``most`` seconds."""
    parts: list[Array] = []
    pauses = rng.uniform(least, most, calls)
    each = max(0.12, (seconds - pauses[1:].sum()) / calls)
    for number in range(calls):
        if number:
            parts.append(np.zeros(int(pauses[number] * rate), np.float32))
        part = call(each * between(rng, 0.8, 1.1))
        parts.append(part / rms(part) * np.float32(between(rng, 0.6, 1.0)))
    return np.concatenate(parts)


def _meow(rng: Random, seconds: float, rate: int, pitch: float, size: float) -> Array:
    points = max(8, int(seconds * CONTROL_RATE))
    peak = between(rng, 0.2, 0.5)
    melody = polyline(
        (0, peak, 1), (between(rng, 0.75, 0.95), between(rng, 1.05, 1.3), between(rng, 0.6, 0.85)), points
    )
    opening = polyline((0, peak, between(rng, 0.6, 0.8), 1), (0.1, 1.0, 0.7, 0.1), points)
    formants = size * np.stack([500 + 650 * opening, 1300 + 1000 * opening, 3000 + 300 * opening])
    call = voiced(rng, pitch * melody, formants, (180, 250, 400), rate, between(rng, -9, -4))
    call *= stretch(opening**0.5, len(call))
    return faded(call + 0.03 * rms(call) * white(rng, len(call)), rate, 0.05, 0.1)


def _bark(rng: Random, seconds: float, rate: int, pitch: float, size: float, breath: float) -> Array:
    points = max(8, int(min(seconds, 0.4) * CONTROL_RATE))
    melody = polyline((0, 0.2, 1), (between(rng, 0.8, 1.0), between(rng, 1.0, 1.25), between(rng, 0.55, 0.8)), points)
    resonances = np.array([550, 1200, 2500]) / size * rng.uniform(0.9, 1.1, 3)
    formants = np.repeat(resonances[:, None], points, axis=1)
    call = voiced(rng, pitch * melody, formants, (200, 260, 400), rate, between(rng, -8, -3))
    gasp = filtered(white(rng, len(call)), formant_gain(frequency_axis(rate), resonances, (500, 600, 900)))
    call = call / rms(call) + breath * gasp / rms(gasp)
    decay = np.exp(-between(rng, 2.0, 4.5) * np.linspace(0, 1, len(call), dtype=np.float32))
    return faded(call * decay, rate, between(rng, 0.004, 0.015), 0.02)


def _bubble(rng: Random, rate: int, frequency: float) -> Array:
    seconds = between(rng, 0.012, 0.05)
    time = np.arange(int(seconds * rate), dtype=np.float32) / rate
    rise = frequency * (1 + between(rng, 0.2, 1.5) * time / seconds)
    return (np.sin(2 * np.pi * np.cumsum(rise) / rate) * np.exp(-4 * time / seconds)).astype(np.float32)
