"""MPEG audio (MP3, MP2): how many frames a stream really has.

The stream is a row of frames, each with its own length; a first frame without sound (Xing's, Info's) may say how many
follow. Decoders believe it, or estimate from the file's size where there is none, which fails for variable bit rates.
ISO 11172-3, section 2.4.2.3; the tag as LAME writes it.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from pmam_plugin.audio.layout import Layout, Part, bytes_at, cut_short
from pmam_plugin.errors import InputError

# kbit/s by version 1 and layer, and by version 2 (and 2.5) and layer.
_BITRATES = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)
_SEARCHED = 1 << 17
_ROW = 30  # so many frames one behind the other are no accident
_PADDING = 1 << 12
_DECODER_DELAY = 529
_DECODER_SAMPLES = 2 * 1152 + 1105  # held back by decoders and cut off at the ends


class _Header(NamedTuple):
    """A frame's header: the kind must not change within a stream."""

    kind: tuple[int, int, int, bool]  # version, layer, rate, mono
    length: int
    samples: int

    @property
    def side_bytes(self) -> int:
        """Of the side information, which lies between header and tag."""
        version, _, _, mono = self.kind
        return (17 if mono else 32) if version == 1 else (9 if mono else 17)


@dataclass
class _Scan:
    """What lies in a stretch of a file."""

    start: int = 0
    end: int = 0
    frames: int = 0
    skipped: int = 0
    before: int = 0
    zeros: int = 0
    broken_end: bool = False
    header: _Header | None = None
    first: bytes = b""
    kinds: Counter[tuple[int, int, int, bool]] = field(default_factory=Counter)


@lru_cache(4096)
def _parse(head: bytes) -> _Header | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version = {0: 2.5, 2: 2, 3: 1}.get(head[1] >> 3 & 3)
    layer = {1: 3, 2: 2, 3: 1}.get(head[1] >> 1 & 3)
    rate_index, bitrate_index = head[2] >> 2 & 3, head[2] >> 4
    if version is None or layer is None or rate_index == 3 or bitrate_index in (0, 15):
        return None
    generation = 1 if version == 1 else 2
    bits = 1000 * _BITRATES[generation, layer][bitrate_index]
    rate = _RATES[rate_index] // {1: 1, 2: 2, 2.5: 4}[version]
    padding = head[2] >> 1 & 1
    samples = 384 if layer == 1 else 576 if layer == 3 and generation == 2 else 1152
    length = (12 * bits // rate + padding) * 4 if layer == 1 else samples // 8 * bits // rate + padding
    return _Header((generation, layer, rate, head[3] >> 6 == 3), length, samples)


def is_mpeg(file: BinaryIO, start: int, end: int) -> bool:
    """Whether a stream of at least two frames begins soon after ``start``."""
    return next(_synchronised(file, start, min(end, start + _SEARCHED), end), None) is not None


def mpeg_layout(file: BinaryIO, start: int, end: int, name: str) -> Layout:
    """The frames of a stretch of a file.

    Raises:
        InputError: the stream breaks off, or changes its sample rate or channels.
    """
    scan = _scan(file, start, end)
    if scan.header is None:
        return Layout((((start, end),),))
    if len(scan.kinds) > 1:
        raise InputError(
            f"{name}: changes its sample rate or its channels on the way; convert it to wav or flac with one of each"
        )
    samples, layer = scan.header.samples, scan.header.kind[1]
    notes = [
        f"{name}: {count} bytes {where} are no sound; left out"
        for count, where in ((scan.before, "before its first frame"), (scan.skipped, "between its frames"))
        if count
    ]
    if (counted := _vbri_count(file, scan)) is not None:
        if scan.frames < counted:  # the first one is no sound
            raise cut_short(name)
        scan.start, scan.frames, scan.broken_end = scan.start + scan.header.length, scan.frames - 1, False
    tag = None if counted is not None else _tag(file, scan)
    if tag is None:
        if scan.broken_end:
            notes.append(f"{name}: ends inside a frame and may have been cut short; all that is there is read")
        if counted is None and scan.zeros > _PADDING:
            notes.append(
                f"{name}: its last {scan.zeros} bytes are zeros; copy or download it again if it broke off there"
            )
        head: tuple[Part, ...] = (_counting_frame(scan),) if layer == 3 else ()
        frames = scan.frames * samples - (_DECODER_DELAY if layer == 3 else 0)
        return Layout(((*head, (scan.start, scan.end)),), frames, _DECODER_SAMPLES, tuple(notes))
    position, counted, stream_bytes, trimmed = tag
    present = scan.frames - 1
    if counted is None:  # a tag that does not say
        return Layout((((scan.start, scan.end),),), 0, 0, tuple(notes))
    whole = stream_bytes and stream_bytes <= scan.end - scan.start + 4 and not scan.skipped
    if present < counted and not whole:
        raise cut_short(name)
    if present != counted:
        notes.append(f"{name}: its header counts {counted} frames and {present} are there; all of them are read")
    frames = max(0, present * samples - trimmed)
    parts: tuple[Part, ...] = ((scan.start, scan.end),)
    if present != counted:
        parts = ((scan.start, position), struct.pack(">I", present), (position + 4, scan.end))
    return Layout((parts,), frames, _DECODER_SAMPLES, tuple(notes))


def _scan(file: BinaryIO, start: int, end: int) -> _Scan:
    scan, position = _Scan(), start
    while position < end:
        head = bytes_at(file, position, 4)
        header = _parse(head)
        if header is None or (scan.header is not None and header.kind != scan.header.kind):
            position_of_tag = _after_tag(file, position, end)
            if position_of_tag is None:
                found = next(_synchronised(file, position, min(end, position + _SEARCHED), end), None)
                position_of_tag = end if found is None else found
                if found is not None and scan.frames:
                    scan.skipped += found - position
                elif found is not None:
                    scan.before += found - position
            elif position_of_tag >= end and bytes_at(file, position, 1) == b"\0":
                scan.zeros = end - position
            if position_of_tag >= end:
                break
            position = position_of_tag
            header = _parse(head := bytes_at(file, position, 4))
            if header is None:
                continue
        if position + header.length > end:
            scan.broken_end = True
            break
        if scan.header is None:
            scan.start, scan.header, scan.first = position, header, head
        scan.kinds[header.kind] += 1
        scan.frames += 1
        position += header.length
        scan.end = position
    return scan


def _synchronised(file: BinaryIO, start: int, stop: int, end: int) -> Iterator[int]:
    """Positions from ``start`` to ``stop`` where two frames of one kind follow each other, or one ends the file."""
    window = bytes_at(file, start, max(0, stop - start))
    offset = window.find(b"\xff")
    while offset >= 0:
        header = _parse(window[offset : offset + 4])
        if header is not None:
            following = start + offset + header.length
            other = _parse(bytes_at(file, following, 4)) if following < end else None
            if following == end or (other is not None and other.kind == header.kind):
                yield start + offset
        offset = window.find(b"\xff", offset + 1)


def after_id3(file: BinaryIO, position: int, end: int) -> int:
    """Where the ID3v2 tag at a position ends: as it says, or where the frames begin that its size would swallow."""
    head = bytes_at(file, position, 10)
    size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))
    stop = position + 10 + size + (10 if head[5] & 0x10 else 0)
    if _parse(bytes_at(file, stop, 4)) is not None:
        return stop
    for begin in _synchronised(file, position + 10, min(stop, end, position + _SEARCHED), end):
        place, frames = begin, 0
        while frames < _ROW and (header := _parse(bytes_at(file, place, 4))) is not None:
            place, frames = place + header.length, frames + 1
        if frames == _ROW:
            return begin
    return stop


