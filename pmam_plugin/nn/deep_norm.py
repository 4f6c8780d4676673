"""Post-norm Transformer layers that know distances by gated buckets: those of BEATs (Chen et al., ICML 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmam_plugin.nn.vit import MLP, SelfAttention


def distance_buckets(distance: Tensor, buckets: int = 320, max_distance: int = 800) -> Tensor:
    """Buckets of distances (key minus query): half of them for each sign, exact near by and logarithmic far off.

    A quarter of the buckets are single distances; the widths of the next quarter grow up to ``max_distance``, beyond
    which all distances share the last bucket (T5, Raffel et al., 2020). Any shape.
    """
    half, exact = buckets // 2, buckets // 4
    far = distance.abs()
    # In single precision, like the networks that learned with it: borders of buckets depend on the rounding.
    growth = (far.clamp(min=exact).float() / exact).log() / math.log(max_distance / exact) * (half - exact)
    logarithmic = (exact + growth.long()).clamp(max=half - 1)
    return (distance > 0).long() * half + torch.where(far < exact, far, logarithmic)


class DistanceBias(nn.Module):
    """Learned logits of every distance, one per head, that all layers share.

    Args:
        heads: attention heads.
        buckets: number of entries, see :func:`distance_buckets`.
        max_distance: where buckets end, tokens.
    """

    def __init__(self, heads: int, buckets: int = 320, max_distance: int = 800) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.table = nn.Embedding(buckets, heads)

    def forward(self, length: int) -> Tensor:
        """``(heads, length, length)``: row t, column j belong to query t and key j."""
        index = torch.arange(length, device=self.table.weight.device)
        distance = torch.arange(1 - length, length, device=index.device)
        by_distance = self.table(distance_buckets(distance, self.table.num_embeddings, self.max_distance))
        return by_distance.T[:, index - index[:, None] + length - 1]


class GatedAttention(SelfAttention):
    """Self-attention whose queries decide how much distances count: logits ``q k / sqrt(head_dim) + gate(q) bias``.

    ``gate = a (b s - 1) + 2`` with ``a`` and ``b`` in (0, 1) from the query and ``s`` learned per head (WavLM, Chen et
    al., 2022, eq. 4).
    """

    def __init__(self, dim: int, heads: int, attention_dropout: float = 0.0) -> None:
        super().__init__(dim, heads, qkv_bias=True, dropout=0.0)
        self.attention_dropout = attention_dropout
        self.gate = nn.Linear(dim // heads, 8)
        self.gate_scale = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        """``(batch, tokens, dim)`` with the ``bias`` of :class:`DistanceBias`."""
        assert bias is not None
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        logits = self.gates(query).to(query.dtype) * bias.to(query.dtype)
        dropout = self.attention_dropout if self.training else 0.0
        heard = functional.scaled_dot_product_attention(query, key, value, logits, dropout)
        return self.proj(heard.transpose(1, 2).flatten(2))

    def gates(self, query: Tensor) -> Tensor:
        """Between 1 and 2 at first: what multiplies a query's row of the bias, ``(batch, heads, tokens, 1)``."""
        opened = self.gate(query).unflatten(-1, (2, 4)).sum(dim=-1).sigmoid()
        reset, update = opened.split(1, dim=-1)
        return reset * (update * self.gate_scale - 1.0) + 2.0


class DeepNormBlock(nn.Module):
    """``x = norm(scale x + attention(x))``, then ``x = norm(scale x + mlp(x))``.

    Args:
        dim: width.
        heads: attention heads.
        mlp_ratio: width of the MLP's middle as a multiple of ``dim``.
        scale: of the residual stream; ``(2 depth)^(1/4)`` keeps deep stacks stable (Wang et al., DeepNet, 2022).
        dropout: of both branches, and of attention weights.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float, scale: float, dropout: float) -> None:
        super().__init__()
        self.scale = scale
        self.attn, self.norm1 = GatedAttention(dim, heads, dropout), nn.LayerNorm(dim)
        self.mlp, self.norm2 = MLP(dim, round(dim * mlp_ratio), 0.0), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """``(batch, tokens, dim)`` with the ``bias`` of :class:`DistanceBias`."""
        tokens = self.norm1(tokens * self.scale + self.dropout(self.attn(tokens, bias)))
        return self.norm2(tokens * self.scale + self.dropout(self.mlp(tokens)))


class PositionConvolution(nn.Module):
    """What stands around a token, by a grouped convolution and GELU, to be added to it (wav2vec 2.0).

    The kernel is weight-normalised tap by tap: ``gain_k direction_k / |direction_k|``, the norm over both channels.

    Args:
        dim: width.
        kernel: taps, even; the token is at the tap ``kernel / 2``.
        groups: of channels.
    """

    def __init__(self, dim: int, kernel: int = 128, groups: int = 16) -> None:
        super().__init__()
        self.groups, self.padding = groups, kernel // 2
        self.direction = nn.Parameter(torch.empty(dim, dim // groups, kernel))
        nn.init.normal_(self.direction, std=math.sqrt(4.0 / (kernel * dim)))
        self.gain = nn.Parameter(self.direction.detach().norm(dim=(0, 1), keepdim=True))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """``(batch, tokens, dim)``."""
        around = functional.conv1d(
            tokens.transpose(1, 2), self.kernel(), self.bias, padding=self.padding, groups=self.groups
        )
        return functional.gelu(around[..., : tokens.shape[1]]).transpose(1, 2)

    def kernel(self) -> Tensor:
        """The normalised weights, ``(dim, dim / groups, kernel)``."""
        return self.gain * self.direction / self.direction.norm(dim=(0, 1), keepdim=True)
