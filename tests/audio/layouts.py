# ruff: noqa: E501 (a row a line)
# fmt: off
"""Recordings whose headers lie or whose sound is damaged, as bytes."""

import struct

import numpy as np

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
    "chunks before the samples": (WAV, RIFF + chunk(b"JUNK", bytes(27)) + FMT + LIST + chunk(b"data", DATA), 3.0, False),
    "samples before their description": (WAV, RIFF + chunk(b"data", DATA) + FMT, 3.0, False),
    "an odd chunk without its padding": (WAV, RIFF + FMT + b"note\x03\0\0\0abc" + chunk(b"data", DATA), 3.0, False),
    "two odd chunks without their padding": (WAV, RIFF + b"note\x03\0\0\0abc" + FMT + b"note\x01\0\0\0a" + chunk(b"data", DATA), 3.0, False),
    "an unfinished header and chunks before": (WAV, RIFF + LIST + FMT + b"data" + bytes(4) + DATA, 3.0, True),
    "an ID3 tag at the end": (WAV, WAV + b"TAG" + bytes(125), 3.0, False),
    "zeros at the end": (WAV, WAV + bytes(1000), 3.0, False),
    "half a sample at the end": (WAV, wav_sizes(WAV + b"\x01", SIZE + 1), 3.0, False),
    "BW64": (WAV, b"BW64" + WAV[4:], 3.0, False),
    "RF64 with an unfinished ds64": (WAV, b"RF64" + b"\xff" * 4 + b"WAVE" + chunk(b"ds64", bytes(28)) + FMT + b"data" + b"\xff" * 4 + DATA, 3.0, True),
    "an unfinished RIFX": (encoded(noise(), "WAV", "PCM_16", endian="BIG"), patched(encoded(noise(), "WAV", "PCM_16", endian="BIG"), 40, bytes(4)), 3.0, True),
    "MP3 in a WAV": (mp3_without_tag(MP3), wrapped(0x55, mp3_without_tag(MP3)), 3.0, False),
    "an unfinished AIFF": (AIFF, patched(patched(AIFF, SSND + 4, bytes(4)), COMM + 10, bytes(4)), 3.0, True),
    "an AIFF with too few frames": (AIFF, patched(AIFF, COMM + 10, struct.pack(">I", 1000)), 3.0, True),
    "an AIFF finished too early": (AIFF, patched(AIFF, SSND + 4, struct.pack(">I", 9000)), 3.0, True),
    "AIFF samples before their description": (AIFF, AIFF[:12] + AIFF[SSND:] + AIFF[COMM : COMM + 26], 3.0, False),
    "an AIFF of GSM with too few frames": (AIFF_GSM, patched(AIFF_GSM, AIFF_GSM.index(b"COMM") + 10, struct.pack(">I", 1000)), 3.0, True),
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
    "FLAC of unknown length with two tags and zeros": (FLAC, flac_total(FLAC, 0) + APE + b"TAG" + bytes(9000), 3.0, False),
    "FLAC before zeros": (FLAC, FLAC + bytes(5000), 3.0, False),
    "FLAC with a tag in front": (FLAC, ID3 + FLAC, 3.0, False),
    "FLAC with too small a count": (FLAC, flac_total(FLAC, 1000), 3.0, True),
    "variable MP3 without its tag": (MP3, mp3_without_tag(MP3), 3.0, False),
    "MP3 with too small a count": (MP3, mp3_count(MP3, 40), 3.0, True),
    "MP3 with a count of one": (MP3, mp3_count(MP3, 1), 3.0, True),
    "MP3 that claims thousands of hours, but its own size": (MP3, mp3_count(MP3, 0xFFFFFFF0), 3.0, True),
    "MP3 with tags at both ends": (MP3, ID3 + MP3 + b"TAG" + bytes(125), 3.0, False),
    "MP3 with a tag in the middle": (MP3, MP3 + ID3 + mp3_without_tag(MP3), 6.0, True),
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

