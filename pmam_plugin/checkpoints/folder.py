"""The model folder: what training writes, what the Hub holds and what s3prl loads.

``config.json`` (plain JSON, names classes of this package only) + ``model.safetensors`` + ``README.md`` (the card).
Nothing in it is executed, and nothing is loaded half: a tensor too many, too few or of another shape is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from pmam_plugin.checkpoints.card import model_card
from pmam_plugin.checkpoints.checks import check_detector, check_parts
from pmam_plugin.checkpoints.hub_folder import (
    BUILTIN,
    CARD_NAME,
    CONFIG_NAME,
    WEIGHTS_NAME,
    Fetching,
    fetch_model,
    model_folder,
    require_model,
)
from pmam_plugin.config import from_config, to_config
from pmam_plugin.errors import InputError, reason
from pmam_plugin.files import atomic_path, read_json, write_json
from pmam_plugin.postprocessing import Scoring
from pmam_plugin.weights import load_strictly, read_tensors

if TYPE_CHECKING:
    from typing_extensions import Unpack

FORMAT_VERSION = 1
# What a detector states about itself; an encoder alone has none of the first two.
_STATED = ("labels", "clip_seconds", "sample_rate", "frame_rate")


@dataclass
class LoadedModel:
    """A model folder in memory.

    Attributes:
        model: in evaluation mode, float32.
        scoring: how its output becomes scores and events.
        config: config.json as it was read.
    """

    model: Any
    scoring: Scoring = field(default_factory=Scoring)
    config: dict[str, Any] = field(default_factory=dict)


def save_model(
    folder: str | os.PathLike[str],
    model: nn.Module,
    scoring: Scoring | None = None,
    provenance: Mapping[str, Any] | None = None,
    half: bool = False,
) -> Path:
    """Write a model folder; each file appears whole or not at all, ``config.json`` last.

    Args:
        folder: made if missing; files of the same names are replaced, others left alone.
        model: a ``@configurable`` module (a detector, or an encoder alone).
        scoring: how its output becomes scores and events: post-processing and the forward's ``options`` (``windows``,
            ``temperature``) of the configuration. What thresholds were tuned by is not kept.
        provenance: plain values about where the weights come from (data, seed, commit, licence).
        half: store the parameters as float16 (half the size); they are float32 again after loading.

    Returns:
        The folder.

    Raises:
        InputError: the folder cannot be written, or a parameter does not fit float16 or is not finite.
        TypeError: the model holds something that a configuration cannot describe.
    """
    folder = Path(folder)
    config = model_config(model, scoring, provenance)
    tensors = _tensors_to_store(model, half, folder)
    try:
        with atomic_path(folder / WEIGHTS_NAME) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
    except SafetensorError as error:
        raise InputError(
            f"{folder / WEIGHTS_NAME}: cannot be written ({error}); free some space or choose another folder"
        ) from error
    with atomic_path(folder / CARD_NAME) as temporary:
        temporary.write_text(model_card(config), encoding="utf-8")
    write_json(folder / CONFIG_NAME, config)
    return folder


def load_model(
    source: str | os.PathLike[str] = BUILTIN,
    revision: str | None = None,
    device: str | torch.device | None = None,
    **fetching: Unpack[Fetching],
) -> LoadedModel:
    """A detector from a model folder or the Hub, in evaluation mode and float32; ``from_pretrained`` of plain models.

    Args:
        source: the folder (or its config.json or model.safetensors), a Hub id, or ``"builtin"``, the small model of
            the package.
        revision: branch, tag or commit of a Hub repository.
        device: where the model goes; None is the CPU.
        fetching: ``token``, ``cache_dir``, ``local_files_only``, ``force_download``; see
            :func:`~pmam_plugin.checkpoints.fetch_model`.

    Raises:
        InputError: there is no such model, or its files do not fit each other or this version.
    """
    folder = model_folder(fetch_model(source, revision, **fetching))
    return _with_weights(build_detector(_configuration(folder)), folder, device)


def load_module(source: str | os.PathLike[str], device: str | torch.device | None = None) -> LoadedModel:
    """Any module that :func:`save_model` wrote into a folder, an encoder alone included; see :func:`load_model`."""
    folder = model_folder(source)
    return _with_weights(build_module(_configuration(folder)), folder, device)


def build_detector(path: Path) -> LoadedModel:
    """The detector that a config.json describes, with initial weights.

    Raises:
        InputError: it describes none, or none of this version.
    """
    loaded = build_module(path)
    if any(not hasattr(loaded.model, name) for name in (*_STATED, "frontend", "score_tables")):
        kind = type(loaded.model).__name__
        raise InputError(
            f"{path}: holds {kind}, which is a part of a model and detects nothing alone; give a detector's folder"
        )
    check_detector(loaded.model, loaded.scoring.postprocessing, path)
    return loaded


def build_module(path: Path) -> LoadedModel:
    """The same for any module."""
    config = _read_config(path)
    try:
        model, postprocessing = from_config(config["model"]), from_config(config.get("postprocessing"))
        options = from_config(config.get("options") or {})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError, MemoryError, LookupError) as error:
        raise InputError(
            f"{path}: the model it describes cannot be built ({reason(error)}); fetch the folder again"
        ) from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{path}: {config['architecture']} is not a model; fetch the folder again")
    check_parts(postprocessing, options, config.get("provenance"), path)
    _check_statements(model, config, path)
    return LoadedModel(model, Scoring(postprocessing, **options), config)


def _with_weights(loaded: LoadedModel, folder: Path, device: str | torch.device | None) -> LoadedModel:
    load_weights(loaded.model, folder / WEIGHTS_NAME)
    loaded.model.to(device or "cpu").eval()
    return loaded


def _configuration(folder: Path) -> Path:
    """The config.json of a model folder that is there."""
    require_model(folder, folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model folder; check the name")
    return folder / CONFIG_NAME


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Copy a safetensors file into ``model``, strictly: every tensor, no other, each of its shape.

    Raises:
        InputError: the file is missing, malformed or does not fit; ``model`` is then unchanged.
    """
    tensors = read_tensors(path)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path}: {name} holds NaN or infinite values; fetch or train the model again")
    load_strictly(model, tensors, path)


