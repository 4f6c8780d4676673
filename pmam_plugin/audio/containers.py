"""Where the samples lie in containers of chunks: WAV, RF64, BW64, AIFF, 8SVX, W64, CAF, and in AU.

The size of the samples is wrong in many files that are complete: a recorder counts its header too, a pipe never knew
the length and wrote 0 or the largest number, four bytes overflowed at 4 GiB, power failed before the header was
finished. What follows the promised end decides: chunks, or more sound. Where the header is right there is no layout,
and the file is read as it stands.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pmam_plugin.audio.layout import HEADER_SLACK, Layout, Part, bytes_at, cut_short
from pmam_plugin.audio.mpeg import mpeg_layout
from pmam_plugin.errors import InputError

_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
_LARGEST_PADDING = 1 << 16
# Of another recording, or of another chunk of samples.
_BEGINNINGS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"riff", b"caff", b".snd", b"fLaC", b"OggS", b"data", b"SSND")
_UNPADDED = b""  # in place of a chunk's name: a writer forgot the padding of odd chunks
_MPEG_IN_WAV = (0x50, 0x55)
_W64_FMT, _W64_DATA = (name + bytes.fromhex("f3acd3118cd100c04f8edb8a") for name in (b"fmt ", b"data"))


@dataclass(frozen=True)
class _Form:
    """How a container writes its chunks: bytes of the name, the size's form, what it counts, what it is padded to."""

    name_bytes: int
    size: str
    counts_header: bool = False
    align: int = 2

    @property
    def header(self) -> int:
        return self.name_bytes + struct.calcsize(self.size)

    def at(self, file: BinaryIO, position: int) -> tuple[bytes, int] | None:
        """Name and size of the body of the chunk at a position, if there is one."""
        head = bytes_at(file, position, self.header)
        name = head[: self.name_bytes]
        if len(head) < self.header or not all(32 <= byte < 127 for byte in name[:4]):
            return None
        size = struct.unpack(self.size, head[self.name_bytes :])[0]
        return name, size - self.header if self.counts_header else size

    def after(self, start: int, size: int) -> int:
        """Where the next chunk begins."""
        return start + size + -(size + (self.header if self.counts_header else 0)) % self.align


_LITTLE, _BIG = _Form(4, "<I"), _Form(4, ">I")
_W64, _CAF = _Form(16, "<q", counts_header=True, align=8), _Form(4, ">q", align=1)


@dataclass(frozen=True)
class _Data:
    """Where the samples lie, whether the header says so, and what to say if it does not."""

    start: int
    end: int
    as_promised: bool
    notes: tuple[str, ...] = ()


def riff_layout(file: BinaryIO, size: int, name: str) -> Layout | None:
    """WAV in all its forms: RIFF, RIFX, RF64 and BW64.

    Raises:
        InputError: the file is cut short, or holds several recordings.
    """
    magic = bytes_at(file, 0, 4)
    form = _BIG if magic == b"RIFX" else _LITTLE
    chunks = _chunks(file, form, 12, size, b"data")
    if b"data" not in chunks or b"fmt " not in chunks:
        return None
    start, promised = chunks[b"data"]
    known: int | None = promised
    if promised == 0xFFFFFFFF and b"ds64" in chunks:
        known = struct.unpack("<Q", bytes_at(file, chunks[b"ds64"][0] + 8, 8).ljust(8, b"\0"))[0]
    elif (promised >= 0xFFFFFF00 or 0x7FFF0000 <= promised <= 0x80000100) and start + promised > size:
        known = None
    whole = struct.unpack(form.size, bytes_at(file, 4, 4))[0] + 8 == size
    data = _data(file, size, name, form, start, known, whole)
    kind = bytes_at(file, chunks[b"fmt "][0], 2)
    if int.from_bytes(kind, "big" if form is _BIG else "little") in _MPEG_IN_WAV:
        inner = mpeg_layout(file, data.start, data.end, name)
        return Layout(inner.streams, inner.frames, inner.slack, data.notes + inner.notes)
    if data.as_promised and magic != b"BW64" and chunks[b"fmt "][0] < start and _UNPADDED not in chunks:
        return None
    kept = [_chunk(file, form, name_, *chunks[name_]) for name_ in (b"fmt ", b"fact") if name_ in chunks]
    return Layout((_wav(magic, form, b"".join(kept), data),), notes=data.notes)


