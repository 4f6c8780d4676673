"""Importers of ATST-Frame encoders in every published layout, and of whole ATST-SED detectors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from pmam_plugin.checkpoints.foreign import (
    CNN_RENAMES,
    ImportReport,
    class_labels,
    count_blocks,
    load_from_folder,
    read_checkpoint,
    renamed,
    tensors_in,
    under,
)
from pmam_plugin.config import from_config, to_config
from pmam_plugin.encoders.atst import ATSTFrame
from pmam_plugin.encoders.atst_sed import dcase_cnn
from pmam_plugin.errors import InputError
from pmam_plugin.weights import load_strictly

# Where each layout keeps the encoder, in the order in which they are told apart: a later prefix begins an earlier one.
_ENCODER_LAYOUTS = {
    "model.teacher.encoder.": "ATST-Frame self-supervised, teacher",
    "encoder.encoder.frame_encoder.": "ATST-C2F",
    "encoder.encoder.": "ATST-Frame tuned on AudioSet",
    "model.atst.": "PretrainedSED",
    "sed_teacher.atst_frame.atst.": "ATST-SED, teacher",
    "atst_frame.atst.": "ATST-SED",
    "": "bare ATST-Frame encoder",
}
# What a profiler left behind, and the class token of early versions, which the frame model has no place for.
_RESIDUE = re.compile(r"(^|\.)(total_ops|total_params)$|^cls_token$")
_OLD_NORM = re.compile(r"^norm\.")
_SED_RENAMES = (
    *CNN_RENAMES,
    (r"cat_tf\.(.+)", r"backbone.encoder.merge.\1"),
    (r"atst_frame\.atst\.(.+)", r"backbone.encoder.atst.\1"),
    (r"rnn\.rnn\.(.+)", r"backbone.context.gru.\1"),
    (r"dense\.(.+)", r"head.classifier.\1"),
    (r"dense_softmax\.(.+)", r"head.attention.\1"),
)


def load_atst_frame(encoder: ATSTFrame, source: str | os.PathLike[str]) -> ImportReport:
    """Load an ATST-Frame encoder's weights, strictly.

    Args:
        encoder: gets the weights.
        source: a checkpoint in any published layout, or a folder that ``pmam import-checkpoint`` wrote.

    Raises:
        InputError: the file cannot be read or holds no such encoder, or not one of this size.
    """
    if report := load_from_folder(encoder, source):
        return report
    tensors, report = _encoder_tensors(source)
    load_strictly(encoder, tensors, source)
    return report


def import_atst_frame(source: str | os.PathLike[str]) -> tuple[ATSTFrame, ImportReport]:
    """The ATST-Frame encoder of a checkpoint, in the size of its tensors; layouts as in :func:`load_atst_frame`.

    Raises:
        InputError: the file cannot be read or holds no such encoder.
    """
    tensors, report = _encoder_tensors(source)
    encoder = ATSTFrame(**encoder_size(tensors, source))
    load_strictly(encoder, tensors, source)
    return encoder, report


def import_atst_sed(
    source: str | os.PathLike[str], labels: Sequence[str] | None = None, student: bool = False
) -> tuple[Any, ImportReport]:
    """A whole ATST-SED detector (223 tensors), stage 1 or 2.

    Args:
        source: the Lightning checkpoint, or a flat dictionary of the model's own keys.
        labels: class names in output order; None means DESED's ten.
        student: take the student instead of the teacher.

    Returns:
        The detector and the report.

    Raises:
        InputError: the file cannot be read, tensors are missing, unexpected or of another shape, or there are not as
            many labels as classes.
    """
    chosen = "sed_student" if student else "sed_teacher"
    content = read_checkpoint(source)
    state = tensors_in(content.get("state_dict", content))
    if any(name.startswith(f"{chosen}.") for name in state):
        tensors, layout = under(state, f"{chosen}."), f"ATST-SED, {chosen[4:]}"
    elif isinstance(content.get(chosen), Mapping):
        tensors, layout = tensors_in(content[chosen]), f"ATST-SED, {chosen[4:]}"
    elif "cat_tf.weight" in state:
        tensors, layout = state, "ATST-SED"
    else:
        raise InputError(f"{source}: holds no ATST-SED model (no cat_tf.weight); choose another --kind")
    skipped = [name for name in state if not name.startswith(f"{chosen}.")] if tensors is not state else []
    residue = [name for name in tensors if _RESIDUE.search(name.removeprefix("atst_frame.atst."))]
    names = {name: renamed(name, _SED_RENAMES) or name for name in tensors if name not in residue}
    ours = {names[name]: tensors[name] for name in names}
    model = from_config(_sed_config(ours, labels, source))
    load_strictly(model, ours, source)
    return model, ImportReport(str(source), layout, len(names), names, tuple(skipped + residue))


def _encoder_tensors(source: str | os.PathLike[str]) -> tuple[dict[str, Tensor], ImportReport]:
    content = read_checkpoint(source)
    nested = content.get("state_dict", content)
    if not isinstance(nested, Mapping):
        raise InputError(f"{source}: its state_dict is not a dictionary of tensors; give another file")
    state = tensors_in(nested)
    prefix = next((p for p in _ENCODER_LAYOUTS if f"{p}pos_embed" in state), None)
    if prefix is None:
        raise InputError(f"{source}: holds no ATST-Frame encoder (no pos_embed); choose another --kind")
    inside = under(state, prefix)
    kept = {name: _OLD_NORM.sub("norm_frame.", name) for name in inside if not _RESIDUE.search(name)}
    tensors = {new: inside[old] for old, new in kept.items()}
    changed = {prefix + old: new for old, new in kept.items() if prefix + old != new}
    skipped = tuple(name for name in state if name.removeprefix(prefix) not in kept or not name.startswith(prefix))
    return tensors, ImportReport(str(source), _ENCODER_LAYOUTS[prefix], len(tensors), changed, skipped)


def encoder_size(tensors: Mapping[str, Tensor], source: str | os.PathLike[str]) -> dict[str, Any]:
    """Constructor arguments of the encoder that these tensors belong to; heads are always 64 wide."""
    try:
        _, entries, dim = tensors["pos_embed"].shape
        _, patch = tensors["patch_embed.patch_embed.weight"].shape
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{source}: not an ATST-Frame encoder (no usable position or patch embedding); give another file"
        ) from error
    sizes = {"n_mels": patch // 4, "max_tokens": entries - 1}
    return {"dim": dim, "depth": count_blocks(tensors), "heads": max(1, dim // 64), **sizes}


def _sed_config(
    tensors: Mapping[str, Tensor], labels: Sequence[str] | None, source: str | os.PathLike[str]
) -> dict[str, Any]:
    """Configuration of the detector that these (renamed) tensors belong to."""
    atst = encoder_size(under(tensors, "backbone.encoder.atst."), source)
    classes = len(tensors.get("head.classifier.weight", ()))
    width = tensors["backbone.encoder.merge.weight"].shape[0]
    return {
        "type": "FrameDetector",
        "backbone": {
            "type": "Backbone",
            "frontend": {"type": "FrontEnds", "crnn": {"type": "CRNNMel"}, "atst": {"type": "ATSTMel"}},
            "encoder": {
                "type": "ATSTSEDEncoder",
                "cnn": to_config(dcase_cnn()),
                "atst": {"type": "ATSTFrame", **atst},
                "dim": width,
            },
            "context": {"type": "RecurrentContext", "input_dim": width, "hidden": 128, "layers": 2},
        },
        "head": {"type": "AttentionHead", "dim": 256, "classes": classes},
        "labels": class_labels(labels, classes, source),
    }
