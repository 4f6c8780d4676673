"""Importer of PMAM's published checkpoints (Transformer4SED): detectors, and models from masked pre-training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pmam_plugin.checkpoints.foreign import (
    DESED_LABELS,
    ImportReport,
    load_strictly,
    read_checkpoint,
    tensors_in,
    under,
)
from pmam_plugin.checkpoints.transformer4sed import rename_keys
from pmam_plugin.config import from_config
from pmam_plugin.errors import InputError

_TRANSFORMER = "backbone.encoder.transformer.transformer."


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
    renamed = {origin[id(tensor)]: name for name, tensor in tensors.items()}
    skipped = tuple(name for name in foreign if name not in renamed)
    return model, ImportReport(str(source), layout, len(tensors), renamed, skipped)


def _backbone_config(tensors: Mapping[str, Tensor], source: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        dim, token_dim = tensors["backbone.encoder.transformer_projection.weight"].shape
        positions = tensors[f"{_TRANSFORMER}time_new_pos_embed"].shape[-1]
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{source}: no PMAM model (its projection or positions are missing); give another file"
        ) from error
    depth = len({name.split(".")[0] for name in under(tensors, f"{_TRANSFORMER}blocks.")})
    context = len({name.split(".")[0] for name in under(tensors, "backbone.context.blocks.")})
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
    names = list(DESED_LABELS if labels is None else labels)
    if len(names) != classes:
        raise InputError(f"{source}: {classes} classes but {len(names)} labels; name them all, in order")
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
