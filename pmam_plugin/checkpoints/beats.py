"""Importer of BEATs: Microsoft's files (``cfg`` and ``model``), and the encoders inside PretrainedSED's detectors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pmam_plugin.checkpoints.foreign import (
    ImportReport,
    count_blocks,
    load_from_folder,
    read_checkpoint,
    renamed,
    tensors_in,
)
from pmam_plugin.encoders.beats import BEATs, BEATsEncoder
from pmam_plugin.errors import InputError
from pmam_plugin.weights import load_strictly

ORIGIN = "https://github.com/microsoft/unilm/tree/master/beats"
MARK = "patch_embedding.weight"
# Where each layout keeps the encoder.
_LAYOUTS = {"": "BEATs", "model.beats.": "PretrainedSED, BEATs", "model.model.": "PretrainedSED, BEATs"}
_OTHER_TASKS = re.compile(r"(predictor|strong_head|weak_head)\.(weight|bias)|seq_model\..+")
_BLOCK = r"encoder\.layers\.(\d+)\."
_RENAMES = (
    (r"patch_embedding\.weight", "patch_embed.weight"),
    (r"layer_norm\.(\w+)", r"patch_norm.\1"),
    (r"post_extract_proj\.(\w+)", r"patch_projection.\1"),
    (r"encoder\.pos_conv\.0\.bias", "position.bias"),
    (r"encoder\.pos_conv\.0\.(weight_g|parametrizations\.weight\.original0)", "position.gain"),
    (r"encoder\.pos_conv\.0\.(weight_v|parametrizations\.weight\.original1)", "position.direction"),
    (r"encoder\.layer_norm\.(\w+)", r"input_norm.\1"),
    (rf"{_BLOCK}self_attn\.relative_attention_bias\.weight", "distance.table.weight"),
    (rf"{_BLOCK}self_attn\.([qkv])_proj\.(\w+)", r"blocks.\1.attn.qkv.\3"),
    (rf"{_BLOCK}self_attn\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (rf"{_BLOCK}self_attn\.grep_linear\.(\w+)", r"blocks.\1.attn.gate.\2"),
    (rf"{_BLOCK}self_attn\.grep_a", r"blocks.\1.attn.gate_scale"),
    (rf"{_BLOCK}self_attn_layer_norm\.(\w+)", r"blocks.\1.norm1.\2"),
    (rf"{_BLOCK}final_layer_norm\.(\w+)", r"blocks.\1.norm2.\2"),
    (rf"{_BLOCK}(fc[12])\.(\w+)", r"blocks.\1.mlp.\2.\3"),
)
# What Microsoft's code assumes where a file's cfg is silent, and what this encoder is.
_ASSUMED = {"deep_norm": False, "max_distance": 1280}
_FIXED = {
    "relative_position_embedding": (False, True),
    "gru_rel_pos": (False, True),
    "layer_norm_first": (False, False),
}


def load_beats(encoder: BEATs | BEATsEncoder, source: str | os.PathLike[str]) -> ImportReport:
    """Load BEATs' weights, strictly; the frequency pooling, which BEATs does not have, stays as it is.

    Args:
        encoder: gets the weights.
        source: Microsoft's file (iter3, iter3+, fine-tuned or not), a PretrainedSED detector with a BEATs, or a folder
            that ``pmam import-checkpoint`` wrote.

    Raises:
        InputError: the file cannot be read or holds no BEATs, or one that is not of this size.
    """
    network = encoder.transformer if isinstance(encoder, BEATsEncoder) else encoder
    if report := load_from_folder(network, source):
        return report
    tensors, _, report = _read(source)
    load_strictly(network, tensors, source)
    return report


def import_beats(source: str | os.PathLike[str]) -> tuple[BEATsEncoder, ImportReport]:
    """The encoder of a file, in the size it has; layouts and errors as in :func:`load_beats`."""
    tensors, cfg, report = _read(source)
    encoder = BEATsEncoder(**encoder_size(tensors, cfg, source))
    load_strictly(encoder.transformer, tensors, source)
    return encoder, report


def rename_beats(
    state: Mapping[str, Tensor], source: str | os.PathLike[str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Published names to those of :class:`~pmam_plugin.encoders.beats.BEATs`.

    Queries, keys and values are joined; the table of distances, which every layer repeats, must everywhere be the same.

    Returns:
        The tensors, and published name -> name here of every tensor of ``state``.

    Raises:
        InputError: a name that is none of BEATs', a layer without one of the three, or tables that differ.
    """
    names_here = {name: _renamed(name, source) for name in state}
    sources: dict[str, list[str]] = {}
    for name, ours in names_here.items():
        sources.setdefault(ours, []).append(name)
    tensors = {}
    for ours, names in sources.items():
        if ".qkv." in ours:
            parts = [
                f"{names[0].rpartition('self_attn.')[0]}self_attn.{part}_proj.{ours.rpartition('.')[2]}"
                for part in "qkv"
            ]
            missing = [part for part in parts if part not in state]
            if missing:
                raise InputError(f"{source}: lacks {missing[0]} of BEATs; give another file")
            tensors[ours] = torch.cat([state[part] for part in parts])
            continue
        tensors[ours] = state[names[0]]
        if any(not torch.equal(state[name], tensors[ours]) for name in names[1:]):
            raise InputError(f"{source}: {names[0]} differs between layers, which share it in BEATs; give another file")
    return tensors, names_here


