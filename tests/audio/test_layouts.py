"""Headers that lie: what the bytes hold is heard whole, with a word where something was made good, or refused."""

import io
import logging
import struct

import numpy as np
import pytest
import soundfile
import torch

from pmam_plugin.audio import AudioReader, audio_blocks, audio_info, mpeg, read_audio, reader
from pmam_plugin.errors import InputError
from tests.audio.files import (
    RATE,
    chunk,
    encoded,
    flac_total,
    fraunhofer_tag,
    mp3_count,
    mp3_without_tag,
    noise,
    ogg_page,
    ogg_pages,
    patched,
    wav_sizes,
)

WAV = encoded(noise(), "WAV", "PCM_16")
DATA = WAV[44:]
SIZE = len(DATA)
FLAC = encoded(noise(), "FLAC", "PCM_16")
MP3 = encoded(noise(), "MP3", bitrate_mode="VARIABLE")
VORBIS, OPUS = encoded(noise(), "OGG", "VORBIS"), encoded(noise(), "OGG", "OPUS")
AIFF, W64, AU, CAF = (encoded(noise(), kind, "PCM_16") for kind in ("AIFF", "W64", "AU", "CAF"))
SSND = AIFF.index(b"SSND")
COMM = AIFF.index(b"COMM")
AIFF_GSM = encoded(noise(), "AIFF", "GSM610")
RIFF = wav_sizes(WAV)[:12]
FMT = WAV[12:36]
ID3 = b"ID3\x04\0\0\0\0\x02\0" + bytes(256)
_APE = struct.pack("<IIII8x", 2000, 96, 1, 0xA0000000)
APE = b"APETAGEX" + _APE + bytes(64) + b"APETAGEX" + patched(_APE, 12, b"\0\0\0\x80")
VBRI = fraunhofer_tag(MP3)
LIST = chunk(b"LIST", b"INFOISFT\x06\0\0\0maker\0")


def tail(content: bytes, share: float) -> bytes:
    return content[: round(share * len(content))]


def w64_size(content: bytes, size: int, at: int | None = None) -> bytes:
    place = content.index(b"data") + 16 if at is None else at
    return patched(content, place, struct.pack("<q", size))


def wrapped(kind: int, body: bytes) -> bytes:
    """A WAV around another codec's stream."""
    description = chunk(b"fmt ", struct.pack("<HHIIHHH", kind, 1, RATE, 4000, 1, 0, 0))
    return (
        b"RIFF" + struct.pack("<I", 4 + len(description) + 8 + len(body)) + b"WAVE" + description + chunk(b"data", body)
    )