def iff_layout(file: BinaryIO, size: int, name: str) -> Layout | None:
    """AIFF, AIFF-C, and the Amiga's 8SVX and 16SV.

    Raises:
        InputError: the file is cut short.
    """
    kind = bytes_at(file, 8, 4)
    samples, description = (b"SSND", b"COMM") if kind in (b"AIFF", b"AIFC") else (b"BODY", b"VHDR")
    chunks = _chunks(file, _BIG, 12, size, samples)
    if samples not in chunks or description not in chunks:
        return None
    start, promised = chunks[samples]
    offset = 0
    if samples == b"SSND":
        offset = 8 + int.from_bytes(bytes_at(file, start, 4), "big")
    known = None if promised >= 0xFFFFFF00 else max(0, promised - offset)
    whole = int.from_bytes(bytes_at(file, 4, 4), "big") + 8 == size
    data = _data(file, size, name, _BIG, start + offset, known, whole)
    head = bytearray(_chunk(file, _BIG, description, *chunks[description]))
    promised, counted = _count_aiff_frames(head, data) if samples == b"SSND" else (0, 0)
    notes = data.notes
    if promised != counted and not notes:
        notes = (f"{name}: its header counts {promised} samples and {counted} are there; all of them are read",)
    if data.as_promised and promised == counted and chunks[description][0] < start:
        return None
    others = [_chunk(file, _BIG, other, *chunks[other]) for other in (b"FVER", b"CHAN") if other in chunks]
    inner = struct.pack(">II", 0, 0) if samples == b"SSND" else b""
    length = data.end - data.start
    body = b"".join((kind, *others, bytes(head), samples, struct.pack(">I", length + len(inner)), inner))
    form = b"FORM" + struct.pack(">I", len(body) + length + length % 2) + body
    return Layout(((form, (data.start, data.end), bytes(length % 2)),), notes=notes)


def w64_layout(file: BinaryIO, size: int, name: str) -> Layout | None:
    """Sony's Wave64.

    Raises:
        InputError: the file is cut short.
    """
    chunks = _chunks(file, _W64, 40, size, _W64_DATA)
    if _W64_DATA not in chunks:
        return None
    start, promised = chunks[_W64_DATA]
    known = promised if 0 <= promised < 1 << 62 else None
    whole = int.from_bytes(bytes_at(file, 16, 8), "little") == size
    data = _data(file, size, name, _W64, start, known, whole)
    if data.as_promised:
        return None
    total, length = (struct.pack("<q", value) for value in (data.end, data.end - start + _W64.header))
    parts: tuple[Part, ...] = ((0, 16), total, (24, start - 8), length, (start, data.end))
    return Layout((parts,), notes=data.notes)


def caf_layout(file: BinaryIO, size: int, name: str) -> Layout | None:
    """Apple's Core Audio Format, where the samples may say that they last to the end of the file.

    Raises:
        InputError: the file is cut short.
    """
    chunks = _chunks(file, _CAF, 8, size, b"data")
    if b"data" not in chunks:
        return None
    start, promised = chunks[b"data"]
    if promised == -1:
        data = _Data(start, size, False)
    else:
        data = _data(file, size, name, _CAF, start, promised if promised >= 4 else 0, False)
    if data.as_promised:
        return None
    length = struct.pack(">q", data.end - start)
    return Layout((((0, start - 8), length, (start, data.end)),), notes=data.notes)


def au_layout(file: BinaryIO, size: int, name: str) -> Layout | None:
    """Sun's and NeXT's audio; its largest size means: to the end of the file.

    Raises:
        InputError: the file is cut short.
    """
    order = ">" if bytes_at(file, 0, 4) == b".snd" else "<"
    head = bytes_at(file, 4, 8)
    if len(head) < 8:
        return None
    start, promised = struct.unpack(f"{order}II", head)
    if promised == 0xFFFFFFFF or start > size:
        return None
    data = _data(file, size, name, None, start, promised, False)
    if data.as_promised:
        return None
    return Layout((((0, 8), b"\xff" * 4, (12, data.end)),), notes=data.notes)


def _chunks(file: BinaryIO, form: _Form, position: int, size: int, samples: bytes) -> dict[bytes, tuple[int, int]]:
    """Chunk name -> start and size of its body, as promised; after the samples only if others are still wanted."""
    found: dict[bytes, tuple[int, int]] = {}
    for chunk, start, length in _walk(file, form, position, size):
        if start != form.after(position, form.header):
            found[_UNPADDED] = start, 0
        position = form.after(start, length)
        found.setdefault(chunk, (start, length))
        if chunk == samples and len(found) > 1 and {b"fmt ", b"COMM", b"VHDR", _W64_FMT, b"desc"} & found.keys():
            break
    return found


