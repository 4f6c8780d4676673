"""FLAC: how many samples a file really has, from the last of its frames (RFC 9639, section 9.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import BinaryIO

import numpy as np

from pmam_plugin.audio.layout import Layout, bytes_at

# Bytes: of nearly all frames, and of any.
_LONGEST_FRAMES = (1 << 14, 1 << 18)
_BLOCK_SIZES = (0, 192, 576, 1152, 2304, 4608, 0, 0, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


def flac_layout(file: BinaryIO, size: int, name: str) -> Layout:
    """FLAC read until its end: with a count in its header the decoder would stop there, and without one the file may
    not end in a tag.

    Args:
        file: the file.
        size: bytes of the file.
        name: what messages call it.
    """
    facts = int.from_bytes(bytes_at(file, 18, 8), "big")
    promised = facts & 0xFFFFFFFFF
    usual_block = int.from_bytes(bytes_at(file, 8, 2), "big")
    end, present = size, 0
    for longest, place in product(_LONGEST_FRAMES, list(_ends(file, size))):
        start = max(0, place - longest)
        if present := _frames_until(bytes_at(file, start, place - start), usual_block):
            end = place
            break
    notes: tuple[str, ...] = ()
    if 0 < promised < present:
        notes = (f"{name}: its header counts {promised} samples and {present} are there; all of them are read",)
    uncounted = (facts >> 36 << 36).to_bytes(8, "big")
    return Layout((((0, 18), uncounted, (26, end)),), max(promised, present), notes=notes)


def _ends(file: BinaryIO, size: int) -> Iterator[int]:
    """Where the last frame may end: at the file's end, or before zeros and tags there."""
    end = size
    while end > 0:
        zeros = end
        while zeros > 0 and not any(block := bytes_at(file, max(0, zeros - 4096), min(zeros, 4096))):
            zeros -= len(block)
        zeros -= len(block) - len(block.rstrip(b"\0")) if zeros > 0 else 0
        # A checksum may end in zeros, and stays the same with more or fewer of them behind it: so few are its own.
        places = range(zeros, min(zeros + 3, end + 1))
        yield from reversed(places) if end - zeros < 3 else places
        start = max(0, zeros - 128)
        tags = [
            *re.finditer(rb"(?<!APE)TAG|APETAGEX.{4}(.{4})", bytes_at(file, start, min(end - start, 160)), re.DOTALL)
        ]
        if not tags:
            return
        end = start + tags[-1].start()
        if tags[-1][1]:  # a footer, which counts itself and what it closes but not the header in front
            end += 32 - int.from_bytes(tags[-1][1], "little")
            end -= 32 if bytes_at(file, max(0, end - 32), 8) == b"APETAGEX" else 0


def _frames_until(tail: bytes, usual_block: int) -> int:
    """Samples per channel of a stream by its last frame, which ends ``tail``; 0 if there is none."""
    if not tail:
        return 0
    backwards = np.frombuffer(tail, dtype=np.uint8)[::-1]
    # The remainder of every stretch until the end: bits weigh powers of x, of which 32767 differ.
    places = np.arange(8 * len(backwards)).reshape(-1, 8) % len(_powers())
    bits = np.unpackbits(backwards, bitorder="little").reshape(-1, 8).astype(bool)
    weights = np.where(bits, _powers()[places], 0)
    remainders = np.bitwise_xor.accumulate(np.bitwise_xor.reduce(weights, axis=1))
    starts = (backwards[1:] == 0xFF) & (backwards[:-1] & 0xFE == 0xF8) & (remainders[1:] == 0)
    found = np.flatnonzero(starts)
    return _frames_after(tail[len(tail) - 2 - int(found[0]) :], usual_block) if len(found) else 0


@lru_cache
def _powers() -> np.ndarray:
    """x^0, x^1, ... modulo FLAC's polynomial of frames, x^16 + x^15 + x^2 + 1."""
    values = [1]
    for _ in range(32766):
        value = values[-1] << 1
        values.append(value ^ 0x18005 if value >> 16 else value)
    return np.array(values, dtype=np.uint16)


def _frames_after(frame: bytes, usual_block: int) -> int:
    """Samples per channel of a stream after this frame."""
    leading = f"{frame[4]:08b}".index("0")
    number, place = frame[4] & 0x7F >> leading, 5
    for byte in frame[5 : 4 + max(1, leading)]:
        number, place = number << 6 | byte & 0x3F, place + 1
    code = frame[2] >> 4
    block = _BLOCK_SIZES[code]
    if code in (6, 7):
        block = int.from_bytes(frame[place : place + code - 5], "big") + 1
    return (number if frame[1] & 1 else number * usual_block) + block
