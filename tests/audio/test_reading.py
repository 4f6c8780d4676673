"""Reading recordings of every kind, and refusing the broken ones."""

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, strategies as st

from pmam_plugin.audio import (
    MonoResampler,
    audio_blocks,
    audio_info,
    fit_length,
    read_audio,
    reader,
    to_mono_resampled,
    write_wav,
)
from pmam_plugin.errors import InputError

RATE = 16000


def tone(seconds=0.5, rate=RATE, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "subtype", "rate", "error"),
    [
        ("a.wav", "PCM_16", RATE, 1e-4),
        ("a.wav", "FLOAT", RATE, 1e-7),
        ("a.wav", "PCM_U8", RATE, 1e-2),
        ("a.flac", "PCM_24", RATE, 1e-6),
        ("a.ogg", "VORBIS", RATE, 5e-2),
        ("a.ogg", "OPUS", RATE, 5e-2),
        ("a.mp3", None, RATE, 5e-2),
    ],
)
def test_every_format_is_read_as_the_samples_that_were_written(tmp_path, name, subtype, rate, error):
    soundfile.write(tmp_path / name, tone(), rate, subtype=subtype)
    waveform = read_audio(tmp_path / name, rate)
    assert waveform.dtype == torch.float32
    middle = slice(2000, 6000)
    assert np.abs(waveform.numpy()[middle] - tone()[middle]).max() < error


@pytest.mark.parametrize("source_rate", [8000, 22050, 44100, 48000])
def test_a_resampled_tone_is_the_tone_at_the_new_rate(tmp_path, source_rate):
    soundfile.write(tmp_path / "a.wav", tone(rate=source_rate), source_rate, subtype="FLOAT")
    waveform = read_audio(tmp_path / "a.wav", RATE)
    assert abs(len(waveform) - RATE // 2) <= 1
    assert np.abs(waveform.numpy()[1000:7000] - tone()[1000:7000]).max() < 2e-3


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(tmp_path, channels):
    gains = np.arange(1, channels + 1, dtype=np.float32) / channels
    soundfile.write(tmp_path / "a.wav", tone()[:, None] * gains, RATE, subtype="FLOAT")
    assert np.allclose(read_audio(tmp_path / "a.wav", RATE), tone() * gains.mean(), atol=1e-6)


def test_info_states_the_header(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros((4410, 2)), 44100)
    info = audio_info(tmp_path / "a.flac")
    assert (info.sample_rate, info.frames, info.channels, info.duration) == (44100, 4410, 2, 0.1)


def test_the_waveform_may_be_written_to(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    read_audio(tmp_path / "a.wav", RATE).mul_(2.0)
    to_mono_resampled(np.broadcast_to(np.float32(0.5), (100,)), RATE, RATE).mul_(2.0)


@pytest.mark.parametrize("content", [None, b"", b"filename\tonset\n" * 50])
def test_the_header_of_what_is_no_audio_is_refused_too(tmp_path, content):
    if content is not None:
        (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(InputError):
        audio_info(tmp_path / "a.wav")


def test_a_wav_of_unknown_length_is_read_whole(tmp_path):
    path = tmp_path / "stream.wav"
    soundfile.write(path, tone(), RATE)
    content = bytearray(path.read_bytes())
    content[40:44] = content[4:8] = b"\xff\xff\xff\xff"  # what ffmpeg writes into a pipe
    path.write_bytes(bytes(content))
    assert len(read_audio(path, RATE)) == len(tone())


def test_arrays_and_tensors_of_either_layout_give_the_same_waveform():
    stereo = np.stack([tone(), -0.5 * tone()], axis=1)
    expected = tone() * 0.25
    for samples in (stereo, stereo.T, torch.from_numpy(stereo), torch.from_numpy(stereo.T), stereo.astype("float64")):
        assert np.allclose(to_mono_resampled(samples, RATE, RATE), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([-32768, 0, 16384], dtype=np.int16), [-1.0, 0.0, 0.5]),
        (np.array([-(2**31), 0, 2**30], dtype=np.int32), [-1.0, 0.0, 0.5]),
        (np.array([0, 128, 192], dtype=np.uint8), [-1.0, 0.0, 0.5]),
    ],
)
def test_integer_samples_are_scaled_to_full_scale_one(samples, expected):
    assert to_mono_resampled(samples, RATE, RATE).tolist() == expected


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0),
        np.zeros((0, 2)),
        np.zeros((2, 0)),
        np.float32(1.0),
        np.zeros((2, 2, 2)),
        np.array([1.0, np.nan]),
        np.array([1.0, -np.inf]),
        np.array(["a", "b"]),
        np.array([1 + 1j]),
    ],
    ids=["none", "no frames", "no frames, channels first", "scalar", "three axes", "nan", "inf", "text", "complex"],
)
def test_unusable_samples_are_refused(samples):
    with pytest.raises(InputError):
        to_mono_resampled(samples, RATE, RATE)


