"""Reading safetensors files, with a clear word where one is not what it should be."""

from __future__ import annotations

import os
from collections.abc import Collection

from safetensors import SafetensorError, safe_open
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.files import ZIP, other_kind


def read_tensors(
    path: str | os.PathLike[str], needed: Collection[str] = (), cure: str = "download it again"
) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Args:
        path: the file.
        needed: names that must be there.
        cure: what to do about a file that is not whole.

    Raises:
        InputError: missing, truncated, not safetensors (a pickle is never unpickled here), or without a needed tensor.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file; {cure}")
    refuse_others(path, cure)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a whole safetensors file ({reason}); {cure}") from error
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing; this file holds something else")
    return tensors


def refuse_others(path: str | os.PathLike[str], cure: str = "download it again") -> None:
    """Name a file for what it is if it is no weights: text, an archive, a recording and the like.

    Raises:
        InputError: it is one of these, empty, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head.startswith(ZIP) and (foreign := other_kind(head, "weights", "give another file")):
        raise InputError(f"{path}: is {foreign}")
    if not head:
        raise InputError(f"{path}: the file is empty (0 bytes); {cure}")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(f"{path}: is a web page, not weights; download the file itself, not the page about it")
    if head[257:262] == b"ustar":
        raise InputError(f"{path}: is an archive, not weights; unpack it")
    if len(head) > 1 and all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head):
        shown = head.decode("ascii").split("\n", 1)[0].strip()[:40]
        raise InputError(f"{path}: is a text file that begins with {shown!r}, not weights; {cure}")
