"""Two encoders side by side: a Transformer for what sounds, a CNN for when."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.encoders.base import Columns, EncoderOutput, FrameEncoder, Wanted
from pmam_plugin.nn.interpolate import interpolate_frames


@configurable
class DualBranchEncoder(FrameEncoder):
    """PMAM's encoder: ``P_t(transformer) + w P_c(cnn)``, both projected to one width.

    The CNN's frames are put on the Transformer's grid at the fixed ratio of the two frame rates, so that both stay
    aligned for clips of any length. ``embed`` knows the layers of the Transformer. Sliding windows concern the
    Transformer only.

    Args:
        transformer: gives the frame rate and the tokens of the tag branch.
        cnn: the second branch.
        dim: width of the sum.
        merge_weight: initial ``w``; learned.
    """

    def __init__(self, transformer: FrameEncoder, cnn: FrameEncoder, dim: int = 384, merge_weight: float = 0.5) -> None:
        super().__init__()
        self.transformer, self.cnn = transformer, cnn
        self.transformer_projection = nn.Linear(transformer.dim, dim)
        self.cnn_projection = nn.Linear(cnn.dim, dim)
        self.merge_weight = nn.Parameter(torch.full((1,), merge_weight))
        self.dim, self.token_dim = dim, transformer.token_dim
        self.frame_rate, self.layers = transformer.frame_rate, transformer.layers
        self.windowed = transformer.windowed

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """Frames of the Transformer."""
        return self.transformer.output_frames(feature_frames)

    def columns(self, features: Mapping[str, Tensor], layer: str) -> Columns | None:
        """The Transformer's."""
        return self.transformer.columns(features, layer)

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted) -> EncoderOutput:
        """See :class:`FrameEncoder`."""
        output = self.transformer(features, wanted.windows, wanted.embed, wanted.tokens)
        # Projected before the interpolation: the same result, since both are linear, from a quarter of the frames.
        local = self.cnn_projection(self.cnn(features).frames)
        ratio = self.transformer.frame_rate / self.cnn.frame_rate
        local = interpolate_frames(local, output.frames.shape[1], ratio=ratio)
        fused = self.transformer_projection(output.frames)
        return EncoderOutput(fused + self.merge_weight.to(fused.dtype) * local, output.tokens, output.embeddings)
