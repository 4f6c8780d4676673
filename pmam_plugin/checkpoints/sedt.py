"""Importer of SEDT's published checkpoints: detectors, SP-SEDT pre-training and the audio-tagging backbone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pmam_plugin.checkpoints.foreign import (
    DESED_LABELS,
    ImportReport,
    class_labels,
    read_checkpoint,
    tensors_in,
)
from pmam_plugin.config import from_config
from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json
from pmam_plugin.nn.query_decoder import SetNetwork
from pmam_plugin.weights import load_strictly

# Reference name -> name here, first match wins; heads are SEDT's (class, tags) or SP-SEDT's (patch).
_RENAMES = (
    (r"^transformer\.(encoder|decoder)\.", r"network.\1."),
    (r"^backbone\.0\.body\.conv0\.", "network.backbone.conv0."),
    (r"^backbone\.0\.body\.", "network.backbone.body."),
    (r"^input_proj\.", "network.input_projection."),
    (r"^bbox_embed\.layers\.0\.", "network.interval_head.layers.0."),
    (r"^bbox_embed\.layers\.1\.", "network.interval_head.layers.2."),
    (r"^bbox_embed\.layers\.2\.", "network.interval_head.layers.4."),
    (r"^class_embed\.", "class_head."),
    (r"^weak_class_embed\.", "tag_head."),
    (r"^patch2query\.", "patch_projection."),
    (r"^feature_align\.layers\.0\.", "feature_head.0."),
    (r"^feature_align\.layers\.1\.", "feature_head.2."),
    (r"^body\.conv0\.", "backbone.conv0."),
    (r"^body\.", "backbone.body."),
    (r"^weak_label\.", "head."),
)
# Clip-level pooling of event classes, which no published recipe uses, and statistics the reference does not keep.
_UNUSED = re.compile(r"^(attn|pooling|weighted_sum)")
_NOT_STORED = (r"num_batches_tracked$", r"^frontend\.")
_FRONTEND = {"type": "FrontEnds", "mel": {"type": "SEDTMel"}}
# (blocks per stage, bottleneck) of the ResNets timm and torchvision share.
_RESNETS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
}


def import_any_sedt(
    source: str | os.PathLike[str],
    labels: Sequence[str] | None = None,
    statistics: str | os.PathLike[str] | None = None,
    teacher: bool = False,
) -> tuple[nn.Module, ImportReport]:
    """What a checkpoint of the reference holds: a detector, SP-SEDT's pretext model, or the audio tagger.

    Raises:
        InputError: none of these; labels for the pretext model, which has no classes; or see the three importers.
    """
    tensors = _read(source, teacher)
    names = set(tensors)
    if "patch2query.weight" in names and "weak_class_embed.weight" not in names:
        if labels is not None:
            raise InputError(
                f"{source}: is an SP-SEDT pre-training checkpoint, which has no classes; leave the labels out"
            )
        # Ten patches share the published queries evenly; a file says how many queries it has, not how many patches.
        queries = len(tensors["query_embed.weight"]) if "query_embed.weight" in names else 10
        return import_sp_sedt(source, statistics, patches=10 if queries % 10 == 0 else 1)
    if "weak_label.2.weight" in names:
        return import_sedt_tagger(source, labels or DESED_LABELS, statistics)
    return import_sedt(source, labels, statistics, teacher)


def import_sedt(
    source: str | os.PathLike[str],
    labels: Sequence[str] | None = None,
    statistics: str | os.PathLike[str] | None = None,
    teacher: bool = False,
) -> tuple[nn.Module, ImportReport]:
    """Build a SEDT from a checkpoint of the reference implementation.

    Sizes (encoder and decoder layers, queries, classes, ResNet) are read off the tensors; heads are 32 wide. The
    reference keeps the statistics of its front end in a JSON file beside the checkpoint; without ``statistics`` the
    imported model's front end does not standardise, and its scores on audio are meaningless.

    Args:
        source: ``{"model": {"state_dict": ...}}``, ``{"model": ...}`` or the flat dictionary; or safetensors.
        labels: class names in the order of the checkpoint; default DESED's ten, in alphabetical order.
        statistics: the reference's JSON with ``mean_`` and ``mean_of_square_`` per band.
        teacher: take the averaged weights (``ema_model``) of a semi-supervised checkpoint.

    Returns:
        The model (:class:`~pmam_plugin.models.sedt.SEDT`) in evaluation mode, and what became of every tensor.

    Raises:
        InputError: not such a checkpoint, a pre-training one, tensors missing or unknown, or labels that do not fit.
    """
    tensors = _read(source, teacher)
    if "weak_class_embed.weight" not in tensors:
        kind = "an SP-SEDT pre-training" if "patch2query.weight" in tensors else "no SEDT"
        raise InputError(f"{source}: is {kind} checkpoint; give a fine-tuned SEDT (it has weak_class_embed)")
    names = class_labels(labels, len(tensors["weak_class_embed.weight"]), source)
    network = _network(tensors, source, audio_queries=1)
    config = {"type": "SEDT", "frontend": _FRONTEND, "network": network, "labels": names}
    return _build(config, tensors, source, statistics, "SEDT")


def import_sp_sedt(
    source: str | os.PathLike[str], statistics: str | os.PathLike[str] | None = None, patches: int = 10
) -> tuple[nn.Module, ImportReport]:
    """Build the pretext model from a pre-training checkpoint of the reference, to fine-tune or go on pre-training.

    Args:
        source: as for :func:`import_sedt`.
        statistics: as for :func:`import_sedt`.
        patches: patches per clip it was trained with.

    Raises:
        InputError: not such a checkpoint, or tensors missing or unknown.
    """
    tensors = _read(source, teacher=False)
    if "patch2query.weight" not in tensors:
        raise InputError(f"{source}: is no SP-SEDT pre-training checkpoint (it lacks patch2query); give another file")
    network = _network(tensors, source, audio_queries=0)
    config = {
        "type": "SPSEDT",
        "frontend": _FRONTEND,
        "network": network,
        "sampler": {"type": "PatchSampler", "patches": patches},
        "legacy_double_query": True,
    }
    return _build(config, tensors, source, statistics, "SP-SEDT")


def load_sp_sedt(network: SetNetwork, source: str | os.PathLike[str]) -> ImportReport:
    """Fill a set network with what an SP-SEDT pre-training checkpoint of the reference has learned.

    Raises:
        InputError: not such a checkpoint, or one of another size.
    """
    pretext, report = import_sp_sedt(source, patches=1)
    load_strictly(network, pretext.get_submodule("network").state_dict(), source, ignore=_NOT_STORED)
    return report


def import_sedt_tagger(
    source: str | os.PathLike[str],
    labels: Sequence[str] = DESED_LABELS,
    statistics: str | os.PathLike[str] | None = None,
) -> tuple[nn.Module, ImportReport]:
    """Build the audio tagger, whose backbone pre-training starts from, from a checkpoint of the reference.

    Raises:
        InputError: not such a checkpoint, tensors missing or unknown, or labels that do not fit.
    """
    tensors = _read(source, teacher=False)
    if "weak_label.2.weight" not in tensors:
        raise InputError(f"{source}: is no audio-tagging checkpoint (it lacks weak_label); give another file")
    classes, hidden = _size(tensors, "weak_label.2.weight", source)
    config = {
        "type": "AudioTagger",
        "frontend": _FRONTEND,
        "backbone": {"type": "SpectrogramResNet", "name": _resnet_name(tensors, "body.", source), "frozen": []},
        "labels": class_labels(labels, classes, source),
        "hidden": hidden,
    }
    return _build(config, tensors, source, statistics, "SEDT audio tagger")


def read_band_statistics(path: str | os.PathLike[str]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per mel band from the reference's JSON.

    Raises:
        InputError: the file is missing or lacks the two lists.
    """
    content = read_json(path)
    try:
        mean = torch.tensor(content["mean_"], dtype=torch.float64).flatten()
        squares = torch.tensor(content["mean_of_square_"], dtype=torch.float64).flatten()
        deviation = (squares - mean.square()).clamp_min(1e-12).sqrt()
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path}: needs lists mean_ and mean_of_square_ of one number per mel band; give the file of the training"
        ) from error
    return mean.float(), deviation.float()