CUT = "the audio ends before its header says it does; copy or download the file again"
MORE = "more sound follows its first stretch; split the file, or convert it to one stretch"
BROKEN = "cannot be decoded (...); give a whole wav, flac, ogg or mp3 file"
EMPTY = "no samples (zero length); leave the recording out or record it again"
# What is cut, or no sound -> the bytes, and what the user reads behind the name of the file (tests/test_bad_inputs.py).
DAMAGED = {
    "a WAV cut in the middle": (tail(WAV, 0.7), CUT),
    "a WAV that lacks 45 bytes": (WAV[:-45], CUT),
    "an RF64 cut in the middle": (tail(encoded(noise(), "RF64"), 0.7), CUT),
    "a WAV cut in the middle behind a tag": (ID3 + tail(WAV, 0.7), CUT),
    "two WAV one behind the other": (WAV + WAV, MORE),
    "two W64 one behind the other": (W64 + W64, MORE),
    "two AU one behind the other": (AU + AU, MORE),
    "two CAF one behind the other": (CAF + CAF, MORE),
    "two FLAC one behind the other": (FLAC + FLAC, BROKEN),
    "a WAV with two stretches of samples": (wav_sizes(WAV + chunk(b"data", DATA), None, 2 * SIZE + 44), MORE),
    "an AIFF cut in the middle": (tail(AIFF, 0.7), CUT),
    "a W64 cut in the middle": (tail(W64, 0.7), CUT),
    "an AU cut in the middle": (tail(AU, 0.7), CUT),
    "a CAF cut in the middle": (tail(CAF, 0.7), CUT),
    "a FLAC cut in the middle": (tail(FLAC, 0.7), BROKEN),
    "a FLAC of unknown length cut in the middle": (tail(flac_total(FLAC, 0), 0.7), BROKEN),
    "a FLAC cut in the middle and filled with zeros": (tail(FLAC, 0.7) + bytes(30000), BROKEN),
    "a FLAC with too large a count": (flac_total(FLAC, 10**9), CUT),
    "an MP3 cut in the middle": (tail(MP3, 0.7), CUT),
    "an MP3 with Fraunhofer's tag cut in the middle": (tail(VBRI, 0.7), CUT),
    "an MP3 that claims thousands of hours": (mp3_count(MP3, 0xFFFFFFF0, 0xFFFFFFF0), CUT),
    "Vorbis cut in the middle": (tail(VORBIS, 0.7), CUT),
    "Opus cut in the middle": (tail(OPUS, 0.7), CUT),
    "Vorbis that lacks a page": (VORBIS[: ogg_pages(VORBIS)[3][0]] + VORBIS[ogg_pages(VORBIS)[3][1] :], "pages are missing at byte 7612; copy or download the file again"),
    "Vorbis with a wrong bit": (patched(VORBIS, len(VORBIS) // 2, bytes([VORBIS[len(VORBIS) // 2] ^ 0x55])), CUT),
    "Ogg with something else in it": (VORBIS[: ogg_pages(VORBIS)[3][0]] + b"junk" + VORBIS[ogg_pages(VORBIS)[3][0] :], "damaged at byte 7612; copy or download the file again"),
    "two rates one behind the other": (VORBIS + encoded(noise(rate=8000), "OGG", "VORBIS", 8000), "changes its sample rate or its channels on the way; convert it to wav with one of each"),
    "two tracks side by side": (VORBIS[: ogg_pages(VORBIS)[0][1]] + OPUS[: ogg_pages(OPUS)[0][1]] + VORBIS[58:], "holds 2 tracks side by side; save the wanted one as wav or flac"),
    "MP3 that changes its channels": (mp3_without_tag(encoded(noise(), "MP3")) + encoded(noise(channels=2), "MP3"), "changes its sample rate or its channels on the way; convert it to wav or flac with one of each"),
    "a WAV without samples": (wav_sizes(WAV[:44], 0, 36), EMPTY),
    "a WAV without samples but with a chunk": (wav_sizes(WAV[:44] + LIST, 0, 36 + len(LIST)), EMPTY),
    "a WAV without a channel": (patched(WAV, 22, bytes(2)), BROKEN),
    "a WAV of 0 Hz": (patched(WAV, 24, bytes(4)), BROKEN),
    "a WAV of 4 GHz": (patched(WAV, 24, b"\xff" * 4), BROKEN),
    "a WAV of 1 Hz": (patched(WAV, 24, b"\x01\0\0\0"), "a sample rate of 1 Hz is none of sound; convert the file again"),
    "a VOC with two sounds": (encoded(noise(), "VOC", "PCM_U8")[:-1] + b"\x01\x04\0\0\x83\0\x80\x80\0", BROKEN),
    "an SDS with too small a count": (patched(encoded(noise(), "SDS", "PCM_16"), 10, b"\x10\x01\0"), "holds more sound than its header says; convert it to wav"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n", "is a pointer of Git LFS, not a recording; fetch the file itself with git lfs pull"),
    "a web page": (b"<!DOCTYPE html><html><title>404</title></html>", "is a web page or XML, not a recording; download the recording itself"),
    "a Mac's side file": (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(100), "is a Mac's side file (AppleDouble), not a recording; read the file without ._"),
    "an m4a": (b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00M4A mp42isom" + bytes(500), "is MPEG-4 (m4a, mp4), which cannot be decoded; convert it to wav or flac"),
    "an MP3 with a hole in the middle": (patched(MP3, len(MP3) // 2, bytes(300)), CUT),
    "an MP3 with noise in the middle": (patched(MP3, len(MP3) // 2, bytes(noise(0.2).astype(np.float16).tobytes())), CUT),
    "an AAC": (b"\xff\xf1\x50\x80" + bytes(500), "is AAC, which cannot be decoded; convert it to wav or flac"),
    "a pointer of git-annex": (b"/annex/objects/SHA256E-s96044--00.wav\n", "is a pointer of git-annex, not a recording; fetch the file itself with git annex get"),
    "a Matroska": (b"\x1aE\xdf\xa3" + bytes(500), "is Matroska or WebM, which cannot be decoded; convert it to wav or flac"),
    "one byte": (b"R", "is a text file that begins with 'R', not a recording; give an audio file"),
    "a bare magic": (b"OggS", CUT),
}
