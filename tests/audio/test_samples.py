"""Samples: in parts, out of scale, too few, and what is said of them."""

import logging

import numpy as np
import pytest
import soundfile
import torch

from pmam_plugin.audio import audio_blocks, read_audio, reader
from pmam_plugin.errors import InputError
from tests.audio.files import RATE, encoded, heard, noise, patched, wav_sizes
from tests.audio.layouts import AU, WAV


def test_a_part_is_what_the_whole_has_there_and_nothing_else_is_read(tmp_path, monkeypatch):
    samples = noise(40.0, rate=44100)
    (tmp_path / "a.flac").write_bytes(encoded(samples, "FLAC", rate=44100))
    whole = read_audio(tmp_path / "a.flac", RATE)
    read: list[int] = []
    original = reader._Decoder.read

    def counting(self, frames, *arguments, **named):
        block = original(self, frames, *arguments, **named)
        read.append(len(block))
        return block

    monkeypatch.setattr(reader._Decoder, "read", counting)
    for start, seconds in ((0.0, 1.0), (7.25, 10.0), (39.0, 1.0), (39.5, 5.0)):
        read.clear()
        part = read_audio(tmp_path / "a.flac", RATE, start, seconds)
        place = slice(round(start * RATE), round(start * RATE) + len(part))
        assert len(part) == min(round(seconds * RATE), len(whole) - place.start)
        torch.testing.assert_close(part, whole[place], atol=2e-4, rtol=0)
        assert sum(read) < (seconds + 0.1) * 44100
    with pytest.raises(InputError, match="no samples"):
        read_audio(tmp_path / "a.flac", RATE, 50.0, 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
@pytest.mark.parametrize("seconds", [1.0, 40.0])
def test_samples_are_looked_at_in_recordings_of_any_length(tmp_path, value, seconds):
    samples = noise(seconds, channels=2)
    samples[-5, 1] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=r"NaN or infinite|scale the recording down"):
        list(audio_blocks(tmp_path / "a.wav", RATE))


def test_floats_at_the_scale_of_integers_and_channels_that_cancel_get_a_word(tmp_path):
    soundfile.write(tmp_path / "a.wav", 32768 * noise(), RATE, subtype="FLOAT")
    assert ["divide them by" in note for note in heard(tmp_path / "a.wav")[1]] == [True]
    soundfile.write(tmp_path / "a.wav", 2 * noise(), RATE, subtype="FLOAT")
    assert heard(tmp_path / "a.wav")[1] == []
    left = noise()
    for right, words in ((-left, 1), (-0.9 * left, 1), (left, 0), (0 * left, 0), (noise()[::-1], 0)):
        soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
        assert ["cancel each other" in note for note in heard(tmp_path / "a.wav")[1]] == [True] * words
    soundfile.write(tmp_path / "a.wav", np.zeros((RATE, 2)), RATE)
    assert heard(tmp_path / "a.wav")[1] == []


def test_words_reach_the_log(tmp_path, caplog):
    (tmp_path / "a.wav").write_bytes(wav_sizes(WAV, 0, 0))
    with caplog.at_level(logging.WARNING):
        read_audio(tmp_path / "a.wav", RATE)
    assert ["a.wav" in record.getMessage() for record in caplog.records] == [True]


def test_a_recording_of_one_sample_and_one_that_resamples_to_nothing(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.ones(1), RATE)
    assert len(read_audio(tmp_path / "a.wav", RATE)) == 1
    soundfile.write(tmp_path / "a.wav", np.ones(1), 192_000)
    with pytest.raises(InputError, match="too short"):
        read_audio(tmp_path / "a.wav", 8000)


def test_a_full_disk_or_a_lost_network_is_no_end_of_the_recording(tmp_path, monkeypatch):
    (tmp_path / "a.au").write_bytes(patched(AU, 8, b"\xff" * 4))

    def fails(self, buffer):
        if self._position > 40_000:
            self.failure = OSError(5, "Input/output error")
            return 0
        return original(self, buffer)

    original = reader.View.readinto
    monkeypatch.setattr(reader.View, "readinto", fails)
    with pytest.raises(InputError, match="Input/output error"):
        read_audio(tmp_path / "a.au", RATE)