def model_config(
    model: nn.Module, scoring: Scoring | None = None, provenance: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The content of config.json for ``model``."""
    stated = {name: getattr(model, name) for name in _STATED if hasattr(model, name)}
    if "labels" in stated:
        stated["labels"] = list(stated["labels"])
    return {
        "format_version": FORMAT_VERSION,
        "architecture": type(model).__name__,
        **stated,
        "model": to_config(model),
        "postprocessing": to_config(scoring and scoring.postprocessing),
        "options": to_config(scoring.options if scoring else {}),
        "provenance": to_config(dict(provenance or {})),
    }


def _read_config(path: Path) -> dict[str, Any]:
    config = read_json(path)
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict) or "type" not in config["model"]:
        raise InputError(
            f"{path}: not the configuration of a model of this package (it needs a 'model' with a 'type'); "
            "give a folder that training or pmam import-checkpoint wrote"
        )
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: format_version {version!r} is not {FORMAT_VERSION}, the one known here; update pmam_plugin"
        )
    named, built = config.get("architecture"), config["model"]["type"]
    if named != built:
        raise InputError(f"{path}: architecture is {named!r} but the model is {built!r}; fetch the folder again")
    return config


def _check_statements(model: nn.Module, config: Mapping[str, Any], path: Path) -> None:
    """The figures at the top of config.json are for readers; they may not contradict the model."""
    for name in _STATED:
        if name not in config or not hasattr(model, name):
            continue
        actual = getattr(model, name)
        actual = list(actual) if name == "labels" else actual
        if config[name] != actual:
            raise InputError(f"{path}: {name} is {config[name]!r} but the model has {actual!r}; fetch the folder again")


def _tensors_to_store(model: nn.Module, half: bool, folder: Path) -> dict[str, Tensor]:
    """State as contiguous CPU tensors that share no memory; parameters in float16 if ``half``.

    Buffers (batch-norm statistics, filterbanks) stay float32: they are small, and their range is not the weights'.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tensors = {}
    for name, tensor in model.state_dict().items():
        stored = tensor.detach().to("cpu", copy=True).contiguous()
        if stored.is_floating_point():
            stored = stored.to(torch.float16 if half and name in parameters else torch.float32)
            if not bool(torch.isfinite(stored).all()):
                width = "float16" if half else "float32"
                raise InputError(f"{folder}: {name} is not finite in {width}, nothing was saved; check the training")
        tensors[name] = stored
    return tensors
