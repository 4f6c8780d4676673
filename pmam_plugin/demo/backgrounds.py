"""What is heard behind and between the events of a synthetic soundscape, and bears no label."""

from __future__ import annotations

import numpy as np

from pmam_plugin.demo.synthesis import (
    Array,
    Random,
    between,
    coloured_noise,
    contour,
    harmonics,
    log_between,
    modes,
    poisson_places,
    rms,
    scatter,
    white,
)


def background(rng: Random, samples: int, rate: int) -> Array:
    """Ambience of unit level: room tone, a humming appliance, rain, traffic, or wind; ``(samples,)``."""
    kinds = (_room_tone, _hum, _rain, _traffic, _wind)
    bed = kinds[rng.integers(len(kinds))](rng, samples, rate)
    if rng.random() < 0.4:
        other = kinds[rng.integers(len(kinds))](rng, samples, rate)
        bed = bed / rms(bed) + 10 ** (-between(rng, 3, 15) / 20) * other / rms(other)
    return (bed / rms(bed)).astype(np.float32)


def distraction(rng: Random, rate: int) -> Array:
    """A sound of no class: knocks, keys of a keyboard, a whistle, or a thud."""
    kind = rng.integers(4)
    if kind == 0:
        knock = modes(rng, log_between(rng, 90, 400) * rng.uniform(1, 4, 5), rng.uniform(0.01, 0.05, 5), rate, 0.2)
        places = np.arange(int(rng.integers(1, 5))) * between(rng, 0.12, 0.3) * rate
        return scatter(rng, int(places[-1] + 0.2 * rate), [knock], places, rng.uniform(0.6, 1, len(places)))
    if kind == 1:
        keys = [white(rng, int(0.008 * rate)) * np.exp(-between(rng, 2, 6) * np.linspace(0, 1, int(0.008 * rate)))]
        samples = int(between(rng, 0.5, 3.0) * rate)
        places = poisson_places(rng, samples, rate, between(rng, 4, 9))
        return scatter(rng, samples, keys, places, rng.uniform(0.3, 1, len(places)))
    if kind == 2:
        samples = int(between(rng, 0.4, 2.0) * rate)
        pitch = log_between(rng, 600, 2500) * np.exp(contour(rng, samples, rate, 3.0, 0.12))
        return harmonics(pitch, np.array([1.0, 0.05]), rate) * np.hanning(samples).astype(np.float32)
    samples = int(between(rng, 0.2, 0.6) * rate)
    return coloured_noise(rng, samples, rate, -9) * np.exp(-6 * np.linspace(0, 1, samples, dtype=np.float32))


def _room_tone(rng: Random, samples: int, rate: int) -> Array:
    return coloured_noise(rng, samples, rate, between(rng, -6, 0)) * np.exp(contour(rng, samples, rate, 0.3, 0.1))


def _hum(rng: Random, samples: int, rate: int) -> Array:
    mains = float(rng.choice([50.0, 60.0])) * np.exp(contour(rng, samples, rate, 0.3, 0.002))
    numbers = np.arange(1, 13)
    tone = harmonics(mains, rng.lognormal(0, 1, 12) / numbers, rate)
    return tone / rms(tone) + between(rng, 0.3, 1.5) * coloured_noise(rng, samples, rate, between(rng, -5, 0))


def _rain(rng: Random, samples: int, rate: int) -> Array:
    drops = []
    for _ in range(6):
        drop = white(rng, int(between(rng, 0.001, 0.006) * rate) + 4)
        drops.append(drop * np.exp(-3 * np.linspace(0, 1, len(drop), dtype=np.float32)))
    places = poisson_places(rng, samples, rate, between(rng, 40, 200))
    fall = scatter(rng, samples, drops, places, rng.lognormal(0, 0.8, len(places)))
    return fall / rms(fall) + between(rng, 0.5, 1.5) * coloured_noise(rng, samples, rate, between(rng, -4, 1), low=200)


def _traffic(rng: Random, samples: int, rate: int) -> Array:
    passing = np.exp(contour(rng, samples, rate, 0.25, 0.5))
    return coloured_noise(rng, samples, rate, between(rng, -9, -4)) * passing


def _wind(rng: Random, samples: int, rate: int) -> Array:
    gusts = np.exp(contour(rng, samples, rate, 0.8, 0.4))
    return coloured_noise(rng, samples, rate, between(rng, -8, -2), high=between(rng, 800, 6000)) * gusts
