"""Reading safetensors files with a clear word when they are not what was expected."""

from __future__ import annotations

import os
from collections.abc import Collection

from safetensors import SafetensorError, safe_open
from torch import Tensor

from pmam_plugin.errors import InputError


def read_tensors(path: str | os.PathLike[str], needed: Collection[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file and its metadata.

    Args:
        path: the file.
        needed: names that must be there.

    Raises:
        InputError: missing, not safetensors, or without a needed tensor.
    """
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors file ({error}); fit and save it again") from error
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing; this file holds something else")
    return tensors, metadata
