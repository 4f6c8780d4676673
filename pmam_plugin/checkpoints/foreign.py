"""Reading checkpoints that other projects published: tensors only, and a report of what became of each.

A pickle is read with ``weights_only=True``. Lightning files also pickle a few harmless containers; those names, and
no others, are stood in for by inert ones, so no foreign code runs and no foreign package is needed.
"""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pmam_plugin.checkpoints.folder import read_tensors
from pmam_plugin.errors import InputError

# The classes of the published detectors, in output order.
DESED_LABELS = (
    "Alarm_bell_ringing",
    "Blender",
    "Cat",
    "Dishes",
    "Dog",
    "Electric_shaver_toothbrush",
    "Frying",
    "Running_water",
    "Speech",
    "Vacuum_cleaner",
)
# What the Lightning versions of the published checkpoints pickle beside tensors and plain containers.
_INERT_NAMES = (
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pathlib.PosixPath",
    "pathlib.Path",
    "pathlib.PurePosixPath",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)


# What torch.load raises on bytes that are no checkpoint.
_UNREADABLE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
)


class _Inert(dict[Any, Any]):
    """Stands in for a pickled object that is not needed: takes anything, does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Pickled state is dropped."""

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


@dataclass(frozen=True)
class ImportReport:
    """What an importer did with every tensor of a foreign checkpoint.

    Attributes:
        source: the file.
        layout: which published layout it was recognised as.
        loaded: number of tensors copied into the model.
        renamed: foreign name -> name here, where they differ.
        skipped: foreign tensors that the model has no use for (heads of another task, the other network, ...).
        missing: tensors of the model the file has none for (left as initialised; empty for a strict importer).
        unexpected: foreign tensors nothing is known about (an importer refuses them unless it says otherwise).
    """

    source: str
    layout: str
    loaded: int
    renamed: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for logs and the command line."""
        counts = [
            f"{self.loaded} tensors loaded",
            f"{len(self.renamed)} of them renamed",
            f"{len(self.skipped)} skipped",
        ]
        counts += [f"{len(self.missing)} missing"] * bool(self.missing)
        counts += [f"{len(self.unexpected)} unexpected"] * bool(self.unexpected)
        return f"{self.source} ({self.layout}): {', '.join(counts)}"


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The dictionary a foreign checkpoint holds, on the CPU; safetensors files give their tensors.

    Raises:
        InputError: missing, truncated, not a checkpoint, or a pickle that would run code.
    """
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{path}: is a folder; name the checkpoint file inside it")
    if file.suffix == ".safetensors":
        return dict(read_tensors(file))
    if not file.is_file():
        raise InputError(f"{path}: no such file; download the checkpoint first")
    stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(_Inert, name) for name in _INERT_NAMES]
    try:
        with torch.serialization.safe_globals([argparse.Namespace, collections.defaultdict, dict, list, *stand_ins]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: {_refusal(str(error))}") from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: not a whole PyTorch checkpoint ({reason}); download it again") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds {type(content).__name__}, not a dictionary of tensors; give another file")
    return dict(content)


def tensors_in(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a flat dictionary, anything else left out."""
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names start with ``prefix``, the prefix removed."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def load_strictly(
    module: nn.Module, tensors: Mapping[str, Tensor], source: str | os.PathLike[str], ignore: Iterable[str] = ()
) -> None:
    """Copy tensors into ``module``: each one it has, and each of its shape.

    Args:
        module: gets the weights.
        tensors: names as in ``module.state_dict()``.
        source: the file, for messages.
        ignore: patterns of state names that may be missing (buffers the foreign format does not store).

    Raises:
        InputError: tensors missing, unexpected or of another shape; ``module`` is then unchanged.
    """
    expected = module.state_dict()
    patterns = [re.compile(pattern) for pattern in ignore]
    missing = [n for n in expected if n not in tensors and not any(pattern.search(n) for pattern in patterns)]
    unexpected = [name for name in tensors if name not in expected]
    kind = type(module).__name__
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(f"{source}: lacks {missing[0]}{more} of {kind}; give another file")
    if unexpected:
        more = f" (and {len(unexpected) - 1} more)" if len(unexpected) > 1 else ""
        raise InputError(f"{source}: {unexpected[0]}{more} does not belong to {kind}; give another file")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise InputError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, {kind} needs {tuple(expected[name].shape)}; "
                "build the model in the size of the checkpoint"
            )
    module.load_state_dict(dict(tensors), strict=not patterns)


def _refusal(message: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if found:
        return f"its pickle names {found.group(1)}, which is no data and is not run; export the tensors alone"
    return "not a checkpoint that can be read without running code; export the tensors alone (safetensors)"
