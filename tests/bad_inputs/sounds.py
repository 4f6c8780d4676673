# ruff: noqa: E501 (a row a line, sentences as the user reads them)
# fmt: off
"""Recordings that are refused: reader, file, content, sentence."""

import os
from pathlib import Path

import numpy as np

from tests.audio.files import encoded, flac_total, noise
from tests.audio.layouts import DAMAGED

SOUND = noise(2.0)


def with_value(value):
    """A recording with one sample of that value."""
    return encoded(np.where(np.arange(len(SOUND)) == 100, value, SOUND).astype(np.float32), "WAV", "FLOAT")


SOUNDS = [
    ("sound", "b.wav", Path.mkdir, "{}/b.wav: is a folder; name an audio file inside it"),
    ("sound", "c.wav", os.mkfifo, "{}/c.wav: is no regular file; save the audio to a file first"),
    ("sound", "d.wav", lambda path: path.symlink_to(path), "{}/d.wav: cannot be opened (...); check the path and its permissions"),
    ("sound", "e.wav", lambda path: path.symlink_to("nowhere"), "{}/e.wav: no such file; check the path or restore the recording"),
    ("sound", "a.wav", None, "{}/a.wav: no such file; check the path or restore the recording"),
    ("sound", "a.wav", b"", "{}/a.wav: the file is empty (0 bytes); copy or download it again"),
    ("sound", "a.wav", b"filename\tonset\toffset\tevent_label\n" * 50, "{}/a.wav: is a text file that begins with 'filename onset offset event_label filena', not a recording; give an audio file"),
    ("sound", "a.mp3", np.random.default_rng(0).bytes(5000), "{}/a.mp3: cannot be decoded (no format that is known); give a whole wav, flac, ogg or mp3 file"),
    ("sound", "a.raw", bytes(200), "{}/a.raw: is nothing but zeros; copy or download it again"),
    ("sound", "a.m4a", b"\0\0\0\x20ftypM4A " + bytes(100), "{}/a.m4a: is MPEG-4 (m4a, mp4), which cannot be decoded; convert it to wav or flac"),
    ("sound", "a.mov", b"\0\0\0\x08wide\0\0\0\x10mdat" + bytes(100), "{}/a.mov: is MPEG-4 (m4a, mp4), which cannot be decoded; convert it to wav or flac"),
    ("sound", "a.qcp", b"RIFF\0\0\0\0QLCMfmt " + bytes(100), "{}/a.qcp: is QCP of a telephone, which cannot be decoded; convert it to wav or flac"),
    ("sound", "a.ds2", b"\x03ds2" + bytes(600), "{}/a.ds2: is DS2 of a dictating machine, which cannot be decoded; convert it to wav or flac"),
    ("sound", "a.aup3", b"SQLite format 3\0" + bytes(600), "{}/a.aup3: is a database, such as a project of Audacity, not a recording; export what it holds from there"),
    ("sound", "a.wav", encoded(SOUND, "WAV")[:30000], "{}/a.wav: the audio ends before its header says it does; copy or download the file again"),
    ("sound", "a.ogg", encoded(SOUND, "OGG", "VORBIS")[:9000], "{}/a.ogg: the audio ends before its header says it does; copy or download the file again"),
    ("sound", "a.aiff", encoded(SOUND, "AIFF")[:30000], "{}/a.aiff: the audio ends before its header says it does; copy or download the file again"),
    ("sound", "a.w64", encoded(SOUND, "W64")[:30000], "{}/a.w64: the audio ends before its header says it does; copy or download the file again"),
    ("sound", "a.flac", flac_total(encoded(SOUND, "FLAC"), 40000), "{}/a.flac: the audio ends before its header says it does; copy or download the file again"),
    ("sound", "a.wav", with_value(np.nan), "{}/a.wav: NaN or infinite samples; repair the recording or leave it out"),
    ("sound", "a.wav", with_value(-np.inf), "{}/a.wav: NaN or infinite samples; repair the recording or leave it out"),
    ("sound", "a.wav", with_value(1e30), "{}/a.wav: samples up to 1e+30, where full scale is 1; scale the recording down"),
]
SOUNDS += [("sound", "a.wav", content, "{}/a.wav: " + sentence) for content, sentence in DAMAGED.values()]
