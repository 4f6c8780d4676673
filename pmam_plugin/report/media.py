"""Sound and images as text: what a page needs to play and show a recording without fetching anything.

Everything in a report is mono at 16 kHz: enough to judge an event by ear, at 5 KB per second.
"""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import soundfile

from pmam_plugin.audio import audio_blocks, audio_info, to_mono_resampled

AudioSource = str | os.PathLike[str] | tuple[np.ndarray, int]
"""A file, or samples with their rate in Hz."""

SAMPLE_RATE = 16_000
"""Of all sound and spectrograms in reports, in Hz."""

# libsndfile maps 0..1 to 160..8 kbit/s here: 40 kbit/s. Below that a frame cannot hold the tag that tells players how
# much silence the encoder has put in front, and sound would lag 69 ms behind the spectrogram.
_MP3_COMPRESSION = 0.8


class AudioEncoder:
    """Compress mono sound block by block: MP3, which every browser plays and seeks in, or wav without an MP3 encoder.

    The bit rate is constant, so that a browser finds any moment of a long file by arithmetic.
    """

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        compressed = "MP3" in soundfile.available_formats()
        self.mime = "audio/mpeg" if compressed else "audio/wav"
        options: dict[str, Any] = (
            {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": _MP3_COMPRESSION}
            if compressed
            else {"format": "WAV", "subtype": "PCM_16"}
        )
        self._file = soundfile.SoundFile(self._buffer, "w", SAMPLE_RATE, 1, **options)

    def write(self, samples: np.ndarray) -> None:
        """Append float32 ``(samples,)`` at 16 kHz; values beyond full scale 1 are clipped."""
        self._file.write(np.clip(samples, -1.0, 1.0))

    def finish(self) -> dict[str, str]:
        """``{"mime": ..., "base64": ...}`` of everything written."""
        self._file.close()
        return {"mime": self.mime, "base64": base64.b64encode(self._buffer.getbuffer()).decode("ascii")}


def encode_audio(samples: np.ndarray) -> dict[str, str]:
    """Compress one piece of mono sound at 16 kHz, float32 ``(samples,)``; see :meth:`AudioEncoder.finish`."""
    encoder = AudioEncoder()
    encoder.write(samples)
    return encoder.finish()


def mono_blocks(source: AudioSource) -> Iterator[np.ndarray]:
    """Blocks ``(samples,)`` of 30 s, 16 kHz mono float32, so that an hour needs no more memory than a minute.

    Raises:
        InputError: see :func:`~pmam_plugin.audio.audio_blocks`.
    """
    if isinstance(source, tuple):
        yield to_mono_resampled(source[0], source[1], SAMPLE_RATE).numpy()
    else:
        for block in audio_blocks(source, SAMPLE_RATE, notes=lambda _: None):  # detection has told them
            yield block.numpy()


def duration_of(source: AudioSource) -> float:
    """Length in seconds of a file or of samples with their rate.

    Raises:
        InputError: the file is missing or no audio.
    """
    if isinstance(source, tuple):
        return max(np.shape(source[0])) / source[1]
    return audio_info(source).duration


def png(gray: np.ndarray) -> str:
    """A grayscale image, uint8 ``(rows, columns)`` with the first row on top, as base64 PNG."""
    height, width = gray.shape
    # Differences along time (PNG's filter 1) leave small numbers where a spectrogram changes slowly.
    rows = np.ones((height, width + 1), dtype=np.uint8)
    rows[:, 1] = gray[:, 0]
    rows[:, 2:] = gray[:, 1:] - gray[:, :-1]
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    )
    data = b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(name, body) for name, body in chunks)
    return base64.b64encode(data).decode("ascii")


def bytes_of(values: Iterable[float] | np.ndarray) -> str:
    """Values in [0, 1] as base64 bytes, rounded to 1/255; NaN becomes 0."""
    array = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0)
    return base64.b64encode(np.rint(np.clip(array, 0.0, 1.0) * 255).astype(np.uint8).tobytes()).decode("ascii")


def relative_link(source: str | os.PathLike[str], page: str | os.PathLike[str]) -> str:
    """Link from a page to a file on the same disk, relative where that is possible."""
    target, folder = Path(source).resolve(), Path(page).resolve().parent
    try:
        path = Path(os.path.relpath(target, folder)).as_posix()
    except ValueError:  # another drive
        return target.as_uri()
    return quote(os.fsencode(path))


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
