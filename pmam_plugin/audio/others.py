"""How much sound the headers of less common formats promise: enough to notice that a copy broke off.

PVF, IRCAM and PAF promise nothing, so that a cut one is read as far as it goes; libsndfile itself refuses a cut HTK.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO

from pmam_plugin.audio.layout import HEADER_SLACK, bytes_at, cut_short
from pmam_plugin.errors import InputError

_VOC_SOUND = (1, 9)


def _avr(file: BinaryIO, size: int, name: str) -> int:
    head = bytes_at(file, 0, 128)
    channels, width = 2 if any(head[12:14]) else 1, int.from_bytes(head[14:16], "big") // 8
    return 128 + channels * width * int.from_bytes(head[26:30], "big")


def _mat5(file: BinaryIO, size: int, name: str) -> int:
    order = "little" if bytes_at(file, 126, 2) == b"IM" else "big"
    position = 128
    while position + 8 <= size:
        position += 8 + int.from_bytes(bytes_at(file, position + 4, 4), order)  # type: ignore[arg-type]
    return position


def _mpc2k(file: BinaryIO, size: int, name: str) -> int:
    head = bytes_at(file, 0, 42)
    return 42 + 2 * (2 if head[21] else 1) * int.from_bytes(head[30:34], "little")


def _nist(file: BinaryIO, size: int, name: str) -> int:
    head = bytes_at(file, 0, 4096)
    facts = {key: int(value) for key, value in re.findall(rb"(\w+) -(?:i|s\d+) (\d{1,12})\s", head)}
    lines = head.split(b"\n", 2)
    start = int(lines[1]) if len(lines) > 2 and lines[1].strip().isdigit() else 1024
    per_frame = facts.get(b"channel_count", 1) * facts.get(b"sample_n_bytes", 2)
    return start + per_frame * facts.get(b"sample_count", 0)


def _voc(file: BinaryIO, size: int, name: str) -> int:
    position, sounds = int.from_bytes(bytes_at(file, 20, 2), "little"), 0
    while position < size:
        head = bytes_at(file, position, 4)
        if head[0] == 0 or len(head) < 4:
            break
        sounds += head[0] in (*_VOC_SOUND, 2, 3)
        position += 4 + int.from_bytes(head[1:4], "little")
    if sounds > 1:
        raise InputError(f"{name}: {sounds} blocks of sound, of which only the first can be read; convert it to wav")
    return position


def _sds(file: BinaryIO, size: int, name: str) -> int:
    head = bytes_at(file, 0, 21)
    words = head[10] | head[11] << 7 | head[12] << 14
    per_packet = 120 // max(1, -(-head[6] // 7))
    promised = 21 + 127 * -(-words // per_packet)
    if promised + 127 <= size:
        raise InputError(f"{name}: holds more sound than its header says; convert it to wav")
    return promised


def _wve(file: BinaryIO, size: int, name: str) -> int:
    return 32 + int.from_bytes(bytes_at(file, 18, 4), "big")


def _xi(file: BinaryIO, size: int, name: str) -> int:
    samples = int.from_bytes(bytes_at(file, 296, 2), "little")
    if samples > 1:
        raise InputError(f"{name}: {samples} samples, of which only the first can be read; convert it to wav")
    return 298 + 40 * samples + int.from_bytes(bytes_at(file, 298, 4), "little")


def _mat4(file: BinaryIO, size: int, name: str) -> int:
    order = "big" if bytes_at(file, 2, 1) == b"\x03" else "little"
    position = 0
    while position + 20 <= size:
        kind, rows, columns, _, letters = (
            int.from_bytes(bytes_at(file, position + 4 * field, 4), order)  # type: ignore[arg-type]
            for field in range(5)
        )
        width = (8, 4, 4, 2, 2, 1)[min(kind // 10 % 10, 5)]
        position += 20 + letters + width * rows * columns
    return position


_PROMISES: dict[str, Callable[[BinaryIO, int, str], int]] = {
    "AVR": _avr,
    "MAT4": _mat4,
    "MAT5": _mat5,
    "MPC2K": _mpc2k,
    "NIST": _nist,
    "VOC": _voc,
    "SDS": _sds,
    "WVE": _wve,
    "XI": _xi,
}


def check_promise(file: BinaryIO, size: int, name: str, kind: str) -> None:
    """Refuse a file that is not as long as its header says.

    Args:
        file: the file.
        size: its bytes.
        name: what messages call it.
        kind: libsndfile's name of the format.

    Raises:
        InputError: it is cut short, or holds sounds that would not be read.
    """
    if kind in _PROMISES and _PROMISES[kind](file, size, name) > size + HEADER_SLACK:
        raise cut_short(name)
