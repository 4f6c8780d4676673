"""The picture shows what sounds, where it sounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pmam_plugin.report.media import SAMPLE_RATE
from pmam_plugin.report.spectrogram import (
    SpectrogramBuilder,
    hertz_to_mel,
    log_mel,
    mel_bank,
    picture,
    spectrogram_data,
)


@pytest.mark.parametrize("hertz", [300, 1000, 3000, 7000])
def test_a_tone_stands_at_its_frequency(hertz: float) -> None:
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    band = log_mel(wave, 96)[:, 50].argmax()
    expected = hertz_to_mel(hertz) / hertz_to_mel(8000) * 97 - 1
    assert abs(band - expected) <= 1.5


def test_a_click_stands_at_its_time() -> None:
    wave = np.zeros(2 * SAMPLE_RATE, np.float32)
    wave[round(1.235 * SAMPLE_RATE)] = 1.0
    decibels = log_mel(wave)
    assert decibels.shape == (96, 200)
    assert abs(decibels.mean(axis=0).argmax() - 123) <= 1


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 9000), min_size=1, max_size=6), st.integers(0, 2**31))
def test_blocks_of_any_size_give_the_same_picture(sizes: list[int], seed: int) -> None:
    wave = np.random.default_rng(seed).normal(0, 0.1, sum(sizes)).astype(np.float32)
    builder = SpectrogramBuilder(len(wave) / SAMPLE_RATE)
    for part in np.split(wave, np.cumsum(sizes)[:-1]):
        builder.add(part)
    np.testing.assert_allclose(builder.finish(), log_mel(wave), atol=1e-3)


def test_an_hour_fits_into_twelve_thousand_columns_and_keeps_its_clicks() -> None:
    builder = SpectrogramBuilder(3600.0)
    assert 3600 / builder.seconds_per_column <= 12_000
    wave = np.zeros(60 * SAMPLE_RATE, np.float32)
    wave[30 * SAMPLE_RATE] = 1.0
    builder.add(wave)
    decibels = builder.finish()
    assert decibels.mean(axis=0).argmax() == int(30 / builder.seconds_per_column)


def test_silence_and_nothing_at_all_are_pictures_too() -> None:
    assert log_mel(np.zeros(0, np.float32)).shape == (96, 1)
    assert np.isfinite(spectrogram_data(log_mel(np.zeros(100, np.float32)), 0.01)["seconds"])
    assert picture(np.full((4, 5), -100.0)).shape == (4, 5)


def test_filters_cover_every_band_and_sum_to_one() -> None:
    for bands in (48, 96, 128):
        bank = mel_bank(bands)
        np.testing.assert_allclose(bank.sum(axis=1), 1.0, rtol=1e-5)


def test_louder_is_whiter_and_low_notes_lie_below() -> None:
    decibels = np.array([[0.0, -20.0], [-40.0, -69.0]])
    levels = picture(decibels, lift=False)
    assert levels[1, 0] > levels[1, 1] > levels[0, 0] > levels[0, 1]
