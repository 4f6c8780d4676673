"""Context networks: what looks at the whole sequence of fused frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.nn.attention import relative_attention
from pmam_plugin.nn.cpu import Dropout


class Context(nn.Module):
    """Base of the context networks.

    Attributes:
        dim: width of the output.
        depth: number of hidden states, the last of which is the output.
    """

    dim: int
    depth: int

    def forward(self, frames: Tensor) -> Tensor:
        """``(batch, frames, dim_in) -> (batch, frames, dim)``."""
        return self.hidden_states(frames)[-1]

    def hidden_states(self, frames: Tensor, depth: int | None = None) -> list[Tensor]:
        """The first ``depth`` hidden states (all by default), each ``(batch, frames, dim)``; no deeper layer runs."""
        raise NotImplementedError


@configurable
class IdentityContext(Context):
    """No context network: the encoder's frames go straight to the head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.depth = dim, 1

    def hidden_states(self, frames: Tensor, depth: int | None = None) -> list[Tensor]:
        """The frames themselves."""
        return [frames]


@configurable
class RecurrentContext(Context):
    """Bidirectional GRU.

    Args:
        input_dim: width of the frames.
        hidden: units of each direction; the output is twice as wide.
        layers: stacked GRUs.
        dropout: between the GRUs and on the output.
    """

    def __init__(self, input_dim: int, hidden: int = 256, layers: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim, self.depth = 2 * hidden, 1
        between = dropout if layers > 1 else 0.0
        self.gru = nn.GRU(input_dim, hidden, layers, batch_first=True, bidirectional=True, dropout=between)
        self.dropout = Dropout(dropout)

    def hidden_states(self, frames: Tensor, depth: int | None = None) -> list[Tensor]:
        """The output of the last GRU."""
        return [self.dropout(self.gru(frames)[0])]


@configurable
class RelativePositionTransformer(Context):
    """Transformer with relative positions (Dai et al., Transformer-XL, 2019), bidirectional, for any length.

    Args:
        dim: width.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: width of the feed-forward part in units of ``dim``.
        dropout: on the output of both parts of a block.
        normalized_residual: the published system adds the attention to the normalised stream instead of the stream
            itself; its weights need that, so it is the default. False is a plain pre-norm block.
    """

    def __init__(
        self,
        dim: int = 384,
        depth: int = 3,
        heads: int = 12,
        mlp_ratio: float = 1.0,
        dropout: float = 0.0,
        normalized_residual: bool = True,
    ) -> None:
        super().__init__()
        if dim % heads or dim % 2:
            raise ValueError(f"{dim} channels must be even and a multiple of the {heads} heads")
        self.dim, self.depth = dim, depth
        self.normalized_residual = normalized_residual
        self.blocks = nn.ModuleList(
            RelativeBlock(dim, heads, mlp_ratio, dropout, normalized_residual) for _ in range(depth)
        )

    def hidden_states(self, frames: Tensor, depth: int | None = None) -> list[Tensor]:
        """Outputs of the first ``depth`` blocks."""
        distances = relative_positions(frames.shape[1], self.dim, frames.device).to(frames.dtype)
        states = []
        # The published scaling; the first normalisation undoes it but for its epsilon.
        frames = frames * math.sqrt(self.dim) if self.normalized_residual else frames
        for block in self.blocks[:depth]:
            frames = block(frames, distances)
            states.append(frames)
        return states


class RelativeBlock(nn.Module):
    """Relative self-attention and a feed-forward part, each with its residual."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, dropout: float, normalized_residual: bool) -> None:
        super().__init__()
        hidden = round(dim * mlp_ratio)
        self.normalized_residual = normalized_residual
        self.norm1 = nn.LayerNorm(dim)
        self.attention = RelativeAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.dropout = Dropout(dropout)

    def forward(self, frames: Tensor, distances: Tensor) -> Tensor:
        """``(batch, frames, dim)`` and the encoded distances of :func:`relative_positions`."""
        normalised = self.norm1(frames)
        residual = normalised if self.normalized_residual else frames
        frames = residual + self.dropout(self.attention(normalised, distances))
        return frames + self.dropout(self.mlp(self.norm2(frames)))


class RelativeAttention(nn.Module):
    """Self-attention whose logits know how far apart two frames are.

    ``logit_ij = ((q_i + u) . k_j + (q_i + v) . r_{i-j}) / sqrt(head_dim)``, with ``r`` a projection of the encoded
    distance and ``u``, ``v`` learned per head.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_projection = nn.Linear(dim, 3 * dim)
        self.distance_projection = nn.Linear(dim, dim, bias=False)
        self.out_projection = nn.Linear(dim, dim)
        self.content_bias = nn.Parameter(torch.empty(heads, dim // heads))
        self.distance_bias = nn.Parameter(torch.empty(heads, dim // heads))
        for matrix in (self.in_projection.weight, self.content_bias, self.distance_bias):
            nn.init.xavier_uniform_(matrix)
        nn.init.zeros_(self.in_projection.bias)
        nn.init.zeros_(self.out_projection.bias)

    def forward(self, frames: Tensor, distances: Tensor) -> Tensor:
        """``(batch, T, dim)`` with ``distances`` ``(2 T - 1, dim)``."""
        query, key, value = self.in_projection(frames).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        distance = self.distance_projection(distances).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        content = query + self.content_bias.to(query.dtype)[:, None]
        position = query + self.distance_bias.to(query.dtype)[:, None]
        attended = relative_attention(content, key, value, position, distance)
        return self.out_projection(attended.transpose(1, 2).flatten(2))


def relative_positions(frames: int, dim: int, device: torch.device) -> Tensor:
    """Sinusoidal encoding of the distances ``frames - 1 ... -(frames - 1)``, ``(2 frames - 1, dim)``.

    Even channels hold ``sin(distance * w)``, odd ones ``cos``, with ``w = 10000^(-2m / dim)``.
    """
    distance = torch.arange(frames - 1, -frames, -1, device=device, dtype=torch.float32)
    frequency = torch.exp(torch.arange(0, dim, 2, device=device, dtype=torch.float32) * (-math.log(1e4) / dim))
    angle = distance[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)