def _read(source: str | os.PathLike[str], teacher: bool) -> dict[str, Tensor]:
    content = read_checkpoint(source)
    key = "ema_model" if teacher else "model"
    if teacher and not isinstance(content.get(key), Mapping):
        raise InputError(f"{source}: holds no ema_model; import it without the teacher option")
    if isinstance(content.get(key), Mapping):
        content = content[key]
    if isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors_in(content).items()}
    if not any(".layer1.0.conv1.weight" in f".{name}" for name in tensors):
        raise InputError(f"{source}: holds no SEDT (its ResNet is missing); give a checkpoint of the reference")
    return tensors


def _size(tensors: Mapping[str, Tensor], name: str, source: str | os.PathLike[str]) -> torch.Size:
    if name not in tensors:
        raise InputError(f"{source}: lacks {name}; give a whole checkpoint of the reference")
    return tensors[name].shape


def _network(tensors: Mapping[str, Tensor], source: str | os.PathLike[str], audio_queries: int) -> dict[str, Any]:
    queries, dim = _size(tensors, "query_embed.weight", source)
    return {
        "type": "SetNetwork",
        "backbone": {"type": "SpectrogramResNet", "name": _resnet_name(tensors, "backbone.0.body.", source)},
        "queries": queries - audio_queries,
        "dim": dim,
        "heads": max(1, dim // 32),
        "encoder_layers": _count(tensors, r"^transformer\.encoder\.layers\.(\d+)\."),
        "decoder_layers": _count(tensors, r"^transformer\.decoder\.layers\.(\d+)\."),
        "feedforward": _size(tensors, "transformer.encoder.layers.0.linear1.weight", source)[0],
    }


def _resnet_name(tensors: Mapping[str, Tensor], prefix: str, source: str | os.PathLike[str]) -> str:
    blocks = tuple(_count(tensors, rf"^{re.escape(prefix)}layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    name = _RESNETS.get((blocks, f"{prefix}layer1.0.conv3.weight" in tensors))
    if name is None:
        known = ", ".join(_RESNETS.values())
        raise InputError(f"{source}: has a ResNet with {blocks} blocks, not one of {known}; give another file")
    return name


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for name in tensors if (found := re.match(pattern, name))})


def _build(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    source: str | os.PathLike[str],
    statistics: str | os.PathLike[str] | None,
    layout: str,
) -> tuple[nn.Module, ImportReport]:
    model = from_config(config).eval()
    renamed: dict[str, str] = {}
    state: dict[str, Tensor] = {}
    skipped = []
    for name, tensor in tensors.items():
        if name == "query_embed.weight":
            first = 1 if hasattr(model, "audio_query") else 0
            renamed[name] = "network.event_queries"
            state |= {"network.event_queries": tensor[first:]} | ({"audio_query": tensor[:1]} if first else {})
        elif _UNUSED.match(name) or name.endswith("num_batches_tracked"):
            skipped.append(name)
        else:
            renamed[name] = next((re.sub(old, new, name) for old, new in _RENAMES if re.match(old, name)), name)
            state[renamed[name]] = tensor
    load_strictly(model, state, source, ignore=_NOT_STORED)
    if statistics is not None:
        _set_statistics(model.frontend.front_ends["mel"], statistics)
    changed = {old: new for old, new in renamed.items() if old != new}
    return model, ImportReport(str(source), layout, len(state), changed, tuple(skipped))


def _set_statistics(mel: nn.Module, path: str | os.PathLike[str]) -> None:
    for name, values in zip(("mean", "std"), read_band_statistics(path)):
        buffer = mel.get_buffer(name)
        if values.shape != buffer.shape:
            raise InputError(f"{path}: has {len(values)} bands, not {len(buffer)}; give the checkpoint's own file")
        buffer.copy_(values)
