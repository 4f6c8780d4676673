"""Reading safetensors files and filling models with them, with a clear word where one is not what it should be."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pmam_plugin.errors import InputError, reason
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
        raise InputError(f"{path}: not a whole safetensors file ({reason(error)}); {cure}") from error
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing; this file holds something else")
    return tensors


def load_strictly(
    module: nn.Module, tensors: Mapping[str, Tensor], source: str | os.PathLike[str], ignore: Iterable[str] = ()
) -> None:
    """Copy tensors into ``module``: each one it has, each of its shape, and no other.

    Args:
        module: gets the weights.
        tensors: names as in ``module.state_dict()``.
        source: the file, for messages.
        ignore: patterns of state names that may be missing (buffers that a foreign format does not store).

    Raises:
        InputError: tensors missing, unexpected or of another shape; ``module`` is then unchanged.
    """
    expected = module.state_dict()
    patterns = [re.compile(pattern) for pattern in ignore]
    kind = type(module).__name__
    missing = [n for n in expected if n not in tensors and not any(pattern.search(n) for pattern in patterns)]
    unexpected = [name for name in tensors if name not in expected]
    misshapen = [name for name in tensors if name in expected and not _alike(tensors[name], expected[name])]
    faults = []
    if missing:
        faults.append(f"lacks {_first_of(missing)} of {kind}")
    if unexpected:
        faults.append(f"{_first_of(unexpected)} does not belong to {kind}")
    if misshapen:
        found, wanted = (_described(each[misshapen[0]]) for each in (tensors, expected))
        faults.append(f"{_first_of(misshapen)} is {found}, {kind} needs {wanted}")
    if faults:
        cure = "give another file" + ("" if missing or unexpected else ", or build the model in its size")
        raise InputError(f"{source}: {'; '.join(faults)}; {cure}")
    module.load_state_dict(dict(tensors), strict=not patterns)


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


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.is_floating_point() == other.is_floating_point()


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _first_of(names: Sequence[str]) -> str:
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
