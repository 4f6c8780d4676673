import numpy as np
import pytest

from pmam_plugin.demo.sounds import SOUNDS
from pmam_plugin.demo.synthesis import coloured_noise, contour, equaliser, harmonics, in_room, poisson_places, scatter

RATE = 16000


@pytest.mark.parametrize("label", sorted(SOUNDS))
def test_sounds_are_finite_of_the_length_asked_for_and_never_the_same_twice(label):
    sound = SOUNDS[label]
    rng = np.random.default_rng(3)
    for _ in range(4):
        seconds = float(rng.uniform(*sound.seconds))
        wave = sound.make(rng, seconds, RATE)
        assert wave.dtype == np.float32
        assert wave.ndim == 1
        assert np.isfinite(wave).all()
        assert np.abs(wave).max() > 0
        assert 0.5 * seconds <= len(wave) / RATE <= 1.35 * seconds + 0.1
    one, two = (sound.make(np.random.default_rng(seed), sound.seconds[1], RATE) for seed in (1, 2))
    size = min(len(one), len(two))
    assert abs(np.corrcoef(one[:size], two[:size])[0, 1]) < 0.5
    again = sound.make(np.random.default_rng(1), sound.seconds[1], RATE)
    assert np.array_equal(one, again)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("label", sorted(SOUNDS))
def test_sounds_work_at_any_rate_even_when_shortest(label, rate):
    sound = SOUNDS[label]
    assert np.isfinite(sound.make(np.random.default_rng(0), sound.seconds[0], rate)).all()


def test_there_are_ten_classes_under_the_names_of_desed():
    assert len(SOUNDS) == 10
    assert {"Alarm_bell_ringing", "Electric_shaver_toothbrush", "Running_water"} <= set(SOUNDS)


def test_harmonics_equal_a_sum_of_sines_and_stop_below_half_the_rate():
    pitch = np.full(1600, 1500.0, np.float32)
    amplitudes = np.array([1.0, 0.5, 0.25, 0.8, 0.7, 0.6])
    phase = np.cumsum(pitch.astype(float)) * 2 * np.pi / RATE
    expected = sum(amplitude * np.sin(n * phase) for n, amplitude in enumerate(amplitudes[:5], start=1))
    assert np.allclose(harmonics(pitch, amplitudes, RATE), expected, atol=1e-3)


def test_noise_has_the_slope_of_its_colour():
    noise = coloured_noise(np.random.default_rng(0), 20 * RATE, RATE, slope=-6.0)
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequency = np.fft.rfftfreq(len(noise), 1 / RATE)
    bands = [power[(frequency > low) & (frequency < 2 * low)].mean() for low in (500, 1000, 2000)]
    assert np.allclose(np.diff(10 * np.log10(bands)), -6, atol=0.7)


def test_a_room_lengthens_a_sound_and_leaves_its_onset_in_place():
    rng = np.random.default_rng(1)
    click = np.zeros(RATE, np.float32)
    click[1000] = 1.0
    heard = in_room(rng, click, RATE, eq_spread=0.0)
    assert RATE + 0.05 * RATE < len(heard) < RATE + 0.31 * RATE
    assert int(np.abs(heard).argmax()) == 1000


def test_contours_equalisers_and_scattered_kernels_keep_their_shapes():
    rng = np.random.default_rng(2)
    assert contour(rng, 12345, RATE, 2.0, 1.0).shape == (12345,)
    assert np.diff(contour(rng, RATE, RATE, 2.0, 1.0)).max() < 0.01
    assert (equaliser(rng, RATE, 6.0) > 0).all()
    kernels = [np.ones(10, np.float32)]
    added = scatter(rng, 100, kernels, np.array([0, 95, 100]), np.array([1.0, 2.0, 3.0]))
    assert added.sum() == 10 + 2 * 5
    assert len(poisson_places(rng, 100, RATE, 0.001)) >= 1
