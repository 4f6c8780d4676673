"""What a file is that cannot be decoded: other codecs, archives, pages, pointers; each with its cure."""

from __future__ import annotations

import codecs
from typing import BinaryIO

from pmam_plugin.audio.layout import bytes_at
from pmam_plugin.files import RECORDINGS, other_kind

_CONVERT = "which cannot be decoded; convert it to wav or flac"

# First bytes -> what it is that holds sound, or notes.
_BEGINNINGS = (
    (b"\x1aE\xdf\xa3", f"Matroska or WebM, {_CONVERT}"),
    (b"0&\xb2u", f"Windows Media, {_CONVERT}"),
    (b"#!AMR", f"AMR, {_CONVERT}"),
    (b"wvpk", f"WavPack, {_CONVERT}"),
    (b"\xff\xf1", f"AAC, {_CONVERT}"),
    (b"\xff\xf9", f"AAC, {_CONVERT}"),
    (b"MAC ", f"Monkey's Audio, {_CONVERT}"),
    (b"TTA1", f"True Audio, {_CONVERT}"),
    (b"\x0b\x77", f"Dolby Digital (AC-3), {_CONVERT}"),
    (b"\x7f\xfe\x80\x01", f"DTS, {_CONVERT}"),
    (b".RMF", f"RealMedia, {_CONVERT}"),
    (b".ra\xfd", f"RealAudio, {_CONVERT}"),
    (b"FLV\x01", f"Flash video, {_CONVERT}"),
    (b"\x00\x00\x01\xba", f"MPEG video, {_CONVERT}"),
    (b"DSD ", f"DSD, {_CONVERT}"),
    (b"FRM8", f"DSD, {_CONVERT}"),
    (b"\x02dss", f"DSS of a dictating machine, {_CONVERT}"),
    (b"\x03dss", f"DSS of a dictating machine, {_CONVERT}"),
    (b"\x03ds2", f"DS2 of a dictating machine, {_CONVERT}"),
    (b"tBaK", f"TAK, {_CONVERT}"),
    (b"ajkg", f"Shorten, {_CONVERT}"),
    (b"OFR ", f"OptimFROG, {_CONVERT}"),
    (b"MPCK", f"Musepack, {_CONVERT}"),
    (b"MP+", f"Musepack, {_CONVERT}"),
    (b"MThd", "MIDI, which holds notes and no sound; render it to wav or flac"),
)
_CODECS = {
    0x20: "Yamaha ADPCM",
    0x28F: "G.722",
    0x45: "G.726",
    0x64: "G.726",
    0x65: "G.722",
    0xFF: "AAC",
    0x160: "Windows Media",
    0x161: "Windows Media",
    0x162: "Windows Media",
    0x2000: "AC-3",
    0x2001: "DTS",
    0x566F: "Vorbis",
    0xF1AC: "FLAC",
}
_OGG_CODECS = ((b"\x7fFLAC", "FLAC"), (b"Speex", "Speex"), (b"\x80theora", "video"), (b"BBCD", "video"))


def known_as(file: BinaryIO) -> str | None:
    """What a file that is no sound for this reader calls itself in its first bytes, and the cure; None for others."""
    head = bytes_at(file, 0, 192)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return f"MPEG-4 (m4a, mp4), {_CONVERT}"
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"QLCM"):
        return f"{'AVI video' if head[8:12] == b'AVI ' else 'QCP of a telephone'}, {_CONVERT}"
    if head[:1] == b"\x47" and head[188:189] == b"\x47":
        return f"MPEG video, {_CONVERT}"
    if head.startswith(tuple(RECORDINGS)):
        return None
    foreign = next((what for start, what in _BEGINNINGS if head.startswith(start)), None)
    return foreign or other_kind(head, "a recording", "give an audio file")


def appears_as(file: BinaryIO, size: int) -> str | None:
    """What a file seems to be that no decoder took, and the cure; None if it cannot be told."""
    head = bytes_at(file, 0, 512)
    if head[:4] == b"RIFF" and head[8:16] == b"WAVEfmt ":
        codec = int.from_bytes(head[20:22], "little")
        return f"WAV with {_CODECS[codec]} in it, {_CONVERT}" if codec in _CODECS else None
    if head.startswith(b"OggS"):
        inside = next((name for mark, name in _OGG_CODECS if mark in head[:64]), None)
        return f"Ogg with {inside} in it, {_CONVERT}" if inside else None
    if not any(head) and not any(bytes_at(file, max(0, size - 512), 512)):
        return "nothing but zeros; copy or download it again"
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=len(head) < 512).strip()
    except UnicodeDecodeError:
        return None
    if text.startswith("<"):
        return "a web page or XML, not a recording; download the recording itself"
    if text and all(character.isprintable() or character.isspace() for character in text):
        return f"a text file that begins with {' '.join(text.split())[:40]!r}, not a recording; give an audio file"
    return None
