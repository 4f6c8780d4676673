"""A frozen encoder under layers that learn; what it says of a clip can be stored, and is then not computed again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.encoders.base import EncoderOutput, FrameEncoder, Wanted
from pmam_plugin.nn.cpu import Dropout

STORED = "embeddings"
"""Name under which stored embeddings, ``(batch, encoder's dim, frames)``, take the place of features."""


@configurable
class FrozenEncoder(FrameEncoder):
    """``GELU(W (x - mean) / std)`` of another encoder's frames ``x``, which learns only where a stage thaws it.

    A stage thaws by its parameter groups (:class:`pmam_plugin.brains.ParameterGroup`), and reads sound.
    Mean and deviation are measured on the training clips (:class:`pmam_plugin.stages.Embed`), which also stores ``x``.
    Layers for ``embed``: the encoder's, and ``frozen``, the standardised ``x``, which alone is there when stored.

    Args:
        encoder: the one that is frozen.
        dim: width of the output.
        input_dropout: rate on the standardised embeddings.
        dropout: rate on the output.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: FrameEncoder, dim: int = 192, input_dropout: float = 0.1, dropout: float = 0.2) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.dim, self.frame_rate = dim, encoder.frame_rate
        self.layers, self.windowed = (*encoder.layers, "frozen"), encoder.windowed
        self.register_buffer("mean", torch.zeros(encoder.dim))
        self.register_buffer("std", torch.ones(encoder.dim))
        self.input_dropout, self.dropout = Dropout(input_dropout), Dropout(dropout)
        self.projection = nn.Linear(encoder.dim, dim)

    @property
    def learns(self) -> bool:
        """Whether anything of the encoder is thawed, so that what was stored of it no longer holds."""
        return any(parameter.requires_grad for parameter in self.encoder.parameters())

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """Those of the encoder."""
        return self.encoder.output_frames(feature_frames)

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted) -> EncoderOutput:
        """Encode the encoder's features, or its stored output under ``embeddings``; see :class:`FrameEncoder`.

        Raises:
            ValueError: a layer or windows that are not stored.
        """
        inner = [name for name in wanted.embed if name != "frozen"]
        if STORED not in features:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.learns):
                output = self.encoder(features, windows=wanted.windows, embed=inner, tokens=False)
            frames, embeddings = output.frames, dict(output.embeddings)
        elif inner or wanted.windows is not None:
            what = f"layer {inner[0]!r} is" if inner else "sliding windows are"
            raise ValueError(f"{what} not stored; of stored embeddings there is the layer 'frozen' alone")
        else:
            frames, embeddings = features[STORED].transpose(1, 2), {}
        embeddings["frozen"] = standard = (frames - self.mean) / self.std
        projected = self.projection(self.input_dropout(standard))
        return EncoderOutput(self.dropout(nn.functional.gelu(projected)), embeddings=embeddings)
