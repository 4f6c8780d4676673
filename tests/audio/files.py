"""Recordings made in memory, and the ways in which real ones are damaged."""

from __future__ import annotations

import io
import struct

import numpy as np
import soundfile
import torch

from pmam_plugin.audio import read_audio

RATE = 16000


def noise(seconds: float = 3.0, channels: int = 1, rate: int = RATE) -> np.ndarray:
    shape = (round(seconds * rate), channels) if channels > 1 else round(seconds * rate)
    return (0.2 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def encoded(samples: np.ndarray, kind: str, subtype: str | None = None, rate: int = RATE, **options) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype, **options)
    return buffer.getvalue()


def patched(content: bytes, position: int, new: bytes) -> bytes:
    return content[:position] + new + content[position + len(new) :]


def wav_sizes(content: bytes, data: int | None = None, riff: int | None = None) -> bytes:
    """A WAV whose header promises other sizes."""
    place = content.index(b"data") + 4
    content = content if data is None else patched(content, place, struct.pack("<I", data % (1 << 32)))
    return content if riff is None else patched(content, 4, struct.pack("<I", riff % (1 << 32)))


def chunk(name: bytes, body: bytes, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(body)) + body + bytes(len(body) % 2)


def flac_total(content: bytes, total: int) -> bytes:
    facts = int.from_bytes(content[18:26], "big") >> 36 << 36 | total
    return patched(content, 18, facts.to_bytes(8, "big"))


def ogg_pages(content: bytes) -> list[tuple[int, int]]:
    """First byte and the one after the last of every page."""
    pages, position = [], 0
    while position < len(content):
        segments = content[position + 26]
        end = position + 27 + segments + sum(content[position + 27 : position + 27 + segments])
        pages.append((position, end))
        position = end
    return pages


def ogg_page(content: bytes, number: int, flags: int | None = None, granule: int | None = None) -> bytes:
    """A page with other flags or another position, and a checksum that fits."""
    start, end = ogg_pages(content)[number]
    page = bytearray(content[start:end])
    page[5] = page[5] if flags is None else flags
    if granule is not None:
        page[6:14] = struct.pack("<q", granule)
    page[22:26] = bytes(4)
    value = 0
    for byte in page:  # bit by bit: independent of the table that the reader uses
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    page[22:26] = struct.pack("<I", value)
    return content[:start] + bytes(page) + content[end:]


def mp3_without_tag(content: bytes) -> bytes:
    """An MP3 without the first frame, which counts the others."""
    start = content.index(b"\xff\xf3")
    tag = next((name for name in (b"Xing", b"Info") if name in content[: start + 200]), None)
    assert tag is not None
    return content[content.index(b"\xff\xf3", content.index(tag)) :]


def mp3_count(content: bytes, frames: int, stream_bytes: int | None = None) -> bytes:
    place = next(content.index(name) for name in (b"Xing", b"Info") if name in content[:200])
    content = patched(content, place + 8, struct.pack(">I", frames))
    return content if stream_bytes is None else patched(content, place + 12, struct.pack(">I", stream_bytes))


def fraunhofer_tag(content: bytes) -> bytes:
    """An MP3 with Fraunhofer's tag in the place of Xing's."""
    start, stream = content.index(b"\xff\xf3"), mp3_without_tag(content)
    frames = struct.unpack(">I", content[(place := content.index(b"Xing") + 8) : place + 4])[0]
    tag = content[start : start + 4].ljust(36, b"\0") + struct.pack(">4sHHHII", b"VBRI", 1, 0, 0, len(stream), frames)
    return tag.ljust(len(content) - start - len(stream), b"\0") + stream


def heard(path) -> tuple[torch.Tensor, list[str]]:
    """Samples and what was said, from the one reader."""
    said: list[str] = []
    wave = read_audio(path, RATE, notes=said.append)
    return wave, said
