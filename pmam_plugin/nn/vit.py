"""The Transformer block of ViT (Dosovitskiy et al., ICLR 2021): norm before attention, norm before MLP.

Computation, parameter names and initial values are timm's, so that published weights fit. It is here because importing
timm brings torchvision and torch's compiler along, more than half of the time to a first detection.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class DropPath(nn.Module):
    """Leave out a residual branch, clip by clip, in training (stochastic depth; Huang et al., ECCV 2016).

    Args:
        drop_prob: share of clips that lose the branch; the others' is scaled up.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, branch: Tensor) -> Tensor:
        """``(batch, ...)`` of the same shape."""
        if not (self.training and self.drop_prob):
            return branch
        keep = 1 - self.drop_prob
        kept = branch.new_empty((len(branch), *[1] * (branch.ndim - 1))).bernoulli_(keep)
        return branch * (kept / keep if keep else kept)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int, qkv_bias: bool, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"a width of {dim} cannot be shared by {heads} heads; choose a multiple")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """``(batch, tokens, dim)``; ``attn_mask`` is true where a token may attend."""
        batch, length, dim = tokens.shape
        query, key, value = self.qkv(tokens).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        heard = functional.scaled_dot_product_attention(query, key, value, attn_mask)
        return self.proj_drop(self.proj(heard.transpose(1, 2).reshape(batch, length, dim)))


class MLP(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.drop1, self.drop2 = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(batch, tokens, dim)``."""
        return self.drop2(self.fc2(self.drop1(functional.gelu(self.fc1(tokens)))))


class Block(nn.Module):
    """One layer of a ViT.

    Args:
        dim: width of the tokens.
        num_heads: attention heads.
        mlp_ratio: width of the MLP's middle as a multiple of ``dim``.
        qkv_bias: whether queries, keys and values have biases.
        proj_drop: dropout after attention and in the MLP.
        drop_path: rate of stochastic depth.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        proj_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = SelfAttention(dim, num_heads, qkv_bias, proj_drop)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, int(dim * mlp_ratio), proj_drop)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, tokens: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """``(batch, tokens, dim)``; ``attn_mask`` ``(tokens, tokens)`` is true where a token may attend."""
        tokens = tokens + self.drop_path1(self.attn(self.norm1(tokens), attn_mask))
        return tokens + self.drop_path2(self.mlp(self.norm2(tokens)))
