"""Headers that lie: what the bytes hold is heard whole, with a word where something was made good, or refused."""

import io
import struct

import numpy as np
import pytest
import soundfile
import torch

from pmam_plugin.audio import AudioReader, audio_blocks, audio_info, mpeg, read_audio, reader
from pmam_plugin.errors import InputError
from tests.audio.files import RATE, chunk, encoded, heard, mp3_count, noise, ogg_pages, patched
from tests.audio.layouts import HEARD, VORBIS


@pytest.mark.parametrize("case", HEARD)
def test_what_is_complete_is_heard_whole(tmp_path, case):
    good, content, seconds, spoken = HEARD[case]
    (tmp_path / "good").write_bytes(good)
    (tmp_path / "a.wav").write_bytes(content)
    expected, _ = heard(tmp_path / "good")
    wave, said = heard(tmp_path / "a.wav")
    assert len(wave) == pytest.approx(seconds * RATE, abs=1600)  # the ends of MP3 and Opus are cut to a frame
    same = min(len(expected), len(wave))
    best = max(
        float(torch.corrcoef(torch.stack((expected[1500 : same - 3000], wave[1500 + lag : same - 3000 + lag])))[0, 1])
        for lag in (0, -529, 529, -576, 576, -1105, 1105)
    )
    assert best > 0.99
    assert bool(said) == spoken, said
    assert all(sentence.startswith(str(tmp_path / "a.wav")) and "\n" not in sentence for sentence in said)
    assert audio_info(tmp_path / "a.wav").frames == pytest.approx(len(wave), abs=1600)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_of_every_generation_is_counted_with_and_without_its_tag(tmp_path, rate, channels):
    samples = noise(4.0, channels, rate)
    samples[: 2 * rate] *= 0.01  # a variable rate that starts low
    tagged = encoded(samples, "MP3", rate=rate, bitrate_mode="VARIABLE")
    scan = mpeg._scan(io.BytesIO(tagged), 0, len(tagged))
    (tmp_path / "a.mp3").write_bytes(tagged)
    (tmp_path / "b.mp3").write_bytes(tagged[scan.header.length :])
    for name, most in (("a.mp3", 4.0), ("b.mp3", 4.25)):
        said: list[str] = []
        wave = read_audio(tmp_path / name, rate, notes=said.append)
        assert 4.0 <= len(wave) / rate <= most
        assert audio_info(tmp_path / name).frames == len(wave)
        assert not said