# What -> the good file, the bytes, the seconds they hold, and whether a word must be said.
HEARD = {
    "sizes 1 byte too large": (WAV, wav_sizes(WAV, SIZE + 1), 3.0, True),
    "sizes that count the header too": (WAV, wav_sizes(WAV, SIZE + 44, SIZE + 80), 3.0, True),
    "a size of the samples that the whole file contradicts": (WAV, wav_sizes(WAV, 3 * SIZE), 3.0, True),
    "a size of the whole file that the samples contradict": (WAV, wav_sizes(WAV, None, 10), 3.0, False),
    "an unfinished header": (WAV, wav_sizes(WAV, 0, 0), 3.0, True),
    "a header finished too early": (WAV, wav_sizes(WAV, SIZE // 3, SIZE // 3 + 36), 3.0, True),
    "the placeholder of ffmpeg": (WAV, wav_sizes(WAV, 0xFFFFFFFF, 0xFFFFFFFF), 3.0, True),
    "the placeholder of sox": (WAV, wav_sizes(WAV, 0x7FFFF000, 0x7FFFF024), 3.0, True),
    "the placeholder of arecord": (WAV, wav_sizes(WAV, 0x80000000, 0x80000024), 3.0, True),
    "the placeholder of gstreamer": (WAV, wav_sizes(WAV, 0x7FFFFFFF, 0x7FFFFFFF), 3.0, True),
    "chunks after the samples": (WAV, wav_sizes(WAV + LIST, None, SIZE + 36 + len(LIST)), 3.0, False),
    "chunks before the samples": (
        WAV,
        RIFF + chunk(b"JUNK", bytes(27)) + FMT + LIST + chunk(b"data", DATA),
        3.0,
        False,
    ),
    "samples before their description": (WAV, RIFF + chunk(b"data", DATA) + FMT, 3.0, False),
    "an odd chunk without its padding": (WAV, RIFF + FMT + b"note\x03\0\0\0abc" + chunk(b"data", DATA), 3.0, False),
    "two odd chunks without their padding": (
        WAV,
        RIFF + b"note\x03\0\0\0abc" + FMT + b"note\x01\0\0\0a" + chunk(b"data", DATA),
        3.0,
        False,
    ),
    "an unfinished header and chunks before": (WAV, RIFF + LIST + FMT + b"data" + bytes(4) + DATA, 3.0, True),
    "an ID3 tag at the end": (WAV, WAV + b"TAG" + bytes(125), 3.0, False),
    "zeros at the end": (WAV, WAV + bytes(1000), 3.0, False),
    "half a sample at the end": (WAV, wav_sizes(WAV + b"\x01", SIZE + 1), 3.0, False),
    "BW64": (WAV, b"BW64" + WAV[4:], 3.0, False),
    "RF64 with an unfinished ds64": (
        WAV,
        b"RF64" + b"\xff" * 4 + b"WAVE" + chunk(b"ds64", bytes(28)) + FMT + b"data" + b"\xff" * 4 + DATA,
        3.0,
        True,
    ),
    "an unfinished RIFX": (
        encoded(noise(), "WAV", "PCM_16", endian="BIG"),
        patched(encoded(noise(), "WAV", "PCM_16", endian="BIG"), 40, bytes(4)),
        3.0,
        True,
    ),
    "MP3 in a WAV": (mp3_without_tag(MP3), wrapped(0x55, mp3_without_tag(MP3)), 3.0, False),
    "an unfinished AIFF": (AIFF, patched(patched(AIFF, SSND + 4, bytes(4)), COMM + 10, bytes(4)), 3.0, True),
    "an AIFF with too few frames": (AIFF, patched(AIFF, COMM + 10, struct.pack(">I", 1000)), 3.0, True),
    "an AIFF finished too early": (AIFF, patched(AIFF, SSND + 4, struct.pack(">I", 9000)), 3.0, True),
    "AIFF samples before their description": (
        AIFF,
        AIFF[:12] + AIFF[SSND:] + AIFF[COMM : COMM + 26],
        3.0,
        False,
    ),
    "an AIFF of GSM with too few frames": (
        AIFF_GSM,
        patched(AIFF_GSM, AIFF_GSM.index(b"COMM") + 10, struct.pack(">I", 1000)),
        3.0,
        True,
    ),
    "a tag in front of a WAV": (WAV, ID3 + WAV, 3.0, False),
    "a W64 finished too early": (W64, w64_size(W64, 9024), 3.0, True),
    "an unfinished W64": (W64, w64_size(w64_size(W64, 24), 0, 16), 3.0, True),
    "a W64 with 24 bytes too many": (W64, w64_size(W64, SIZE + 48), 3.0, True),
    "an AU of unknown length": (AU, patched(AU, 8, b"\xff" * 4), 3.0, False),
    "an unfinished AU": (AU, patched(AU, 8, bytes(4)), 3.0, True),
    "a CAF of unknown length": (CAF, patched(CAF, CAF.index(b"data") + 4, b"\xff" * 8), 3.0, False),
    "FLAC of unknown length": (FLAC, flac_total(FLAC, 0), 3.0, False),
    "FLAC of unknown length with a tag at the end": (FLAC, flac_total(FLAC, 0) + b"TAG" + bytes(125), 3.0, False),
    "FLAC with an APE tag": (FLAC, FLAC + APE, 3.0, False),
    "FLAC of unknown length with two tags and zeros": (
        FLAC,
        flac_total(FLAC, 0) + APE + b"TAG" + bytes(9000),
        3.0,
        False,
    ),
    "FLAC before zeros": (FLAC, FLAC + bytes(5000), 3.0, False),
    "FLAC with a tag in front": (FLAC, ID3 + FLAC, 3.0, False),
    "FLAC with too small a count": (FLAC, flac_total(FLAC, 1000), 3.0, True),
    "variable MP3 without its tag": (MP3, mp3_without_tag(MP3), 3.0, False),
    "MP3 with too small a count": (MP3, mp3_count(MP3, 40), 3.0, True),
    "MP3 with a count of one": (MP3, mp3_count(MP3, 1), 3.0, True),
    "MP3 that claims thousands of hours, but its own size": (MP3, mp3_count(MP3, 0xFFFFFFF0), 3.0, True),
    "MP3 with tags at both ends": (MP3, ID3 + MP3 + b"TAG" + bytes(125), 3.0, False),
    "MP3 with a tag in the middle": (
        MP3,
        MP3 + ID3 + mp3_without_tag(MP3),
        6.0,
        True,
    ),
    "an MP3 without tag that ends inside a frame": (MP3, mp3_without_tag(MP3)[:-30], 3.0, True),
    "an MP3 without tag before zeros": (MP3, mp3_without_tag(MP3) + bytes(9000), 3.0, True),
    "an MP3 with an APE tag": (MP3, MP3 + APE, 3.0, False),
    "an MP3 with an APE tag that counts wrongly": (MP3, MP3 + patched(APE, 12, bytes(4)), 3.0, False),
    "an MP3 with lyrics in the middle": (MP3, MP3 + b"LYRICSBEGINabcLYRICS200" + mp3_without_tag(MP3), 6.0, True),
    "an MP3 with Fraunhofer's tag": (mp3_without_tag(MP3), VBRI, 3.0, False),
    "an MP3 behind noise": (MP3, bytes(range(255, -1, -1)) * 3 + MP3, 3.0, True),
    "an MP3 whose first tag claims a part of its sound": (MP3, patched(ID3, 8, b"\x20\0") + MP3, 3.0, False),
    "an MP3 whose first tag claims more than all of it": (MP3, patched(ID3, 6, b"\x7f" * 4) + MP3, 3.0, False),
    "two MP3 one behind the other": (MP3, MP3 + mp3_without_tag(MP3), 6.0, True),
    "chained Vorbis": (VORBIS, VORBIS + VORBIS, 6.0, True),
    "chained Opus": (OPUS, OPUS + OPUS + OPUS, 9.0, True),
    "Opus without its end mark": (OPUS, ogg_page(OPUS, -1, flags=0), 3.0, True),
    "Vorbis without its end mark": (VORBIS, ogg_page(VORBIS, -1, flags=0), 3.0, True),
    "Opus that does not know its length": (OPUS, ogg_page(OPUS, -1, granule=-1), 3.0, True),
    "Vorbis that does not know its length": (VORBIS, ogg_page(VORBIS, -1, granule=17), 3.0, True),
}


def heard(path):
    """Samples and what was said, from the one reader."""
    said: list[str] = []
    wave = read_audio(path, RATE, notes=said.append)
    return wave, said


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


# What is cut, or no sound -> the bytes, and what the user reads (tests/test_bad_inputs.py).
DAMAGED = {
    "a WAV cut in the middle": (
        tail(WAV, 0.7),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "a WAV that lacks 45 bytes": (
        WAV[:-45],
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "an RF64 cut in the middle": (
        tail(encoded(noise(), "RF64"), 0.7),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "a WAV cut in the middle behind a tag": (
        ID3 + tail(WAV, 0.7),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "two WAV one behind the other": (
        WAV + WAV,
        "{}/a.wav: more sound follows its first stretch; split the file, or convert it to one stretch",
    ),
    "two W64 one behind the other": (
        W64 + W64,
        "{}/a.wav: more sound follows its first stretch; split the file, or convert it to one stretch",
    ),
    "two AU one behind the other": (
        AU + AU,
        "{}/a.wav: more sound follows its first stretch; split the file, or convert it to one stretch",
    ),
    "two CAF one behind the other": (
        CAF + CAF,
        "{}/a.wav: more sound follows its first stretch; split the file, or convert it to one stretch",
    ),
    "two FLAC one behind the other": (
        FLAC + FLAC,
        "{}/a.wav: cannot be decoded (...); give a whole wav, flac, ogg or mp3 file",
    ),
    "a WAV with two stretches of samples": (
        wav_sizes(WAV + chunk(b"data", DATA), None, 2 * SIZE + 44),
        "{}/a.wav: more sound follows its first stretch; split the file, or convert it to one stretch",
    ),
    "an AIFF cut in the middle": (
        tail(AIFF, 0.7),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "a W64 cut in the middle": (
        tail(W64, 0.7),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "an AU cut in the middle": (
        tail(AU, 0.7),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "a CAF cut in the middle": (
        tail(CAF, 0.7),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "a FLAC cut in the middle": (
        tail(FLAC, 0.7),
        "{}/a.wav: cannot be decoded (...); give a whole wav, flac, ogg or mp3 file",
    ),
    "a FLAC of unknown length cut in the middle": (
        tail(flac_total(FLAC, 0), 0.7),
        "{}/a.wav: cannot be decoded (...); give a whole wav, flac, ogg or mp3 file",
    ),
    "a FLAC cut in the middle and filled with zeros": (
        tail(FLAC, 0.7) + bytes(30000),
        "{}/a.wav: cannot be decoded (...); give a whole wav, flac, ogg or mp3 file",
    ),
    "a FLAC with too large a count": (
        flac_total(FLAC, 10**9),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "an MP3 cut in the middle": (
        tail(MP3, 0.7),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "an MP3 with Fraunhofer's tag cut in the middle": (
        tail(VBRI, 0.7),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "an MP3 that claims thousands of hours": (
        mp3_count(MP3, 0xFFFFFFF0, 0xFFFFFFF0),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "Vorbis cut in the middle": (
        tail(VORBIS, 0.7),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "Opus cut in the middle": (
        tail(OPUS, 0.7),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "Vorbis that lacks a page": (
        VORBIS[: ogg_pages(VORBIS)[3][0]] + VORBIS[ogg_pages(VORBIS)[3][1] :],
        "{}/a.wav: pages are missing at byte 7612; copy or download the file again",
    ),
    "Vorbis with a wrong bit": (
        patched(VORBIS, len(VORBIS) // 2, bytes([VORBIS[len(VORBIS) // 2] ^ 0x55])),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "Ogg with something else in it": (
        VORBIS[: ogg_pages(VORBIS)[3][0]] + b"junk" + VORBIS[ogg_pages(VORBIS)[3][0] :],
        "{}/a.wav: damaged at byte 7612; copy or download the file again",
    ),
    "two rates one behind the other": (
        VORBIS + encoded(noise(rate=8000), "OGG", "VORBIS", 8000),
        "{}/a.wav: changes its sample rate or its channels on the way; convert it to wav with one of each",
    ),
    "two tracks side by side": (
        VORBIS[: ogg_pages(VORBIS)[0][1]] + OPUS[: ogg_pages(OPUS)[0][1]] + VORBIS[58:],
        "{}/a.wav: holds 2 tracks side by side; save the wanted one as wav or flac",
    ),
    "MP3 that changes its channels": (
        mp3_without_tag(encoded(noise(), "MP3")) + encoded(noise(channels=2), "MP3"),
        "{}/a.wav: changes its sample rate or its channels on the way; convert it to wav or flac with one of each",
    ),
    "a WAV without samples": (
        wav_sizes(WAV[:44], 0, 36),
        "{}/a.wav: no samples (zero length); leave the recording out or record it again",
    ),
    "a WAV without samples but with a chunk": (
        wav_sizes(WAV[:44] + LIST, 0, 36 + len(LIST)),
        "{}/a.wav: no samples (zero length); leave the recording out or record it again",
    ),
    "a WAV without a channel": (
        patched(WAV, 22, bytes(2)),
        "{}/a.wav: cannot be decoded (...); give a whole wav, flac, ogg or mp3 file",
    ),
    "a WAV of 0 Hz": (
        patched(WAV, 24, bytes(4)),
        "{}/a.wav: cannot be decoded (...); give a whole wav, flac, ogg or mp3 file",
    ),
    "a WAV of 4 GHz": (
        patched(WAV, 24, b"\xff" * 4),
        "{}/a.wav: cannot be decoded (...); give a whole wav, flac, ogg or mp3 file",
    ),
    "a WAV of 1 Hz": (
        patched(WAV, 24, b"\x01\0\0\0"),
        "{}/a.wav: a sample rate of 1 Hz is none of sound; convert the file again",
    ),
    "a VOC with two sounds": (
        encoded(noise(), "VOC", "PCM_U8")[:-1] + b"\x01\x04\0\0\x83\0\x80\x80\0",
        "{}/a.wav: cannot be decoded (...); give a whole wav, flac, ogg or mp3 file",
    ),
    "an SDS with too small a count": (
        patched(encoded(noise(), "SDS", "PCM_16"), 10, b"\x10\x01\0"),
        "{}/a.wav: holds more sound than its header says; convert it to wav",
    ),
    "a pointer of Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        "{}/a.wav: is a pointer of Git LFS, not the recording; fetch it with git lfs pull",
    ),
    "a web page": (
        b"<!DOCTYPE html><html><title>404</title></html>",
        "{}/a.wav: is a web page or XML, not a recording; download the recording itself",
    ),
    "a Mac's side file": (
        b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(100),
        "{}/a.wav: is a Mac's side file (AppleDouble), not the recording; read the file without ._",
    ),
    "an m4a": (
        b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00M4A mp42isom" + bytes(500),
        "{}/a.wav: is MPEG-4 (m4a, mp4), which cannot be decoded; convert it to wav or flac",
    ),
    "an MP3 with a hole in the middle": (
        patched(MP3, len(MP3) // 2, bytes(300)),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "an MP3 with noise in the middle": (
        patched(MP3, len(MP3) // 2, bytes(noise(0.2).astype(np.float16).tobytes())),
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
    "an AAC": (
        b"\xff\xf1\x50\x80" + bytes(500),
        "{}/a.wav: is AAC, which cannot be decoded; convert it to wav or flac",
    ),
    "a pointer of git-annex": (
        b"/annex/objects/SHA256E-s96044--00.wav\n",
        "{}/a.wav: is a pointer of git-annex, not the recording; fetch it with git annex get",
    ),
    "a Matroska": (
        b"\x1aE\xdf\xa3" + bytes(500),
        "{}/a.wav: is Matroska or WebM, which cannot be decoded; convert it to wav or flac",
    ),
    "one byte": (b"R", "{}/a.wav: is a text file that begins with 'R', not a recording; give an audio file"),
    "a bare magic": (
        b"OggS",
        "{}/a.wav: the audio ends before its header says it does; copy or download the file again",
    ),
}


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
