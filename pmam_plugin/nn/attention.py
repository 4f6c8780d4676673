"""Attention with relative positions, by the fastest way the device has.

Torch's fused attention takes the logits by distance as a bias, a whole matrix of them for every head, and its backward
pass on CPUs does not know gradients of a bias (it then falls back to plain matrix products). There
:class:`~pmam_plugin.nn.cpu.BlockwiseAttention` takes over. Attention without relative positions is torch's everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pmam_plugin.nn.cpu import BlockwiseAttention, skew


def relative_attention(query: Tensor, key: Tensor, value: Tensor, position: Tensor, distance: Tensor) -> Tensor:
    """Attention with logits ``(q_i . k_j + p_i . r_(i - j)) / sqrt(head_dim)`` (Dai et al., Transformer-XL, 2019).

    Args:
        query, key, value: ``(batch, heads, T, head_dim)``.
        position: what the query is compared to distances with, of the same shape.
        distance: encodings of the distances ``T - 1 ... -(T - 1)``, ``(heads, 2 T - 1, head_dim)``.

    Returns:
        ``(batch, heads, T, head_dim)``.
    """
    if query.device.type == "cpu" and query.shape[2] > 1 and not _exporting():
        return BlockwiseAttention.apply(query, key, value, position, distance)
    bias = skew(position @ distance.transpose(1, 2)) * query.shape[-1] ** -0.5
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def _exporting() -> bool:
    """Whether the model is being traced into a graph, which must not fix the number of blocks."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()
