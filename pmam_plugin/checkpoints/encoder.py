"""The encoder of any model folder, with the front ends it reads, as a start for another model."""

from __future__ import annotations

import os

from pmam_plugin.checkpoints.folder import load_module
from pmam_plugin.checkpoints.hub_folder import fetch_model
from pmam_plugin.config import from_config, to_config
from pmam_plugin.encoders import FrameEncoder, FrozenEncoder
from pmam_plugin.errors import InputError
from pmam_plugin.features import FrontEnds

# What an encoder reads whose folder holds it alone, as ``pmam import-checkpoint`` writes it.
_FRONT_ENDS = {
    "ATSTFrame": "ATSTMel",
    "BEATsEncoder": "KaldiMel",
    "PaSSTEncoder": "PaSSTMel",
    "YAMNetEncoder": "YAMNetMel",
}


def encoder_of(source: str | os.PathLike[str]) -> FrameEncoder:
    """The frame encoder of a detector, a backbone, or a folder that holds it alone, with its weights.

    Args:
        source: a model folder, a Hub id, or ``"builtin"``.

    Raises:
        InputError: there is no such folder, or what it holds encodes no frames (a SEDT).
    """
    return _parts(source)[1]


def front_ends_of(source: str | os.PathLike[str]) -> FrontEnds:
    """What :func:`encoder_of` the same source reads; errors as there."""
    return _parts(source)[0]


def load_encoder(frozen: FrozenEncoder, source: str | os.PathLike[str]) -> None:
    """Load what :func:`encoder_of` the source holds into the encoder that is frozen, strictly; errors as there."""
    found = encoder_of(source)
    if to_config(found) != to_config(frozen.encoder):
        raise InputError(
            f"{source}: holds another {type(found).__name__} than the experiment's; name the folder it names"
        )
    frozen.encoder.load_state_dict(found.state_dict())


def _parts(source: str | os.PathLike[str]) -> tuple[FrontEnds, FrameEncoder]:
    model = load_module(fetch_model(source)).model
    backbone = getattr(model, "backbone", model)
    encoder = getattr(backbone, "encoder", backbone)
    if isinstance(encoder, FrozenEncoder):
        encoder = encoder.encoder
    front_ends = getattr(backbone, "frontend", None)
    kind = type(encoder).__name__
    if front_ends is None and kind in _FRONT_ENDS:
        front_ends = FrontEnds(**{encoder.feature: from_config({"type": _FRONT_ENDS[kind]})})
    if not isinstance(encoder, FrameEncoder) or not isinstance(front_ends, FrontEnds):
        raise InputError(
            f"{source}: {type(model).__name__} has no encoder of frames to start from; give a detector of frames, or "
            "what pmam import-checkpoint makes of a published encoder"
        )
    return front_ends, encoder