def test_a_long_mp3_that_breaks_off_invents_nothing(tmp_path):
    """Reading on at the end used to give the last block again, and the dog barked twice."""
    whole = encoded(noise(70.0), "MP3", bitrate_mode="CONSTANT")
    (tmp_path / "a.mp3").write_bytes(whole[: len(whole) * 6 // 10])
    blocks: list[torch.Tensor] = []
    with pytest.raises(InputError, match="ends before"):
        blocks.extend(audio_blocks(tmp_path / "a.mp3", RATE))
    assert sum(map(len, blocks)) < 42.1 * RATE
    (tmp_path / "a.mp3").write_bytes(mp3_count(whole, len(whole)))
    assert audio_info(tmp_path / "a.mp3").duration == pytest.approx(70.0, abs=0.1)


def test_ogg_from_the_middle_of_a_stream_gets_a_word(tmp_path):
    pages = ogg_pages(VORBIS)
    (tmp_path / "a.ogg").write_bytes(VORBIS[: pages[2][0]] + VORBIS[pages[3][0] :])
    wave, [note] = heard(tmp_path / "a.ogg")
    assert 1.9 < len(wave) / RATE < 2.3
    assert "begins in the middle of its stream" in note


LIVING_CODECS = [
    ("WAV", "GSM610"),
    ("WAV", "G721_32"),
    ("WAV", "NMS_ADPCM_16"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "MS_ADPCM"),
    ("AU", "G721_32"),
    ("AU", "G723_24"),
    ("AU", "G723_40"),
    ("AIFF", "DWVW_16"),
    ("AIFF", "GSM610"),
    ("CAF", "ALAC_16"),
    ("W64", "GSM610"),
]


@pytest.mark.parametrize(("kind", "subtype"), LIVING_CODECS)
def test_codecs_that_only_run_forward_are_read_in_blocks_and_in_parts(tmp_path, monkeypatch, kind, subtype):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)
    (tmp_path / "a.wav").write_bytes(encoded(tone, kind, subtype))
    monkeypatch.setattr(reader, "BLOCK_SECONDS", 0.7)
    wave, said = heard(tmp_path / "a.wav")
    assert not said
    assert 0 <= len(wave) - 3 * RATE < 1100  # the last block of an ADPCM is filled up
    assert np.abs(wave.numpy()[2000:46000] - tone[2000:46000]).max() < 0.1
    part = read_audio(tmp_path / "a.wav", RATE, start=1.25, seconds=0.5)
    torch.testing.assert_close(part, wave[20000:28000])


def with_promise():
    return [
        (kind, subtype)
        for kind in soundfile.available_formats()
        if kind not in ("RAW", "SD2", "PVF", "IRCAM", "PAF", "XI")
        for subtype in soundfile.available_subtypes(kind)
        if soundfile.check_format(kind, subtype)
    ]


@pytest.mark.parametrize(("kind", "subtype"), with_promise())
def test_every_format_is_heard_whole_and_refused_when_cut(tmp_path, kind, subtype):
    rate = 8000 if kind == "WVE" else RATE
    try:
        content = encoded(noise(1.0, rate=rate), kind, subtype, rate)
    except soundfile.LibsndfileError:
        pytest.skip("libsndfile reads this, but does not write it")
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    said: list[str] = []
    wave = read_audio(path, rate, notes=said.append)
    assert 0 <= len(wave) - rate < 1100 or (kind, subtype) == ("VOC", "PCM_U8")  # VOC knows few rates
    assert not said
    for cut in (content[: len(content) * 7 // 10], content[:-60]):
        path.write_bytes(cut)
        with pytest.raises(InputError):
            read_audio(path, rate)


@pytest.mark.parametrize("kind", ["WAV", "RF64", "W64", "CAF", "FLAC", "SVX", "VOC", "SDS", "NIST", "AVR"])
def test_no_number_in_a_header_costs_sound_in_silence(tmp_path, kind):
    """Whatever four bytes say: all is heard, or a word is said, or the file is refused."""
    good, path = encoded(noise(0.25), kind, "PCM_16"), tmp_path / "a.wav"

    def read(content):
        path.write_bytes(content)
        with AudioReader(path) as recording:
            frames = sum(len(block) for block in recording.blocks())
            return frames, (recording.sample_rate, recording.channels, recording.subtype), recording.notes

    whole, description, _ = read(good)
    for position in range(0, 96, 2):
        for number in (b"\0\0\x03\xe8", b"\xe8\x03\0\0", b"\xff\xff\xff\xff"):
            try:
                frames, described, notes = read(patched(good, position, number))
            except InputError:
                continue
            lost = 0 < frames < 0.98 * whole
            assert not lost or notes or described != description, position


def test_sizes_beyond_four_gibibytes_that_wrapped_are_seen_through(tmp_path):
    """A sparse file: 4 GiB and a second, whose header says a second."""
    path = tmp_path / "a.wav"
    length = (1 << 32) + 2 * 192_000 * 8
    head = b"RIFF\0\0\0\0WAVE" + chunk(b"fmt ", struct.pack("<HHIIHH", 1, 8, 192_000, 192_000 * 16, 16, 16))
    with open(path, "wb") as file:
        file.write(head + b"data" + struct.pack("<I", length % (1 << 32)))
        file.seek(length - 4000, 1)
        file.write(b"\x10" * 4000)
    info = audio_info(path)
    assert (info.frames, info.channels) == (length // 16, 8)
    assert read_audio(path, RATE, start=info.duration - 0.5, seconds=0.5).abs().max() > 0
