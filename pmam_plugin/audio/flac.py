"""FLAC: how many samples a file really has, from the last of its frames (RFC 9639, section 9.1)."""

from __future__ import annotations

from typing import BinaryIO

from pmam_plugin.audio.layout import Layout, bytes_at, checksum

_LONGEST_FRAME = 1 << 18
_BLOCK_SIZES = (0, 192, 576, 1152, 2304, 4608, 0, 0, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


def flac_layout(file: BinaryIO, size: int, name: str) -> Layout:
    """FLAC read until its end: with a count in its header the decoder would stop there, and without one the file may
    not end in a tag.

    Args:
        file: the file.
        size: bytes of the file.
        name: what messages call it.
    """
    end = size - 128 if size > 128 and bytes_at(file, size - 128, 3) == b"TAG" else size
    facts = int.from_bytes(bytes_at(file, 18, 8), "big")
    promised = facts & 0xFFFFFFFFF
    usual_block = int.from_bytes(bytes_at(file, 8, 2), "big")
    present = _frames_until(bytes_at(file, max(0, end - _LONGEST_FRAME), _LONGEST_FRAME)[:end], usual_block)
    notes: tuple[str, ...] = ()
    if 0 < promised < present:
        notes = (f"{name}: its header counts {promised} samples and {present} are there; all of them are read",)
    uncounted = (facts >> 36 << 36).to_bytes(8, "big")
    return Layout((((0, 18), uncounted, (26, end)),), max(promised, present), notes=notes)


def _frames_until(tail: bytes, usual_block: int) -> int:
    """Samples per channel of a stream by its last frame, which ends ``tail``; 0 if there is none."""
    position = len(tail)
    while (position := tail.rfind(b"\xff", 0, position)) >= 0:
        if tail[position + 1 : position + 2] in (b"\xf8", b"\xf9") and checksum(tail[position:], 0x8005, 16) == 0:
            return _frames_after(tail[position:], usual_block)
    return 0


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
