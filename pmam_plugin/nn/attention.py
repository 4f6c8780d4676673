"""Scaled dot-product attention, with relative positions where wanted, by the fastest way the device has.

Torch's fused attention is the way, but for two cases on CPUs: its backward pass does not know gradients of a bias (it
then falls back to whole matrices of logits in memory), and in bfloat16 it is no faster than in float32 on CPUs without
matrix units. Both are computed here block of rows by block of rows, so that logits never leave the cache, and the
backward pass computes them again instead of reading them back.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import Attention
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits of one block, all heads of a clip together: about what the caches of two cores hold.
_BLOCK_BYTES = 2**22
_SHORT = 128


class SelfAttention(Attention):
    """timm's self-attention, parameters and all, computed by :func:`attention`."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """``(batch, tokens, dim)`` to the same; ``attn_mask`` ``(tokens, tokens)`` is true where one sees another."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if attn_mask is None:
            attended = attention(query, key, value)
        else:
            attended = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
        return self.proj_drop(self.proj(attended.transpose(1, 2).flatten(2)))


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``softmax(q k' / sqrt(head_dim)) v`` for ``(batch, heads, length, head_dim)``."""
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.shape[2] > _SHORT and not _exporting():
        return _BlockwiseAttention.apply(query, key, value, None, None)
    return torch.nn.functional.scaled_dot_product_attention(query, key, value)


def relative_attention(query: Tensor, key: Tensor, value: Tensor, position: Tensor, distance: Tensor) -> Tensor:
    """Attention with logits ``(q_i . k_j + p_i . r_(i - j)) / sqrt(head_dim)`` (Dai et al., Transformer-XL, 2019).

    Args:
        query, key, value: ``(batch, heads, T, head_dim)``.
        position: what the query is compared to distances with, of the same shape.
        distance: encodings of the distances ``T - 1 ... -(T - 1)``, ``(heads, 2 T - 1, head_dim)``.

    Returns:
        ``(batch, heads, T, head_dim)``.
    """
    learning = torch.is_grad_enabled() and any(t.requires_grad for t in (query, position, distance))
    blockwise = learning or query.dtype == torch.bfloat16
    if query.device.type == "cpu" and blockwise and query.shape[2] > 1 and not _exporting():
        return _BlockwiseAttention.apply(query, key, value, position, distance)
    if query.device.type == "cpu" and not _exporting():
        # Logits by distance are twice as wide as the matrix of logits, 150 MB for a clip of 10 s: one clip's at a time.
        clips = zip(query.split(1), key.split(1), value.split(1), position.split(1), strict=True)
        return torch.cat([_biased_attention(q, k, v, p, distance) for q, k, v, p in clips])
    return _biased_attention(query, key, value, position, distance)


def _biased_attention(query: Tensor, key: Tensor, value: Tensor, position: Tensor, distance: Tensor) -> Tensor:
    """Torch's fused attention, with the logits by distance as its bias."""
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
    """The formulas above, one clip and one block of rows at a time."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, position: Tensor | None, distance: Tensor | None
    ) -> Tensor:
        scale = query.shape[-1] ** -0.5
        query, key, value = query * scale, key.contiguous(), value.contiguous()
        position = None if position is None else position * scale
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
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, position, distance, output = ctx.saved_tensors
        scale = query.shape[-1] ** -0.5
        gradient = gradient.contiguous()
        along = (gradient.float() * output).sum(dim=-1, keepdim=True).to(gradient.dtype)
        grad_query, grad_position = torch.empty_like(query), None if position is None else torch.empty_like(position)
        # Sums over blocks stay in float32 whatever the blocks are computed in.
        grad_key, grad_value = (torch.zeros_like(tensor, dtype=torch.float32) for tensor in (key, value))
        grad_distance = None if distance is None else torch.zeros_like(distance, dtype=torch.float32)
        for clip in range(query.shape[0]):
            for rows in _row_blocks(query):
                weights = _weights(query, key, position, distance, clip, rows)
                upstream = gradient[clip, :, rows]
                grad_value[clip] += weights.transpose(1, 2) @ upstream
                logits = (upstream @ value[clip].transpose(1, 2)).sub_(along[clip, :, rows]).mul_(weights)
                grad_query[clip, :, rows] = logits @ key[clip]
                grad_key[clip] += logits.transpose(1, 2) @ query[clip, :, rows]
                if grad_position is not None and grad_distance is not None:
                    band, columns = _band_of(logits), _columns(rows, query.shape[2])
                    grad_position[clip, :, rows] = band @ distance[:, columns]
                    grad_distance[:, columns] += band.transpose(1, 2) @ position[clip, :, rows]
        return (
            grad_query.mul_(scale),
            grad_key.to(key.dtype),
            grad_value.to(value.dtype),
            None if grad_position is None else grad_position.mul_(scale),
            None if grad_distance is None else grad_distance.to(distance.dtype),
        )


def _row_blocks(query: Tensor) -> list[slice]:
    """Rows whose logits fit in the cache."""
    _, heads, length, _ = query.shape
    rows = max(16, _BLOCK_BYTES // (heads * length * query.element_size()) // 16 * 16)
    return [slice(start, min(start + rows, length)) for start in range(0, length, rows)]


def _weights(
    query: Tensor, key: Tensor, position: Tensor | None, distance: Tensor | None, clip: int, rows: slice
) -> Tensor:
    """Softmax of the logits of some rows of one clip, ``(heads, rows, T)``."""
    logits = query[clip, :, rows] @ key[clip].transpose(1, 2)
    if position is not None and distance is not None:
        columns = _columns(rows, query.shape[2])
        band = position[clip, :, rows] @ distance[:, columns].transpose(1, 2)
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
