"""Importer of YAMNet's published weights, a Keras 2 HDF5 file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pmam_plugin.checkpoints.foreign import ImportReport, class_labels, under
from pmam_plugin.checkpoints.hub_folder import BUILTIN, WEIGHTS_NAME, fetch_model, model_folder
from pmam_plugin.config import from_config
from pmam_plugin.encoders.yamnet import CHANNELS, STRIDES, YAMNetEncoder, YAMNetFrames
from pmam_plugin.errors import InputError, reason
from pmam_plugin.tables import Table
from pmam_plugin.weights import load_strictly, read_tensors, refuse_others

ADDRESS = "https://storage.googleapis.com/audioset/yamnet.h5"
CLASS_MAP = "yamnet_class_map.csv"
_LAYOUT = "Keras YAMNet"
_EPSILON = 1e-4  # of its batch norms
_CLASSES = 521
_NORM = ("beta", "moving_mean", "moving_variance")


def load_yamnet(encoder: YAMNetFrames, source: str | os.PathLike[str]) -> ImportReport:
    """Load YAMNet's weights, strictly; layers above those the encoder has are skipped, as is the classifier.

    Args:
        encoder: gets the weights.
        source: the published ``yamnet.h5``, or the folder of a model that holds a YAMNet (the imported encoder, or a
            detector); ``"builtin"``, the one of the package's model.

    Raises:
        InputError: the file cannot be read, holds no YAMNet, or a tensor is missing, unexpected or of another shape.
    """
    folder, skipped = fetch_model(source) if source == BUILTIN else model_folder(source), []
    if folder.is_dir():
        stored = read_tensors(folder / WEIGHTS_NAME)
        first = next((name for name in stored if name.endswith("network.conv.weight")), None)
        if first is None:
            raise InputError(
                f"{source}: is a model without a YAMNet, for whose layers and speed the experiment is laid out; "
                "other encoders have experiments of their own, such as beats.yaml and atst_sed.yaml"
            )
        tensors = under(stored, first.removesuffix("conv.weight"))
    else:
        arrays = _read_keras(source)
        tensors, skipped = _network(arrays, source), [name for name in arrays if _is_dense(name, arrays)]
    depth = len(encoder.network.channels)
    above = [name for name in tensors if name.startswith("blocks.") and int(name.split(".")[1]) >= depth - 1]
    load_strictly(encoder.network, {n: t for n, t in tensors.items() if n not in above}, source)
    return ImportReport(str(source), _LAYOUT, len(tensors) - len(above), skipped=(*skipped, *above))


def import_yamnet(source: str | os.PathLike[str]) -> tuple[YAMNetEncoder, ImportReport]:
    """The encoder over whole clips, 80 ms a frame, with the published weights; errors as in :func:`load_yamnet`."""
    encoder = YAMNetEncoder()
    return encoder, load_yamnet(encoder, source)


def import_detector(
    source: str | os.PathLike[str], labels: Sequence[str] | None = None, hop: int = 8, centred: bool = True
) -> tuple[Any, ImportReport]:
    """A detector of the classes that YAMNet knows: its published answer to the 0.96 s around every frame.

    Args:
        source: the published ``yamnet.h5``.
        labels: names of its 521 classes; None reads them from ``yamnet_class_map.csv`` beside the file.
        hop: mel frames (10 ms) per frame.
        centred: see :class:`YAMNetPatches`; false with a hop of 48 is the published model exactly.

    Raises:
        InputError: see :func:`load_yamnet`; or the class names are missing.
    """
    names = class_labels(class_names(Path(source).parent / CLASS_MAP) if labels is None else labels, _CLASSES, source)
    width = CHANNELS[-1]
    backbone = {
        "type": "Backbone",
        "frontend": {"type": "FrontEnds", "mel": {"type": "YAMNetMel"}},
        "encoder": {"type": "YAMNetPatches", "hop": hop, "centred": centred},
        "context": {"type": "IdentityContext", "dim": width},
    }
    head = {"type": "LinearSoftmaxHead", "dim": width, "classes": _CLASSES}
    detector = from_config({"type": "FrameDetector", "backbone": backbone, "head": head, "labels": names})
    report = load_yamnet(detector.backbone.encoder, source)
    kernel, bias = _classifier(_read_keras(source), source)
    load_strictly(detector.head, {"classifier.weight": kernel, "classifier.bias": bias}, source)
    return detector, ImportReport(str(source), _LAYOUT, report.loaded + 2)


def class_names(path: Path) -> list[str]:
    """``display_name`` of every class, in the order of ``index``.

    Raises:
        InputError: there is no such file, or it is no class map.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; the names of the classes stand in it, download it to where yamnet.h5 is"
        )
    table = Table.read(path, ("index", "display_name"))
    astray = [cell != str(place) for place, cell in enumerate(table.columns["index"])]
    table.refuse(astray, "index", "is out of order; download the class map again")
    return table.columns["display_name"]


