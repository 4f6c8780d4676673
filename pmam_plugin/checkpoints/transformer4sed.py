"""Importer of PMAM's published checkpoints: detectors, and models from masked pre-training.

They are state dictionaries of the PMAM reference (github.com/cai525/Transformer4SED).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pmam_plugin.checkpoints.foreign import (
    CNN_RENAMES,
    ImportReport,
    class_labels,
    count_blocks,
    read_checkpoint,
    renamed,
    tensors_in,
)
from pmam_plugin.config import from_config
from pmam_plugin.errors import InputError
from pmam_plugin.weights import load_strictly

_TRANSFORMER = "backbone.encoder.transformer.transformer."
_ATTENTION_POOL = (
    (r"\w*att_token", "query"),
    (r"\w+\.in_proj_(weight|bias)", r"in_projection.\1"),
    (r"\w+\.out_proj\.(weight|bias)", r"out_projection.\1"),
)
_BLOCK = "backbone.context.blocks."
# Reference name -> ours; {tags} is where the tag branch lives, {head} the frame classifier.
_RENAMES = (
    (r"backbone\.(\w+_token|\w+_embed|patch_embed\..+|blocks\..+|norm\..+)", rf"{_TRANSFORMER}\1"),
    (r"out_norm\.(.+)", r"backbone.encoder.transformer.out_norm.\1"),
    *((rf"f_pool_module\.{theirs}", f"backbone.encoder.transformer.pool.{ours}") for theirs, ours in _ATTENTION_POOL),
    *((rf"at_adpater\.0\.{theirs}", f"{{tags}}.pool.{ours}") for theirs, ours in _ATTENTION_POOL),
    (r"at_adpater\.1\.(.+)", r"{tags}.classifier.\1"),
    *CNN_RENAMES,
    (r"(cnn|transformer)_projector\.(.+)", r"backbone.encoder.\1_projection.\2"),
    (r"merge_weight", "backbone.encoder.merge_weight"),
    (r"decoder\.encoder_blocks\.(\d+)\.(norm[12]\..+)", rf"{_BLOCK}\1.\2"),
    (r"decoder\.encoder_blocks\.(\d+)\.attn\.pos_bias_u", rf"{_BLOCK}\1.attention.content_bias"),
    (r"decoder\.encoder_blocks\.(\d+)\.attn\.pos_bias_v", rf"{_BLOCK}\1.attention.distance_bias"),
    (r"decoder\.encoder_blocks\.(\d+)\.attn\.linear_pos\.(.+)", rf"{_BLOCK}\1.attention.distance_projection.\2"),
    (r"decoder\.encoder_blocks\.(\d+)\.attn\.(in|out)_proj\.(.+)", rf"{_BLOCK}\1.attention.\2_projection.\3"),
    (r"decoder\.encoder_blocks\.(\d+)\.mlp\.fc1\.(.+)", rf"{_BLOCK}\1.mlp.0.\2"),
    (r"decoder\.encoder_blocks\.(\d+)\.mlp\.fc2\.(.+)", rf"{_BLOCK}\1.mlp.2.\2"),
    (r"mlm_mlp\.(.+)", r"head.layers.\1"),
    (r"mask_token", "mask_token"),
    (r"classifier\.(.+)", r"{head}.\1"),
)
# AudioSet's heads are never used, and adapters were merged into the weights before the file was written: applying
# them again would count them twice.
_LEFT_OUT = re.compile(r"backbone\.head(_dist)?\.|.*\.lora_[AB]$")


def import_transformer4sed(
    source: str | os.PathLike[str], labels: Sequence[str] | None = None
) -> tuple[nn.Module, ImportReport]:
    """The model of a Transformer4SED PMAM checkpoint: a detector, or a ``MaskedModel`` from pre-training.

    The reference places the Transformer's frames 30 ms early and adds attention to the normalised stream; the imported
    model does the same, as its weights were trained that way.

    Args:
        source: ``best_student.pt`` or ``best_teacher.pt`` (315 tensors), or the pre-training's ``best_model.pt`` (420).
        labels: class names in output order; None means DESED's ten. A pre-training model has none.

    Returns:
        The model and what became of every tensor.

    Raises:
        InputError: the file cannot be read, holds tensors missing, unknown or of another shape, or has not as many
            classes as labels.
    """
    content = read_checkpoint(source)
    foreign = tensors_in(content.get("state_dict", content))
    try:
        tensors = rename_keys(foreign)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    backbone = _backbone_config(tensors, source)
    if "mask_token" in tensors:
        config, layout = _masked_config(backbone, tensors), "Transformer4SED, pre-training"
    else:
        config, layout = _detector_config(backbone, tensors, labels, source), "Transformer4SED, detector"
    model = from_config(config)
    load_strictly(model, tensors, source)
    # Renaming keeps the tensors themselves, so that each one tells where it came from.
    origin = {id(tensor): name for name, tensor in foreign.items()}
    names = {origin[id(tensor)]: name for name, tensor in tensors.items()}
    skipped = tuple(name for name in foreign if name not in names)
    return model, ImportReport(str(source), layout, len(tensors), names, skipped)


def rename_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state of the reference to ours.

    A pre-training state (420 tensors, recognised by its ``mlm_mlp``) becomes one of ``MaskedModel``, a fine-tuned one
    (315 tensors) one of ``FrameDetector`` with ``LinearSoftmaxHead``; what belongs to the backbone has the same names
    in both. Left out are AudioSet's heads, merged adapters and the classifier of a pre-training state, which was never
    trained. The model has to be built with ``centred_patches=False`` and ``normalized_residual=True``.

    Args:
        state: name -> tensor; a ``module.`` prefix of all names is removed.

    Raises:
        InputError: a name that is none of the reference's.
    """
    names = {name: name.removeprefix("module.") for name in state}
    masked = any(name.startswith("mlm_mlp.") for name in names.values())
    places = {"tags": "tag_head", "head": None} if masked else {"tags": "head.tagger", "head": "head.classifier"}
    state_here = {}
    for name, plain in names.items():
        ours = None if _LEFT_OUT.match(plain) else renamed(plain, _RENAMES)
        if ours is None:
            if not _LEFT_OUT.match(plain):
                raise InputError(f"{name} is no tensor of a Transformer4SED PMAM checkpoint; give a file of that model")
        elif not (masked and ours.startswith("{head}")):
            state_here[ours.format(**places)] = state[name]
    return state_here


