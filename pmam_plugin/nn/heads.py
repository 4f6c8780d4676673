"""Small networks that turn embeddings into predictions."""

from __future__ import annotations

from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.nn.pooling import AttentionPool


@configurable
class PredictionHead(nn.Module):
    """Map context output into the space of the prototypes: linear, GELU, linear.

    Args:
        dim: width of the context output.
        output_dim: width of the prototypes.
    """

    def __init__(self, dim: int = 384, output_dim: int = 768) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, output_dim))
        self.output_dim = output_dim

    def forward(self, frames: Tensor) -> Tensor:
        """``(batch, frames, dim) -> (batch, frames, output_dim)``."""
        return self.layers(frames)


@configurable
class TagHead(nn.Module):
    """Clip-level probabilities from the encoder's tokens: attention pooling, linear, sigmoid.

    Args:
        token_dim: width of the tokens.
        classes: number of classes or prototypes.
        heads: attention heads of the pooling.
    """

    def __init__(self, token_dim: int = 768, classes: int = 10, heads: int = 12) -> None:
        super().__init__()
        self.pool = AttentionPool(token_dim, heads)
        self.classifier = nn.Linear(token_dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(batch, tokens, token_dim) -> (batch, classes)`` in [0, 1]."""
        return self.classifier(self.pool(tokens)).float().sigmoid()
