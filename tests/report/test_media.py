"""Sound and pictures survive the way into the page."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
import soundfile
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from pmam_plugin.audio import read_audio
from pmam_plugin.errors import InputError
from pmam_plugin.report.media import SAMPLE_RATE, bytes_of, duration_of, encode_audio, mono_blocks, png, relative_link


def unpack(encoded: str) -> np.ndarray:
    """Decode what png() wrote, by the letter of the format: grey, 8 bit, filter 1 (difference to the left)."""
    data = base64.b64decode(encoded)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, found = 8, {}
    while place < len(data):
        length = struct.unpack(">I", data[place : place + 4])[0]
        name, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length])[0] == zlib.crc32(name + body)
        found[name] = body
        place += 12 + length
    width, height, depth, kind = struct.unpack(">IIBB", found[b"IHDR"][:10])
    assert (depth, kind) == (8, 0)
    rows = np.frombuffer(zlib.decompress(found[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert (rows[:, 0] == 1).all()
    return np.cumsum(rows[:, 1:], axis=1, dtype=np.uint8)


@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_a_picture_comes_back_as_it_was(gray: np.ndarray) -> None:
    assert (unpack(png(gray)) == gray).all()


def test_sound_comes_back_in_length_and_in_time() -> None:
    wave = np.zeros(3 * SAMPLE_RATE, np.float32)
    wave[SAMPLE_RATE : SAMPLE_RATE + 160] = 0.8 * np.sin(np.arange(160))
    sound = encode_audio(wave)
    decoded, rate = soundfile.read(io.BytesIO(base64.b64decode(sound["base64"])))
    assert rate == SAMPLE_RATE
    assert len(decoded) == len(wave)
    loud = np.flatnonzero(np.abs(decoded) > 0.3)
    assert abs(loud[0] - SAMPLE_RATE) < 32  # 2 ms
    assert abs(loud[-1] - SAMPLE_RATE - 160) < 32


def test_ten_seconds_take_less_than_70_kilobytes() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * SAMPLE_RATE).astype(np.float32)
    assert len(encode_audio(noise)["base64"]) < 70_000


def test_a_long_file_comes_in_blocks_that_join_to_the_whole(tmp_path) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "long.wav"
    soundfile.write(path, random.normal(0, 0.1, (70 * 8000, 2)), 8000)
    blocks = list(mono_blocks(path))
    assert max(len(block) for block in blocks) <= 40 * SAMPLE_RATE
    joined, whole = np.concatenate(blocks), read_audio(path, SAMPLE_RATE).numpy()
    assert abs(len(joined) - len(whole)) <= 1
    length = min(len(joined), len(whole))
    assert np.abs(joined[:length] - whole[:length]).max() < 1e-3


def test_samples_in_memory_are_averaged_and_resampled() -> None:
    block = next(mono_blocks((np.ones((8000, 2), np.float32) * [0.2, 0.4], 8000)))
    assert len(block) == SAMPLE_RATE
    assert np.median(block) == pytest.approx(0.3, abs=0.01)
    assert duration_of((np.zeros((8000, 2)), 8000)) == 1.0


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"gone\.wav"):
        next(mono_blocks(tmp_path / "gone.wav"))


@given(st.lists(st.floats(0, 1), max_size=20))
def test_scores_lose_at_most_half_a_step(values: list[float]) -> None:
    back = np.frombuffer(base64.b64decode(bytes_of(values)), np.uint8) / 255
    assert np.abs(back - np.asarray(values)).max(initial=0) <= 0.5 / 255 + 1e-9


def test_links_are_relative_and_quoted(tmp_path) -> None:
    link = relative_link(tmp_path / "my sounds" / "a#1.wav", tmp_path / "reports" / "page.html")
    assert link == "../my%20sounds/a%231.wav"
