"""CTrans: a convolutional front and a Transformer encoder, the frame-based baseline of SEDT."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.encoders.base import EncoderOutput, FrameEncoder, Wanted, at_least
from pmam_plugin.nn.cnn import ConvStack
from pmam_plugin.nn.set_transformer import EncoderLayer, sine_positions, xavier_initialise


@configurable
class CTransEncoder(FrameEncoder):
    """Convolutions, then Transformer encoder layers over time (baseline of SP-SEDT, Table 1, E = 3 or 6).

    The layers are SEDT's own (pre-norm, sine positions at queries and keys); a head on top scores every frame. Time
    is counted in cells from 1, not as a share of the clip, so that clips of any length have the same positions.

    Args:
        backbone: convolutions that leave one frequency cell.
        mel_rate: mel frames per second.
        encoder_layers: number of layers.
        dim: token width.
        heads: attention heads.
        feedforward: hidden width of feed-forward parts.
        dropout: of the Transformer.
        feature: name of the front end's feature it reads.
    """

    def __init__(
        self,
        backbone: ConvStack,
        mel_rate: float,
        encoder_layers: int = 3,
        dim: int = 256,
        heads: int = 8,
        feedforward: int = 2048,
        dropout: float = 0.1,
        feature: str = "mel",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature, self.dim = feature, dim
        self.frame_rate = mel_rate / backbone.time_factor
        self.projection = nn.Linear(backbone.channels, dim)
        self.blocks = nn.ModuleList(EncoderLayer(dim, heads, feedforward, dropout) for _ in range(encoder_layers))
        self.norm = nn.LayerNorm(dim)
        self.layers = ("cnn", *(f"block_{index + 1}" for index in range(encoder_layers)))
        xavier_initialise(self.blocks)

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """See :class:`FrameEncoder`; never none."""
        return max(1, self.backbone.output_frames(feature_frames[self.feature]))

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted) -> EncoderOutput:
        """Encode ``features[feature]``, ``(batch, mel, frames)``; see :class:`FrameEncoder`.

        Raises:
            ValueError: a backbone that leaves more than one frequency cell.
        """
        maps = self.backbone(at_least(features[self.feature], self.backbone.time_factor))
        if maps.shape[3] != 1:
            raise ValueError(f"the backbone leaves {maps.shape[3]} frequency cells instead of 1")
        frames = self.projection(maps.squeeze(3).transpose(1, 2))
        embeddings = {"cnn": frames}
        positions = sine_positions(frames.shape[1], self.dim, 2 * math.pi, frames.device).to(frames.dtype)
        for number, block in enumerate(self.blocks, start=1):
            frames = block(frames, positions)
            embeddings[f"block_{number}"] = frames
        return EncoderOutput(self.norm(frames), embeddings=embeddings)