def encoder_size(
    tensors: Mapping[str, Tensor], cfg: Mapping[str, Any] | None, source: str | os.PathLike[str]
) -> dict[str, Any]:
    """Arguments of the :class:`~pmam_plugin.encoders.beats.BEATsEncoder` that such tensors fit.

    Args:
        tensors: named as in :class:`~pmam_plugin.encoders.beats.BEATs`.
        cfg: of Microsoft's files; None where there is none: then it is iter3's.
        source: the file, for messages.
    """
    for option, (assumed, needed) in _FIXED.items():
        if cfg is not None and bool(cfg.get(option, assumed)) != needed:
            raise InputError(
                f"{source}: is a BEATs with {option}={not needed}, which no published one has; give another file"
            )
    try:
        dim, patch_dim = tensors["patch_projection.weight"].shape
        _, group_dim, kernel = tensors["position.direction"].shape
        buckets, heads = tensors["distance.table.weight"].shape
        hidden = len(tensors["blocks.0.mlp.fc1.weight"])
    except (KeyError, ValueError) as error:
        raise InputError(f"{source}: lacks a part of BEATs ({error}); give another file") from error
    size = {
        "depth": count_blocks(tensors),
        "dim": dim,
        "heads": heads,
        "mlp_ratio": hidden / dim,
        "patch_dim": patch_dim,
        "position_kernel": kernel,
        "position_groups": dim // group_dim,
        "buckets": buckets,
    }
    settings = {} if cfg is None else {name: cfg.get(name, value) for name, value in _ASSUMED.items()}
    return size | settings


def _read(source: str | os.PathLike[str]) -> tuple[dict[str, Tensor], Mapping[str, Any] | None, ImportReport]:
    content = read_checkpoint(source, ORIGIN)
    nested = content.get("model", content)
    cfg = content.get("cfg")
    state = tensors_in(nested) if isinstance(nested, Mapping) else {}
    prefix = next((prefix for prefix in _LAYOUTS if f"{prefix}{MARK}" in state), None)
    if prefix is None:
        raise InputError(f"{source}: holds no BEATs encoder (no {MARK}); choose another --kind")
    skipped = tuple(name for name in state if _OTHER_TASKS.fullmatch(name))
    strange = [name for name in state if name not in skipped and not name.startswith(prefix)]
    if strange:
        raise InputError(f"{source}: {strange[0]} does not belong to BEATs; give another file")
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name not in skipped}
    tensors, names_here = rename_beats(inside, source)
    full = {f"{prefix}{name}": ours for name, ours in names_here.items()}
    report = ImportReport(str(source), _LAYOUTS[prefix], len(inside), full, skipped)
    return tensors, cfg if isinstance(cfg, Mapping) else None, report


def _renamed(name: str, source: str | os.PathLike[str]) -> str:
    ours = renamed(name, _RENAMES)
    if ours is None:
        raise InputError(f"{source}: {name} does not belong to BEATs; give another file")
    return ours
