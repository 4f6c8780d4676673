"""Which bytes of a file a decoder is given, and what must come out of it.

Headers are promises: of recorders that were switched off, of pipes that never knew the length, of copies that broke
off. A :class:`Layout` is what the bytes themselves say. Where it differs from the header, the decoder reads a
:class:`View` with a header that fits.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO

from pmam_plugin.errors import InputError

Part = bytes | tuple[int, int]
"""Bytes to put in, or the first byte of a stretch of the file and the one after its last."""

HEADER_SLACK = 44
"""Recorders that count a header into the size of the samples promise up to so many bytes too much."""


@dataclass(frozen=True)
class Layout:
    """How to read a recording.

    Attributes:
        streams: one decoder reads each; together they are the recording.
        frames: samples per channel that must come out; None: as many as the decoder announces, 0: nobody knows.
        slack: so many fewer are no fault (what decoders need to start, and encoders to end).
        notes: what is odd about the file and was made good, each a sentence with its cure.
    """

    streams: tuple[tuple[Part, ...], ...]
    frames: int | None = None
    slack: int = 0
    notes: tuple[str, ...] = ()


class View(io.RawIOBase):
    """Parts of a file one behind the other, read-only, as soundfile reads file objects.

    Attributes:
        failure: the error that ended reading: a decoder takes it for the end of the file.
    """

    def __init__(self, file: BinaryIO, parts: Sequence[Part]) -> None:
        self._file, self._parts = file, parts
        lengths = [len(part) if isinstance(part, bytes) else part[1] - part[0] for part in parts]
        self._starts = [0, *accumulate(lengths)]
        self._position = 0
        self.failure: OSError | None = None

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be sought in."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, not before the start; decoders ask for anything."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._starts[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer, less only at the end."""
        target, filled = memoryview(buffer).cast("B"), 0
        while filled < len(target) and self._position < self._starts[-1]:
            number = bisect_right(self._starts, self._position) - 1
            part, inside = self._parts[number], self._position - self._starts[number]
            count = min(len(target) - filled, self._starts[number + 1] - self._position)
            if isinstance(part, bytes):
                target[filled : filled + count] = part[inside : inside + count]
            else:
                try:
                    self._file.seek(part[0] + inside)
                    count = self._file.readinto(target[filled : filled + count])  # type: ignore[attr-defined]
                except OSError as error:
                    self.failure, count = error, 0
                if not count:
                    break
            filled, self._position = filled + count, self._position + count
        return filled


def bytes_at(file: BinaryIO, start: int, count: int) -> bytes:
    """Up to ``count`` bytes of a file; fewer at its end."""
    file.seek(start)
    return file.read(count)


def cut_short(name: str) -> InputError:
    """The refusal of a file that breaks off."""
    return InputError(f"{name}: the audio ends before its header says it does; copy or download the file again")
