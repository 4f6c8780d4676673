"""Front ends, encoder and context network: what pre-training trains and detectors stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.encoders.base import Columns, FrameEncoder
from pmam_plugin.features import FrontEnds
from pmam_plugin.nn.context import Context
from pmam_plugin.nn.windows import Windows


@dataclass
class BackboneOutput:
    """What a backbone returns.

    Attributes:
        frames: output of the context network, ``(batch, frames, dim)``.
        tokens: the encoder's, for the tag branch, ``(batch, tokens, token_dim)``, or None.
        encoded: what the context network read, ``(batch, frames, encoder's dim)``.
    """

    frames: Tensor
    tokens: Tensor | None
    encoded: Tensor


@configurable
class Backbone(nn.Module):
    """Everything before the head.

    Args:
        frontend: waveform to features.
        encoder: features to frames.
        context: frames to frames with a view of the whole clip.
    """

    pretrained_name = "backbone"

    def __init__(self, frontend: FrontEnds, encoder: FrameEncoder, context: Context) -> None:
        super().__init__()
        self.frontend, self.encoder, self.context = frontend, encoder, context

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveform, Hz."""
        return self.frontend.sample_rate

    @property
    def frame_rate(self) -> float:
        """Frames per second of the output."""
        return self.encoder.frame_rate

    @property
    def dim(self) -> int:
        """Width of the output."""
        return self.context.dim

    @property
    def layers(self) -> tuple[str, ...]:
        """Names :meth:`embed` knows: the encoder's layers, ``encoder`` and ``context_1`` upwards."""
        context = (f"context_{number}" for number in range(1, self.context.depth + 1))
        return (*self.encoder.layers, "encoder", *context)

    def pretrained_state(self) -> dict[str, Tensor]:
        """All of it; see :meth:`pmam_plugin.models.SoundEventModel.pretrained_state`."""
        return self.state_dict()

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Start from :meth:`pretrained_state`, strictly."""
        self.load_state_dict(state)

    def output_frames(self, samples: int) -> int:
        """Exact number of frames for a waveform of this many samples."""
        return self.encoder.output_frames(self.frontend.frames(samples))

    def forward(
        self,
        features: Mapping[str, Tensor],
        windows: Windows | None = None,
        tokens: bool = True,
    ) -> BackboneOutput:
        """Features to context output.

        Args:
            features: name -> ``(batch, mel, frames)``.
            windows: see :class:`FrameEncoder`.
            tokens: whether anything uses the tokens.
        """
        encoded = self.encoder(features, windows=windows, tokens=tokens)
        return BackboneOutput(self.context(encoded.frames), encoded.tokens, encoded.frames)

    def columns(self, features: Mapping[str, Tensor], layer: str) -> Columns | None:
        """What :meth:`embed` interpolates to give ``layer``, if the encoder does so; see :class:`FrameEncoder`."""
        return self.encoder.columns(features, layer) if layer in self.encoder.layers else None

    def embed(self, features: Mapping[str, Tensor], layer: str, windows: Windows | None = None) -> Tensor:
        """One layer's frame embeddings, ``(batch, frames, that layer's width)``; nothing is ever masked here.

        Args:
            features: name -> ``(batch, mel, frames)``.
            layer: one of ``layers``; nothing deeper is computed.
            windows: see :class:`FrameEncoder`.

        Raises:
            ValueError: there is no such layer.
        """
        if layer not in self.layers:
            raise ValueError(f"there is no layer {layer!r} to embed with; choose from {', '.join(self.layers)}")
        if layer in self.encoder.layers:
            return self.encoder(features, windows=windows, embed=(layer,), tokens=False).embeddings[layer]
        frames = self.encoder(features, windows=windows, tokens=False).frames
        if layer == "encoder":
            return frames
        return self.context.hidden_states(frames, depth=int(layer.removeprefix("context_")))[-1]