def _after_tag(file: BinaryIO, position: int, end: int) -> int | None:
    """Where a tag or padding at a position ends; None where there is none."""
    head = bytes_at(file, position, 32)
    if head.startswith(b"ID3") and len(head) >= 10:
        return after_id3(file, position, end)
    if head.startswith(b"TAG"):
        return position + 128
    if head.startswith(b"APETAGEX"):  # a header counts what follows it; a footer what went before
        follows = len(head) == 32 and head[23] & 0x20
        return position + 32 + (int.from_bytes(head[12:16], "little") if follows else 0)
    if head.startswith(b"LYRICSBEGIN"):
        found = re.search(b"LYRICS(200|END)", bytes_at(file, position, _SEARCHED))
        return position + (found.end() if found else 11)
    if head and not any(head):
        while position < end and not any(block := bytes_at(file, position, 4096)):
            position += len(block)
        return position + next((index for index, byte in enumerate(block) if byte), 0) if position < end else end
    return None


def _tag(file: BinaryIO, scan: _Scan) -> tuple[int, int | None, int, int] | None:
    """Position of the frame count, the count, bytes of the stream, and samples to trim, of the first frame if it is a
    tag; the count is None where the tag has none."""
    assert scan.header is not None
    frame = bytes_at(file, scan.start, scan.header.length)
    place = 4 + scan.header.side_bytes
    if scan.header.kind[1] != 3 or frame[place : place + 4] not in (b"Xing", b"Info"):
        return None
    flags, place = int.from_bytes(frame[place + 4 : place + 8], "big"), place + 8
    if not flags & 1:
        return scan.start, None, 0, 0
    counted, position = int.from_bytes(frame[place : place + 4], "big"), scan.start + place
    place += 4
    stream_bytes = 0
    if flags & 2:
        stream_bytes, place = int.from_bytes(frame[place : place + 4], "big"), place + 4
    place += (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
    trimmed = 0
    if frame[place : place + 4] in (b"LAME", b"Lavf", b"Lavc", b"GOGO"):
        delays = int.from_bytes(frame[place + 21 : place + 24], "big")
        trimmed = (delays >> 12) + (delays & 0xFFF)
    return position, counted, stream_bytes, trimmed


def _vbri_count(file: BinaryIO, scan: _Scan) -> int | None:
    """Frames by Fraunhofer's tag, if the first frame is one."""
    tag = bytes_at(file, scan.start + 36, 18)
    return int.from_bytes(tag[14:18], "big") if tag.startswith(b"VBRI") else None


def _counting_frame(scan: _Scan) -> bytes:
    """A tag that says how many frames follow, for streams without one."""
    assert scan.header is not None
    head = bytearray(scan.first)
    head[1] |= 1  # no checksum
    head[2] = (head[2] & 0x0D) | 0x90  # a bit rate with room for the tag, no padding
    header = _parse(bytes(head))
    assert header is not None
    frame = bytes(head) + bytes(header.side_bytes) + b"Xing" + struct.pack(">II", 1, scan.frames)
    return frame.ljust(header.length, b"\0")
