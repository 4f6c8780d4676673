"""Attention with relative positions, by the fastest way the device has.

Torch's fused attention takes the logits by distance as a bias, a whole matrix of them for every head, and its backward
pass on CPUs does not know gradients of a bias (it then falls back to plain matrix products). On CPUs attention is
therefore computed here block of rows by block of rows, so that logits never leave the cache, and the backward pass
computes them again instead of reading them back. Attention without relative positions is torch's everywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits of one block, all heads of a clip together: about what the caches of two cores hold.
_BLOCK_BYTES = 2**22


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
        return _BlockwiseAttention.apply(query, key, value, position, distance)
    bias = skew(position @ distance.transpose(1, 2)) * query.shape[-1] ** -0.5
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def skew(by_distance: Tensor) -> Tensor:
    """Turn logits by distance into logits by position, as a view.

    Args:
        by_distance: ``(..., T, 2 T - 1)``; column ``m`` of row ``i`` belongs to the distance ``T - 1 - m``.

    Returns:
        ``(..., T, T)`` whose element ``i, j`` belongs to the distance ``i - j``: row ``i`` starts at column
        ``T - 1 - i``, hence reading rows that are one element shorter straightens the diagonal.
    """
    length = by_distance.shape[-2]
    if length == 1:
        return by_distance
    flat = by_distance.flatten(-2)[..., length - 1 :][..., : length * (2 * length - 2)]
    return flat.unflatten(-1, (length, 2 * length - 2))[..., :length]


class _BlockwiseAttention(torch.autograd.Function):
    """:func:`relative_attention`, one clip and one block of rows at a time."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, position: Tensor, distance: Tensor) -> Tensor:
        scale = query.shape[-1] ** -0.5
        query, key, value, position = query * scale, key.contiguous(), value.contiguous(), position * scale
        batch, heads, length, dim = query.shape
        output = query.new_empty(batch, length, heads, dim).transpose(1, 2)
        for clip in range(batch):
            for rows in _row_blocks(query):
                weights = _weights(query, key, position, distance, clip, rows)
                output[clip, :, rows] = weights @ value[clip]
        ctx.save_for_backward(query, key, value, position, distance, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        query, key, value, position, distance, output = ctx.saved_tensors
        scale = query.shape[-1] ** -0.5
        gradient = gradient.contiguous()
        along = (gradient.float() * output).sum(dim=-1, keepdim=True).to(gradient.dtype)
        grad_query, grad_position = torch.empty_like(query), torch.empty_like(position)
        # Sums over blocks stay in float32 whatever the blocks are computed in.
        grad_key, grad_value, grad_distance = (
            torch.zeros_like(tensor, dtype=torch.float32) for tensor in (key, value, distance)
        )
        for clip in range(query.shape[0]):
            for rows in _row_blocks(query):
                weights = _weights(query, key, position, distance, clip, rows)
                upstream = gradient[clip, :, rows]
                grad_value[clip] += weights.transpose(1, 2) @ upstream
                logits = (upstream @ value[clip].transpose(1, 2)).sub_(along[clip, :, rows]).mul_(weights)
                grad_query[clip, :, rows] = logits @ key[clip]
                grad_key[clip] += logits.transpose(1, 2) @ query[clip, :, rows]
                band, columns = _band_of(logits), _columns(rows, query.shape[2])
                grad_position[clip, :, rows] = band @ distance[:, columns]
                grad_distance[:, columns] += band.transpose(1, 2) @ position[clip, :, rows]
        return (
            grad_query.mul_(scale),
            grad_key.to(key.dtype),
            grad_value.to(value.dtype),
            grad_position.mul_(scale),
            grad_distance.to(distance.dtype),
        )


def _row_blocks(query: Tensor) -> list[slice]:
    """Rows whose logits fit in the cache."""
    _, heads, length, _ = query.shape
    rows = max(16, _BLOCK_BYTES // (heads * length * query.element_size()) // 16 * 16)
    return [slice(start, min(start + rows, length)) for start in range(0, length, rows)]


def _weights(query: Tensor, key: Tensor, position: Tensor, distance: Tensor, clip: int, rows: slice) -> Tensor:
    """Softmax of the logits of some rows of one clip, ``(heads, rows, T)``."""
    logits = query[clip, :, rows] @ key[clip].transpose(1, 2)
    band = position[clip, :, rows] @ distance[:, _columns(rows, query.shape[2])].transpose(1, 2)
    logits += _straightened(band)
    return logits.softmax(dim=-1)


def _columns(rows: slice, length: int) -> slice:
    """The distances that some rows meet: ``stop - 1`` down to ``start - (length - 1)``."""
    return slice(length - rows.stop, 2 * length - 1 - rows.start)


def _straightened(band: Tensor) -> Tensor:
    """:func:`skew` for some rows: ``(heads, rows, T + rows - 1)`` seen as ``(heads, rows, T)``, a view."""
    heads, rows, columns = band.shape
    return band.as_strided((heads, rows, columns - rows + 1), (rows * columns, columns - 1, 1), rows - 1)


def _band_of(logits: Tensor) -> Tensor:
    """The inverse of :func:`_straightened`, zero where no pair of frames has the distance."""
    heads, rows, length = logits.shape
    band = logits.new_zeros(heads, rows, length + rows - 1)
    _straightened(band).copy_(logits)
    return band


def _exporting() -> bool:
    """Whether the model is being traced into a graph, which must not fix the number of blocks."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
