"""Importer of PretrainedSED's detectors (Schmid et al., 2024): AudioSet-strong's 447 classes every 40 ms.

Published are, for each encoder, a strong file (the detector), for some a weak one (a tagger, whose order of classes
nobody states) and a self-supervised one; of the last two the encoder is taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

from torch import Tensor, nn

from pmam_plugin.checkpoints import atst, beats
from pmam_plugin.checkpoints.foreign import (
    ImportReport,
    class_labels,
    count_blocks,
    load_from_folder,
    read_checkpoint,
    tensors_in,
    under,
)
from pmam_plugin.config import from_config
from pmam_plugin.encoders.base import FrameEncoder
from pmam_plugin.encoders.beats import BEATsEncoder
from pmam_plugin.encoders.frame_mn import rounded_width
from pmam_plugin.errors import InputError
from pmam_plugin.weights import load_strictly

ORIGIN = "https://github.com/fschmid56/PretrainedSED/releases"
MEDIAN_SECONDS = 0.36  # nine frames, the published filter
_WIDTHS = (0.4, 0.6, 1.0, 2.0, 3.0)
_HEADS = ("strong_head.weight", "strong_head.bias", "weak_head.weight", "weak_head.bias")
# Buffers of the front end, which is computed here.
_FRONT_END = "model.atst_mel."

Tensors = Mapping[str, Tensor]


class Encoder(NamedTuple):
    """A published encoder: its configuration and its state here, and published name -> name here."""

    config: dict[str, Any]
    state: dict[str, Tensor]
    names: dict[str, str]


@dataclass(frozen=True)
class Family:
    """One of the encoders.

    Attributes:
        name: as the authors call it.
        mark: a tensor that no other family has.
        prefixes: where files keep the encoder: renamed as the authors' loader does it, and as stored.
        frontend: configuration of the front end.
        encoder: (encoder's tensors as published, file for messages) -> the encoder here.
    """

    name: str
    mark: str
    prefixes: tuple[str, ...]
    frontend: Mapping[str, Any]
    encoder: Callable[[Tensors, str], Encoder]


@dataclass(frozen=True)
class _File:
    family: Family
    encoder: Encoder
    others: dict[str, Tensor]
    prefix: str

    @property
    def kind(self) -> str:
        if "strong_head.weight" in self.others:
            return "strong"
        return "weak" if "weak_head.weight" in self.others else "self-supervised"


def class_names() -> list[str]:
    """The 447 classes with training labels, alphabetical, in the order of the detectors' outputs."""
    return (resources.files(__package__) / "audioset_strong.txt").read_text(encoding="utf-8").splitlines()


def load_pretrained_sed(encoder: FrameEncoder, source: str | os.PathLike[str]) -> ImportReport:
    """Load the encoder of one of PretrainedSED's files, strictly.

    Args:
        encoder: of the file's family and size.
        source: the file, or the folder of a model that holds such an encoder.

    Raises:
        InputError: the file cannot be read, is none of PretrainedSED's, or holds another encoder.
    """
    if isinstance(encoder, BEATsEncoder):
        return beats.load_beats(encoder, source)  # which leaves its frequency pooling alone
    if report := load_from_folder(encoder, source):
        return report
    file = _read(source)
    if file.encoder.config["type"] != type(encoder).__name__:
        raise InputError(
            f"{source}: holds {file.family.name}, which does not fit {type(encoder).__name__}; give another file"
        )
    load_strictly(encoder, file.encoder.state, source)
    return _report(source, file)


def import_pretrained_sed(
    source: str | os.PathLike[str], labels: Sequence[str] | None = None
) -> tuple[nn.Module, ImportReport]:
    """The detector of a strong file, the encoder of a weak or a self-supervised one.

    A weak head is left out: clip scores here are pooled from the frames, and nobody says that strong files' were ever
    trained.

    Args:
        source: the published file, or one in the canonical names of the authors' loader.
        labels: class names in output order; None means AudioSet-strong's 447.

    Raises:
        InputError: the file cannot be read, is none of PretrainedSED's or one of a family that is not supported,
            tensors are missing, unexpected or of another shape, or there are not as many labels as classes.
    """
    file = _read(source)
    if file.kind != "strong":
        if labels is not None:
            raise InputError(f"{source}: is a {file.kind} file, whose encoder alone is imported; leave labels out")
        module = from_config(file.encoder.config)
        load_strictly(module, file.encoder.state, source)
        return module, _report(source, file)
    classes, width = file.others["strong_head.weight"].shape
    names = class_labels(labels, classes, source, class_names())
    model = from_config(_detector(file, names, width))
    state = {f"backbone.encoder.{name}": tensor for name, tensor in file.encoder.state.items()}
    extra = {"strong_head.weight": "head.classifier.weight", "strong_head.bias": "head.classifier.bias"}
    extra |= {
        name: name.replace("seq_model.rnn.", "backbone.context.gru.") for name in file.others if "seq_model." in name
    }
    load_strictly(
        model, state | {ours: file.others[name] for name, ours in extra.items() if name in file.others}, source
    )
    return model, _report(source, file, extra)


def _detector(file: _File, labels: Sequence[str], width: int) -> dict[str, Any]:
    built = from_config(file.encoder.config)
    recurrent = under(file.others, "seq_model.rnn.")
    context: dict[str, Any] = {"type": "IdentityContext", "dim": built.dim}
    if recurrent:
        layers = sum(name.startswith("weight_ih_l") and not name.endswith("_reverse") for name in recurrent)
        context = {"type": "RecurrentContext", "input_dim": built.dim, "hidden": width // 2, "layers": layers}
    frontend = {"type": "FrontEnds", built.feature: file.family.frontend}
    return {
        "type": "FrameDetector",
        "backbone": {"type": "Backbone", "frontend": frontend, "encoder": file.encoder.config, "context": context},
        "head": {"type": "LinearSoftmaxHead", "dim": width, "classes": len(labels)},
        "labels": list(labels),
    }


def _report(source: str | os.PathLike[str], file: _File, extra: Mapping[str, str] | None = None) -> ImportReport:
    full = {f"{file.prefix}{name}": ours for name, ours in file.encoder.names.items()} | dict(extra or {})
    skipped = tuple(name for name in file.others if name not in full)
    return ImportReport(str(source), f"PretrainedSED, {file.family.name}, {file.kind}", len(full), full, skipped)


def _read(source: str | os.PathLike[str]) -> _File:
    # Files of single small models were saved from a training module.
    state = {name.removeprefix("net."): tensor for name, tensor in tensors_in(read_checkpoint(source, ORIGIN)).items()}
    found = next(
        ((family, prefix) for family in _FAMILIES for prefix in family.prefixes if f"{prefix}{family.mark}" in state),
        None,
    )
    if found is None:
        other = next((name for name, marks in _UNSUPPORTED.items() if any(mark in state for mark in marks)), None)
        supported = ", ".join(family.name for family in _FAMILIES)
        is_one = (
            f"is PretrainedSED's {other}, which has no encoder here" if other else "is none of PretrainedSED's files"
        )
        raise InputError(f"{source}: {is_one}; give one of {supported}, or choose another --kind")
    family, prefix = found
    others = {name: t for name, t in state.items() if name in _HEADS or name.startswith(("seq_model.", _FRONT_END))}
    strange = [name for name in state if name not in others and not name.startswith(prefix)]
    if strange:
        raise InputError(f"{source}: {strange[0]} does not belong to {family.name}; give another file")
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name not in others}
    return _File(family, family.encoder(inside, str(source)), others, prefix)


def _atst(tensors: Tensors, source: str) -> Encoder:
    return _named({"type": "ATSTFrame", **atst.encoder_size(tensors, source)}, tensors)


def _fpasst(tensors: Tensors, source: str) -> Encoder:
    try:
        dim, _, mel_bins, _ = tensors["patch_embed.proj.weight"].shape
        time_tokens = tensors["time_new_pos_embed"].shape[-1]
    except (KeyError, ValueError) as error:
        raise InputError(f"{source}: lacks a part of fPaSST ({error}); give another file") from error
    sizes = {"depth": count_blocks(tensors), "dim": dim, "heads": max(1, dim // 64)}
    config = {"type": "FramePaSSTEncoder", **sizes, "mel_bins": mel_bins, "time_tokens": time_tokens}
    return _named(config, tensors, "transformer.")


def _frame_mn(tensors: Tensors, source: str) -> Encoder:
    channels = len(tensors.get("features.16.1.bias", ()))
    width = next((width for width in _WIDTHS if 6 * rounded_width(160 * width) == channels), None)
    if width is None:
        raise InputError(f"{source}: a frame_mn with {channels} outputs is none of the published; give another file")
    return _named({"type": "FrameMobileNetEncoder", "width": width}, tensors)


def _beats(tensors: Tensors, source: str) -> Encoder:
    renamed, names = beats.rename_beats(tensors, source)
    config = {"type": "BEATsEncoder", **beats.encoder_size(renamed, None, source), "pooling": "tokens"}
    encoder = _named(config, renamed, "transformer.")
    return encoder._replace(names={old: encoder.names[ours] for old, ours in names.items()})


def _named(config: dict[str, Any], tensors: Tensors, prefix: str = "") -> Encoder:
    """An encoder whose state has the names of ``tensors`` behind a prefix."""
    names = {name: f"{prefix}{name}" for name in tensors}
    return Encoder(config, {names[name]: tensor for name, tensor in tensors.items()}, names)


_FAMILIES = (
    Family("BEATs", beats.MARK, ("model.beats.", "model.model."), {"type": "KaldiMel"}, _beats),
    Family("ATST-Frame", "mask_embed", ("model.atst.",), {"type": "ATSTMel", "floor_db": None}, _atst),
    Family(
        "fPaSST", "conv_in_1.weight", ("model.fpasst.", "model."), {"type": "MobileNetMel", "periodic": True}, _fpasst
    ),
    Family(
        "frame_mn",
        "features.0.0.weight",
        ("model.frame_mn.", "model.fmn.", "model."),
        {"type": "MobileNetMel"},
        _frame_mn,
    ),
)
_UNSUPPORTED = {
    "M2D": ("model.backbone.patch_embed.proj.weight", "model.m2d.backbone.patch_embed.proj.weight"),
    "ASiT": ("model.patch_embed.proj.weight", "model.asit.patch_embed.proj.weight"),
}
