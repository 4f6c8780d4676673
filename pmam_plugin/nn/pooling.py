"""From many vectors or scores to one: attention over frequency or tokens, linear softmax over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionPool(nn.Module):
    """Multi-head attention of one learned query over a set of vectors.

    The parameters are those of ``nn.MultiheadAttention`` with a learned query. As there is only one query, its keys and
    values need never be formed: the query is projected back into the input space (``softmax`` drops the key bias,
    which is equal for all positions) and the value projection follows the weighted sum. This is the same function at
    a small part of the cost.

    Args:
        dim: width of the vectors.
        heads: attention heads; must divide ``dim``.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} channels")
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(1, 1, dim))
        self.in_projection = nn.Linear(dim, 3 * dim)
        self.out_projection = nn.Linear(dim, dim)
        nn.init.normal_(self.query, std=0.02)
        nn.init.xavier_uniform_(self.in_projection.weight)
        nn.init.zeros_(self.in_projection.bias)
        nn.init.zeros_(self.out_projection.bias)

    def forward(self, vectors: Tensor, padding: Tensor | None = None) -> Tensor:
        """Pool ``(sets, vectors, dim)`` into ``(sets, dim)``; ``padding`` is true where a vector does not count."""
        dim = vectors.shape[-1]
        query_weight, key_weight, value_weight = self.in_projection.weight.view(3, self.heads, -1, dim).unbind(0)
        query_bias, _, value_bias = self.in_projection.bias.view(3, self.heads, -1).unbind(0)
        query = torch.einsum("hcd,d->hc", query_weight, self.query.flatten()) + query_bias
        probe = torch.einsum("hc,hcd->hd", query, key_weight) * query.shape[-1] ** -0.5
        logits = nn.functional.linear(vectors, probe).transpose(1, 2).float()
        if padding is not None:
            # A finite floor, so that a set without any valid vector gives a mean instead of NaN.
            logits = logits.masked_fill(padding[:, None, :], torch.finfo(logits.dtype).min)
        weighted = logits.softmax(dim=-1).to(vectors.dtype) @ vectors
        pooled = torch.einsum("nhd,hcd->nhc", weighted, value_weight) + value_bias
        return self.out_projection(pooled.flatten(1))


class FrequencyAttentionPool(AttentionPool):
    """Attention of one learned query over the frequency patches of each time step."""

    def forward(self, vectors: Tensor, padding: Tensor | None = None) -> Tensor:
        """Pool ``(batch, frequencies, time, dim)`` into ``(batch, time, dim)``."""
        batch, _, time, _ = vectors.shape
        return super().forward(vectors.transpose(1, 2).flatten(0, 1), padding).unflatten(0, (batch, time))


def linear_softmax_pool(scores: Tensor, padding: Tensor | None = None) -> Tensor:
    """Pool frame scores into clip scores, each frame weighted by its own score.

    ``clip = sum_t s_t^2 / sum_t s_t`` (Wang, Li and Metze, ICASSP 2019): confident frames dominate, and the gradient
    of an inactive frame stays small.

    Args:
        scores: frame probabilities in [0, 1], ``(batch, frames, classes)``.
        padding: true where a frame is padding, ``(batch, frames)``.

    Returns:
        Clip probabilities, ``(batch, classes)``; zero for a clip without any valid frame.
    """
    if padding is not None:
        scores = scores.masked_fill(padding.unsqueeze(-1), 0.0)
    total = scores.sum(dim=1)
    return scores.square().sum(dim=1) / total.clamp_min(torch.finfo(total.dtype).tiny)
