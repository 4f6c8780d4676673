"""Ogg: pages, links of a chain, and the end mark (RFC 3533)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO, NamedTuple

from pmam_plugin.audio.layout import Layout, Part, bytes_at, cut_short
from pmam_plugin.errors import InputError

_AUDIO = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
_FIRST, _LAST = 2, 4
_ANY_LENGTH = 1 << 50
_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class _Page(NamedTuple):
    start: int
    end: int
    flags: int
    granule: int
    serial: int
    number: int
    codec: bytes | None


def ogg_layout(file: BinaryIO, size: int, name: str) -> Layout | None:
    """Each link of a chain as a stream of its own, with an end mark and a length that decoders can rely on; None where
    there is no link.

    Raises:
        InputError: the file is cut short or damaged, or holds several tracks side by side.
    """
    links: list[list[_Page]] = []
    for page in _pages(file, size, name):
        if page.flags & _FIRST and (not links or not links[-1][-1].flags & _FIRST):
            links.append([])
        if links:
            links[-1].append(page)
    streams, notes, known = [], [], True
    for link in links:
        parts, doubts, counted = _link(file, link, name)
        streams.append(parts)
        notes += doubts
        known &= counted
    if not streams:
        return None
    if len(streams) > 1:
        notes.append(f"{name}: {len(streams)} recordings one behind the other; all of them are read")
    return Layout(tuple(streams), None if known else 0, 0, tuple(notes))


def _pages(file: BinaryIO, size: int, name: str) -> Iterator[_Page]:
    position = 0
    while position < size:
        head = bytes_at(file, position, 27)
        if not head.startswith(b"OggS"):
            if position and _is_padding(file, position, size):
                return
            raise InputError(f"{name}: damaged at byte {position}; copy or download the file again")
        if len(head) < 27:
            raise cut_short(name)
        lacing = bytes_at(file, position + 27, head[26])
        body = position + 27 + head[26]
        if len(lacing) < head[26] or body + sum(lacing) > size:
            raise cut_short(name)
        granule, serial, number = struct.unpack("<qII", head[6:22])
        codec = None
        if head[5] & _FIRST:
            packet = bytes_at(file, body, 8)
            codec = next((kind for kind in _AUDIO if packet.startswith(kind)), None)
        yield _Page(position, body + sum(lacing), head[5], granule, serial, number, codec)
        position = body + sum(lacing)


def _is_padding(file: BinaryIO, position: int, size: int) -> bool:
    rest = bytes_at(file, position, min(size - position, 1 << 20))
    return rest.startswith(b"TAG") or not any(rest)


def _link(file: BinaryIO, pages: list[_Page], name: str) -> tuple[tuple[Part, ...], list[str], bool]:
    """The bytes of a link, its last audio page mended where it needs to be; and whether its length is known."""
    tracks = [page.serial for page in pages if page.codec is not None]
    if len(tracks) > 1:
        raise InputError(f"{name}: holds {len(tracks)} tracks side by side; save the wanted one as wav or flac")
    start, end = pages[0].start, pages[-1].end
    audio = [page for page in pages if page.serial in tracks]
    if not audio:
        return ((start, end),), [], True
    last, notes = audio[-1], []
    for page, following in pairwise(audio):
        if following.number != page.number + 1 and page.granule > 0:
            raise InputError(f"{name}: pages are missing at byte {following.start}; copy or download the file again")
        if following.number != page.number + 1:
            notes.append(f"{name}: begins in the middle of its stream or lacks its first pages; the rest is read")
    flags, granule = last.flags, last.granule
    if not flags & _LAST:
        notes.append(f"{name}: has no end mark and may have been cut short; all that is there is read")
        flags |= _LAST
    if granule < max(page.granule for page in audio):
        notes.append(f"{name}: its last page does not know the length; all that is there is read")
        granule = max(page.granule for page in audio) + _ANY_LENGTH
    if (flags, granule) == (last.flags, last.granule):
        return ((start, end),), notes, True
    page_bytes = bytearray(bytes_at(file, last.start, last.end - last.start))
    page_bytes[5], page_bytes[6:14], page_bytes[22:26] = flags, struct.pack("<q", granule), bytes(4)
    page_bytes[22:26] = struct.pack("<I", _checksum(page_bytes))
    return ((start, last.start), bytes(page_bytes), (last.end, end)), notes, granule == last.granule


def _checksum(page: bytes | bytearray) -> int:
    """A page's cyclic redundancy check: zlib's polynomial, but highest bit first, starting from 0, nothing inverted."""
    value = zlib.crc32(page.translate(_BITS_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2)