def test_a_sample_rate_of_zero_is_refused():
    with pytest.raises(InputError, match="positive"):
        to_mono_resampled(tone(), 0, RATE)


@given(length=st.integers(0, 50), wanted=st.integers(0, 50))
def test_fitting_pads_with_zeros_or_cuts(length, wanted):
    waveform = torch.ones(2, length)
    fitted = fit_length(waveform, wanted)
    assert fitted.shape == (2, wanted)
    assert fitted.sum() == 2 * min(length, wanted)
    assert (fitted[:, :length] == 1).all()


def test_what_is_written_is_read_back_and_clipped_at_full_scale(tmp_path):
    write_wav(tmp_path / "new" / "a.wav", torch.from_numpy(4 * tone()), RATE)
    waveform = read_audio(tmp_path / "new" / "a.wav", RATE)
    assert np.abs(waveform.numpy() - np.clip(4 * tone(), -1, 1)).max() < 1e-4


def test_writing_nothing_leaves_no_file(tmp_path):
    with pytest.raises(InputError):
        write_wav(tmp_path / "a.wav", torch.zeros(0), RATE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (8_000, 3)])
def test_blocks_together_are_the_file_read_at_once(tmp_path, monkeypatch, rate, channels):
    monkeypatch.setattr(reader, "BLOCK_SECONDS", 0.3)
    noise = 0.1 * np.random.default_rng(1).standard_normal((round(1.7 * rate), channels))
    soundfile.write(tmp_path / "a.wav", noise, rate)
    blocks = list(audio_blocks(tmp_path / "a.wav", 16_000))
    assert len(blocks) > 5
    torch.testing.assert_close(torch.cat(blocks), read_audio(tmp_path / "a.wav", 16_000), atol=1e-6, rtol=0)


def test_a_short_file_is_one_block(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(4800), 16_000)
    assert [len(block) for block in audio_blocks(tmp_path / "a.wav", 16_000)] == [4800]


def test_broken_files_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "BLOCK_SECONDS", 0.3)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(48_000), 16_000)
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(InputError, match=r"a\.wav.*ends before"):
        list(audio_blocks(path, 16_000))
    soundfile.write(path, np.append(np.zeros(48_000), np.nan), 16_000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"a\.wav.*NaN"):
        list(audio_blocks(path, 16_000))


def test_an_mp3_that_a_folder_of_a_mac_hides_says_so(tmp_path, monkeypatch):
    (tmp_path / ".AppleDouble").mkdir()
    soundfile.write(tmp_path / "a.mp3", np.zeros(8000), 8000)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"a\.mp3: cannot be decoded .*\.AppleDouble in the current folder: run"):
        read_audio("a.mp3", 8000)


def test_a_resampler_in_pieces_equals_one_call():
    noise = np.random.default_rng(2).standard_normal(44_100).astype(np.float32)
    whole, pieces = MonoResampler(44_100, 16_000, "x"), MonoResampler(44_100, 16_000, "x")
    once = torch.cat((whole.feed(noise), whole.finish()))
    parts = torch.cat([*(pieces.feed(noise[i : i + 999]) for i in range(0, 44_100, 999)), pieces.finish()])
    torch.testing.assert_close(once, parts, atol=1e-6, rtol=0)