def _walk(file: BinaryIO, form: _Form, position: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    odd = False
    while position + form.header <= size:
        chunk = form.at(file, position)
        if chunk is None and odd:  # a writer that forgot the padding byte
            position -= 1
            chunk = form.at(file, position)
        if chunk is None or (chunk[1] < 0 and chunk[0] != b"data"):
            return
        start = position + form.header
        yield chunk[0], start, chunk[1]
        if chunk[1] < 0:
            return
        position, odd = form.after(start, chunk[1]), form.after(start, chunk[1]) != start + chunk[1]


def _data(
    file: BinaryIO, size: int, name: str, form: _Form | None, start: int, promised: int | None, whole: bool
) -> _Data:
    """Where the samples end.

    Args:
        file: the file.
        size: its bytes.
        name: what messages call it.
        form: of the chunks that may follow; None where none may.
        start: first byte of the samples.
        promised: bytes of samples by the header; None where it does not know.
        whole: the header knows the size of the whole file, which is thus complete.
    """
    present = size - start
    if present < 0:
        raise cut_short(name)
    if promised is None:
        return _Data(start, size, False, (f"{name}: its header does not know its length; read to the end of the file",))
    if promised > present:
        if promised - present > HEADER_SLACK and not whole:
            raise cut_short(name)
        excess = promised - present
        return _Data(start, size, False, (f"{name}: its header promises {excess} bytes too much; read what is there",))
    end = start + promised
    if any(bytes_at(file, place, 4) in _BEGINNINGS for place in (end, end + end % 2, end + -end % 8)):
        raise InputError(f"{name}: more sound follows its first stretch; split the file, or convert it to one stretch")
    if _is_no_sound(file, size, form, end, promised):
        return _Data(start, end, True)
    note = f"{name}: its header promises {promised} bytes of sound and {present} are there; read to the end of the file"
    return _Data(start, size, False, (note,))


def _is_no_sound(file: BinaryIO, size: int, form: _Form | None, end: int, promised: int) -> bool:
    """Whether what follows the promised end of the samples is nothing, padding, tags or chunks."""
    if size - end < 8 or bytes_at(file, end, 11).startswith(_TAGS):
        return True
    if promised and size - end <= _LARGEST_PADDING and not any(bytes_at(file, end, size - end)):
        return True
    if form is None:
        return False
    for position in (end + -end % 2, end) if form.align == 2 else (form.after(end, 0),):
        last = position
        for _, start, length in _walk(file, form, position, size):
            last = form.after(start, length)
        if last > position and size - 8 < last <= size + form.align:
            return True
    return False


def _chunk(file: BinaryIO, form: _Form, name: bytes, start: int, size: int) -> bytes:
    if size > 1 << 16:
        raise InputError(f"the {name.decode()} chunk of {size} bytes is none; convert the file again")
    body = bytes_at(file, start, size)
    return name + struct.pack(form.size, len(body)) + body + bytes(len(body) % 2)


def _wav(magic: bytes, form: _Form, description: bytes, data: _Data) -> tuple[Part, ...]:
    length = data.end - data.start
    total = 4 + len(description) + 8 + length + length % 2
    if total < 0xFFFFFFFF:
        head = b"RIFX" if magic == b"RIFX" else b"RIFF"
        return (
            head + struct.pack(form.size, total) + b"WAVE" + description + b"data" + struct.pack(form.size, length),
            (data.start, data.end),
            bytes(length % 2),
        )
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, total + 36, length, 0, 0)
    head = b"RF64" + b"\xff" * 4 + b"WAVE" + ds64 + description + b"data" + b"\xff" * 4
    return head, (data.start, data.end), bytes(length % 2)


def _count_aiff_frames(description: bytearray, data: _Data) -> tuple[int, int]:
    """Set the frames of a ``COMM`` chunk of plain samples to what is there.

    Returns:
        Frames as they were promised and as they are, the same number where nobody can tell them apart.
    """
    if len(description) < 8 + 18:
        return 0, 0
    channels, frames, bits = struct.unpack(">hIh", description[8:16])
    if description[26:30] in (b"GSM ", b"agsm"):
        return _set_frames(description, frames, (data.end - data.start) // 33 * 160, 160)
    plain = len(description) < 8 + 22 or description[26:30] in (b"NONE", b"sowt", b"twos", b"raw ", b"in24", b"in32")
    if not plain or channels <= 0 or bits <= 0:
        return 0, 0
    return _set_frames(description, frames, (data.end - data.start) // (channels * -(-bits // 8)), 1)


def _set_frames(description: bytearray, promised: int, counted: int, block: int) -> tuple[int, int]:
    description[10:14] = struct.pack(">I", min(counted, 0xFFFFFFFF))
    return (promised, counted) if not counted - block < promised <= counted else (counted, counted)
