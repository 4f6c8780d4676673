"""The hidden layers of a model, all from one pass and on one time grid."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import torch
from torch import Tensor, nn

from pmam_plugin.errors import InputError
from pmam_plugin.models import Backbone
from pmam_plugin.models.sedt import SEDT


class HiddenLayers(Protocol):
    """What the upstream needs to know of a model.

    Attributes:
        names: of all layers, input side first.
        sample_rate: of the waveform, Hz.
        state_rate: of the states, frames per second.
        frame_rate: frames per second at which they should be reported.
    """

    names: tuple[str, ...]
    sample_rate: int
    state_rate: float
    frame_rate: float

    def __call__(self, waveform: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """The named layers' states, each ``(batch, frames, its width)``, of a waveform ``(batch, samples)``."""
        ...


def hidden_layers(model: nn.Module) -> HiddenLayers:
    """The layers of a model as it comes out of a model folder.

    Raises:
        InputError: a model without a backbone over waveforms.
    """
    if isinstance(model, SEDT):
        return SetLayers(model)
    backbone = model if isinstance(model, Backbone) else getattr(model, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise InputError(
            f"{type(model).__name__} turns no waveform into frames, so it is no upstream; give the folder of a detector"
        )
    return BackboneLayers(backbone)


class BackboneLayers:
    """Encoder layers, the encoder's output and every layer of the context network."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        # The taps of a frozen encoder are its layers once more, side by side, and many times as wide.
        self.names = tuple(name for name in backbone.layers if name != "frozen")
        self.sample_rate = backbone.sample_rate
        self.state_rate = self.frame_rate = backbone.frame_rate

    def __call__(self, waveform: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """See :class:`HiddenLayers`; what no named layer needs is not computed."""
        of_encoder = [name for name in self.backbone.encoder.layers if name in names]
        features = self.backbone.frontend(waveform)
        output = self.backbone.encoder(features, embed=of_encoder, tokens=False)
        states = {**output.embeddings, "encoder": output.frames}
        depth = max((int(name.removeprefix("context_")) for name in names if name.startswith("context_")), default=0)
        if depth:
            context = self.backbone.context.hidden_states(output.frames, depth=depth)
            states |= {f"context_{number}": state for number, state in enumerate(context, start=1)}
        return {name: states[name] for name in names}


class SetLayers:
    """The backbone (projected) and the encoder of SEDT, averaged over frequency.

    Their own grid is coarse, about six cells a second; the states are reported at the rate of the detector's scores.
    """

    names: tuple[str, ...] = ("projection", "encoder")

    def __init__(self, model: SEDT) -> None:
        self.model = model
        self.sample_rate, self.frame_rate = model.sample_rate, model.frame_rate
        self.state_rate = model.feature_rate / model.network.backbone.time_factor

    def __call__(self, waveform: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """See :class:`HiddenLayers`."""
        network = self.model.network
        features = network.backbone(self.model.frontend(waveform)["mel"])
        projected = network.input_projection(features).mean(dim=3).transpose(1, 2)
        memory = network.encode_features(features, span_frames=self.model.span_frames)
        states = {"projection": projected, "encoder": memory.over_time()}
        return {name: states[name] for name in names}


def same_width(states: list[Tensor]) -> list[Tensor]:
    """Append zeros to the narrower of some states ``(batch, frames, any width)``: nothing is lost, nothing invented."""
    width = max(state.shape[-1] for state in states)
    return [nn.functional.pad(state, (0, width - state.shape[-1])) for state in states]


def stack_rows(rows: list[Tensor], frames: int) -> Tensor:
    """Clips ``(their frames, width)`` as one tensor ``(batch, frames, width)``, zero past each clip's end."""
    return torch.stack([nn.functional.pad(row, (0, 0, 0, frames - len(row))) for row in rows])
