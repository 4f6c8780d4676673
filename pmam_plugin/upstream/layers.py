"""The hidden layers of a model, all from one pass and on one time grid."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from pmam_plugin.errors import InputError
from pmam_plugin.models import Backbone
from pmam_plugin.models.sedt import SEDT


def hidden_layers(model: nn.Module) -> BackboneLayers | SetLayers:
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
    """Encoder layers, the encoder's output and every layer of the context network.

    Attributes:
        names: of all layers, input side first.
        sample_rate: of the waveform, Hz.
        state_rate: of the states, frames per second.
        frame_rate: frames per second at which they should be reported.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        # The taps of a frozen encoder are its layers once more, side by side, and many times as wide.
        self.names = tuple(name for name in backbone.layers if name != "frozen")
        self.sample_rate = backbone.sample_rate
        self.state_rate = self.frame_rate = backbone.frame_rate

    def __call__(self, waveform: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """The named layers' states, each ``(batch, frames, its width)``, of a waveform ``(batch, samples)``.

        What none of them needs is not computed.
        """
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
    """The backbone (projected) and the encoder of SEDT, averaged over frequency; attributes as of a backbone's layers.

    Their own grid is coarse, about six cells a second; the states are reported at the rate of the detector's scores.
    """

    names: tuple[str, ...] = ("projection", "encoder")

    def __init__(self, model: SEDT) -> None:
        self.model = model
        self.sample_rate, self.frame_rate = model.sample_rate, model.frame_rate
        self.state_rate = model.feature_rate / model.network.backbone.time_factor

    def __call__(self, waveform: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """See :class:`BackboneLayers`."""
        network = self.model.network
        features = network.backbone(self.model.frontend(waveform)["mel"])
        projected = network.input_projection(features).mean(dim=3).transpose(1, 2)
        memory = network.encode_features(features, span_frames=self.model.span_frames)
        states = {"projection": projected, "encoder": memory.over_time()}
        return {name: states[name] for name in names}