def _read_keras(source: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a Keras weights file, ``layer/weight`` -> array."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise InputError("h5py is not installed; install it with pip install 'pmam-plugin[keras]'") from error
    if not Path(source).is_file():
        raise InputError(f"{source}: no such file; download it from {ADDRESS}")
    refuse_others(source)
    try:
        with h5py.File(source, "r") as file:
            root = file.get("model_weights", file)
            layers = [_text(name) for name in root.attrs["layer_names"]]
            return {
                f"{layer}/{_text(name).rpartition('/')[2].partition(':')[0]}": np.asarray(root[layer][_text(name)])
                for layer in layers
                for name in root[layer].attrs["weight_names"]
            }
    except (OSError, KeyError, RuntimeError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{source}: not a whole Keras weights file ({reason(error)}); download it again") from error


def _network(arrays: dict[str, np.ndarray], source: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Names and shapes of :class:`~pmam_plugin.encoders.yamnet.YAMNet`; every array but the classifier's has its place.

    A batch norm becomes part of the convolution before it: ``w / s`` and ``beta - mean / s``, s the square root of the
    variance plus epsilon.
    """
    left = {name: array for name, array in arrays.items() if not _is_dense(name, arrays)}
    tensors: dict[str, Tensor] = {}

    def take(place: str, layer: str, weight: str, axes: Sequence[int]) -> None:
        names = [f"{layer}/{weight}", *(f"{layer}/bn/{part}" for part in _NORM)]
        missing = [name for name in names if name not in left]
        if missing:
            raise InputError(f"{source}: lacks {missing[0]} of YAMNet; give the published yamnet.h5")
        kernel, beta, mean, variance = (left.pop(name).astype(np.float64) for name in names)
        if kernel.ndim != 4 or {norm.shape for norm in (beta, mean, variance)} != {(kernel.transpose(axes).shape[0],)}:
            raise InputError(f"{source}: {names[0]} has shape {kernel.shape}; give the published yamnet.h5")
        scale = 1.0 / np.sqrt(variance + _EPSILON)
        tensors[f"{place}.weight"] = torch.from_numpy(kernel.transpose(axes) * scale[:, None, None, None]).float()
        tensors[f"{place}.bias"] = torch.from_numpy(beta - mean * scale).float()

    take("conv", "layer1/conv", "kernel", (3, 2, 0, 1))
    for number in range(2, len(STRIDES) + 1):
        take(f"blocks.{number - 2}.depthwise", f"layer{number}/depthwise_conv", "depthwise_kernel", (2, 3, 0, 1))
        take(f"blocks.{number - 2}.pointwise", f"layer{number}/pointwise_conv", "kernel", (3, 2, 0, 1))
    if left:
        raise InputError(f"{source}: {next(iter(left))} does not belong to YAMNet; give the published yamnet.h5")
    return tensors


def _classifier(arrays: dict[str, np.ndarray], source: str | os.PathLike[str]) -> tuple[Tensor, Tensor]:
    """Weight ``(521, 1024)`` and bias of the classifier, whose name differs between releases."""
    names = [name for name in arrays if _is_dense(name, arrays)]
    kernels = [arrays[name] for name in names if arrays[name].ndim == 2]
    biases = [arrays[name] for name in names if arrays[name].ndim == 1]
    if len(kernels) != 1 or len(biases) != 1:
        raise InputError(f"{source}: has no classifier of YAMNet's; give the published yamnet.h5")
    return torch.from_numpy(kernels[0]).T.contiguous().float(), torch.from_numpy(biases[0]).float()


def _is_dense(name: str, arrays: dict[str, np.ndarray]) -> bool:
    kernel = arrays.get(f"{name.rpartition('/')[0]}/kernel")
    return kernel is not None and kernel.ndim == 2


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