def _backbone_config(tensors: Mapping[str, Tensor], source: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        dim, token_dim = tensors["backbone.encoder.transformer_projection.weight"].shape
        positions = tensors[f"{_TRANSFORMER}time_new_pos_embed"].shape[-1]
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{source}: no PMAM model (its projection or positions are missing); give another file"
        ) from error
    depth, context = count_blocks(tensors, f"{_TRANSFORMER}blocks."), count_blocks(tensors, _BLOCK)
    transformer = {
        "type": "PaSSTEncoder",
        "centred_patches": False,
        "depth": depth,
        "layer": min(10, depth),
        "dim": token_dim,
        "heads": max(1, token_dim // 64),
        "pooling_heads": max(1, token_dim // 128),
        "time_patches": positions,
    }
    return {
        "type": "Backbone",
        "frontend": {"type": "FrontEnds", "mel": {"type": "PaSSTMel"}},
        "encoder": {
            "type": "DualBranchEncoder",
            "transformer": transformer,
            "cnn": {"type": "CNNEncoder"},
            "dim": dim,
        },
        "context": {
            "type": "RelativePositionTransformer",
            "dim": dim,
            "depth": context,
            "heads": max(1, dim // 32),
            "normalized_residual": True,
        },
    }


def _detector_config(
    backbone: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    labels: Sequence[str] | None,
    source: str | os.PathLike[str],
) -> dict[str, Any]:
    classes = len(tensors.get("head.classifier.weight", ()))
    names = class_labels(labels, classes, source)
    token_dim = backbone["encoder"]["transformer"]["dim"]
    head = {
        "type": "LinearSoftmaxHead",
        "dim": backbone["encoder"]["dim"],
        "classes": classes,
        "token_dim": token_dim,
        "tag_heads": max(1, token_dim // 64),
    }
    return {"type": "FrameDetector", "backbone": backbone, "head": head, "labels": names}


def _masked_config(backbone: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    token_dim = backbone["encoder"]["transformer"]["dim"]
    return {
        "type": "MaskedModel",
        "backbone": backbone,
        "masking": {"type": "BlockMasking"},
        "head": {"type": "PredictionHead", "dim": backbone["encoder"]["dim"], "output_dim": token_dim},
        "tag_head": {
            "type": "TagHead",
            "token_dim": token_dim,
            "classes": len(tensors.get("tag_head.classifier.weight", ())),
            "heads": max(1, token_dim // 64),
        },
    }
