"""Reading checkpoints that other projects published: tensors only, and a report of what became of each.

A pickle is read with ``weights_only=True``. Training scripts also pickle harmless objects (paths, versions, settings);
those of known modules, and no others, are stood in for by inert ones, so no foreign code runs and no foreign package is
needed. Their contents are ignored.
"""

from __future__ import annotations

import collections
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pmam_plugin.checkpoints.hub_folder import WEIGHTS_NAME, model_folder
from pmam_plugin.errors import InputError, reason
from pmam_plugin.weights import load_strictly, read_tensors, refuse_others

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
# The convolutions of the DCASE baseline, as all that was made of it names them: patterns and names here.
CNN_RENAMES = (
    (r"cnn\.cnn\.conv(\d+)\.(.+)", r"backbone.encoder.cnn.stack.stages.\1.conv.\2"),
    (r"cnn\.cnn\.batchnorm(\d+)\.(.+)", r"backbone.encoder.cnn.stack.stages.\1.norm.\2"),
    (r"cnn\.cnn\.cg(\d+)\.linear\.(.+)", r"backbone.encoder.cnn.stack.stages.\1.gate.\2"),
)
# What training scripts pickle beside tensors and plain containers: whatever stands in these modules is replaced by an
# inert object, and so neither needed nor run.
_INERT_MODULES = (
    "pathlib",
    "numpy",
    "torch.torch_version",
    "packaging",
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "omegaconf",
    "hydra",
    "ml_collections",
    "yacs.config",
    "easydict",
    "addict",
    "box",
    "munch",
    "argparse",
    "datetime",
    "types.SimpleNamespace",
    "fairseq.dataclass",
    "transformers.training_args",
    "transformers.configuration_utils",
    "transformers.trainer_utils",
    "accelerate.utils.dataclasses",
    "mmengine.config",
    "ruamel.yaml",
    "dotmap",
    "attridict",
    "torch.optim",
    "typing",
    "decimal",
    "fractions",
    "uuid",
    "copyreg._reconstructor",
    "builtins.object",
    "builtins.frozenset",
    "builtins.range",
    "builtins.slice",
    "builtins.Ellipsis",
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
    """

    source: str
    layout: str
    loaded: int
    renamed: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for logs and the command line."""
        counts = [
            f"{self.loaded} tensors loaded",
            f"{len(self.renamed)} of them renamed",
            f"{len(self.skipped)} skipped",
        ]
        return f"{self.source} ({self.layout}): {', '.join(counts)}"


def read_checkpoint(path: str | os.PathLike[str], origin: str = "") -> dict[str, Any]:
    """The dictionary a foreign checkpoint holds, on the CPU; safetensors files give their tensors.

    Args:
        path: the file.
        origin: where to get it, for the message where it is missing.

    Raises:
        InputError: missing, truncated, not a checkpoint, or a pickle that would run code.
    """
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{path}: is a folder; name the checkpoint file inside it")
    if not file.is_file():
        raise InputError(f"{path}: no such file; download {f'it from {origin}' if origin else 'the checkpoint'} first")
    refuse_others(file)
    with file.open("rb") as opened:
        head = opened.read(16)
    if file.suffix == ".safetensors" or (head[8:10] == b'{"' and head[6:8] == b"\0\0"):
        return dict(read_tensors(file))
    if other := _other_kind(file, head):
        raise InputError(f"{path}: is {other}")
    try:
        content = _without_foreign_code(file)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: {_refusal(str(error))}") from error
    except _UNREADABLE as error:
        raise InputError(f"{path}: not a whole PyTorch checkpoint ({reason(error)}); download it again") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds {type(content).__name__}, not a dictionary of tensors; give another file")
    return dict(content)


def _other_kind(file: Path, head: bytes) -> str | None:
    """What holds weights but is no checkpoint of PyTorch, and the cure."""
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file, as Keras writes them; of these only YAMNet's is read, with --kind yamnet"
    if not any(head):
        return "nothing but zeros where it begins; download it again"
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return None
    inside = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in inside:
        return "a program in TorchScript, which is not run; export its state_dict"
    if "model.weights.h5" in inside:
        return "a model of Keras 3; give the weights as the authors published them"
    if "data.pkl" not in inside:
        return (
            f"a zip archive that holds {', '.join(names)[:80] or 'nothing'}; unpack it and name the checkpoint inside"
        )
    return None


def _without_foreign_code(file: Path) -> Any:
    """``torch.load`` of tensors and plain containers; harmless names become stand-ins one by one, as they turn up."""
    inert: list[str] = []
    while True:
        stand_ins: list[Any] = [(_Inert, name) for name in inert]
        try:
            with torch.serialization.safe_globals([collections.defaultdict, dict, list, *stand_ins]):
                return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            name = found[1] if found else ""
            full = name if "." in name else f"builtins.{name}"
            harmless = any(full == module or full.startswith(f"{module}.") for module in _INERT_MODULES)
            if not harmless or full in inert:
                raise
            inert.append(full)


def tensors_in(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a flat dictionary, anything else left out."""
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names start with ``prefix``, the prefix removed."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def part_of(stored: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """What in a model's stored tensors belongs to a part like ``module``: wherever its first tensor is found."""
    first = next(iter(module.state_dict()))
    place = next((name for name in stored if name == first or name.endswith(f".{first}")), first)
    return under(stored, place.removesuffix(first))


def count_blocks(tensors: Mapping[str, Tensor], prefix: str = "blocks.") -> int:
    """How many blocks the names of these tensors tell of."""
    return len({name.split(".")[0] for name in under(tensors, prefix)})


def renamed(name: str, rules: Iterable[tuple[str, str]]) -> str | None:
    """The name by the first rule (pattern, replacement) whose pattern it matches whole; None where none does."""
    return next((found.expand(new) for old, new in rules if (found := re.fullmatch(old, name))), None)


def class_labels(
    labels: Sequence[str] | None,
    classes: int,
    source: str | os.PathLike[str],
    known: Sequence[str] = DESED_LABELS,
) -> list[str]:
    """The given names of the classes, or the known ones.

    Raises:
        InputError: there are not as many as classes.
    """
    names = list(known if labels is None else labels)
    if len(names) != classes:
        raise InputError(f"{source}: {classes} classes but {len(names)} labels; name them all, in order")
    return names


def load_from_folder(module: nn.Module, source: str | os.PathLike[str]) -> ImportReport | None:
    """Fill ``module`` with the part like it of a model folder; None where ``source`` is none.

    Raises:
        InputError: the folder holds no such part, or one of another size.
    """
    folder = model_folder(source)
    if not folder.is_dir():
        return None
    tensors = part_of(read_tensors(folder / WEIGHTS_NAME), module)
    load_strictly(module, tensors, source)
    return ImportReport(str(source), "model folder", len(tensors))


def _refusal(message: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if found:
        return f"its pickle names {found.group(1)}, which is no data and is not run; export the tensors alone"
    return "not a checkpoint that can be read without running code; export the tensors alone (safetensors)"
