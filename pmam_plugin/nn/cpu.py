"""Kernels for CPUs: what torch does there in more time or memory than it takes.

``benchmarks/cpu.py`` measures the gains given here: CPU time of the plain way over ours, one core of an AMD EPYC with
AVX2, float32, both ways in turn, medians with quartiles.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_LEVELS = 2**16
# Logits of one block, all heads of a clip together: about what the caches of two cores hold.
_BLOCK_BYTES = 2**22
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let this process keep what tensors have given back for the next ones: 1.9 times as fast, where those are large.

    By default every tensor of some megabytes is new memory, which the kernel zeroes page by page and takes back at
    once. Glibc only, elsewhere nothing changes; for programs that train, as the kept memory is no one else's. (Measured
    before and after, not in turn.)
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


class Dropout(nn.Dropout):
    """Torch's dropout; on CPUs four elements share a 64-bit draw: 2.2 and 4.7 times as fast in two runs.

    There torch draws one number per element on a single core, which took half of the training step of a convolutional
    network. 16 bits decide here, so the rate is rounded to 1 / 65536 (and the rest scaled by the rounded rate: the
    expectation is exact). Draws come from torch's default generator, as ever.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Zero elements of ``input`` (any shape) at the rate ``p`` in training; the identity in evaluation."""
        dropped = round(self.p * _LEVELS)
        if not self.training or self.inplace or input.device.type != "cpu" or dropped in (0, _LEVELS):
            return super().forward(input)
        draws = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        layout = torch.empty_like(input, device="meta")  # the product is fastest where both are laid out alike
        bits = draws.view(torch.int16).as_strided(layout.shape, layout.stride())
        keep = (bits >= dropped - _LEVELS // 2).to(input.dtype)
        return input * keep.mul_(_LEVELS / (_LEVELS - dropped))


class LowRankLinear(torch.autograd.Function):
    """``linear(x, weight + scale * up @ down, bias)`` with gradients for ``x``, ``down`` and ``up`` only.

    Forward and backward pass are 1.12 (1.11 to 1.17) times as fast as peft's three products.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        weight = torch.addmm(weight, up, down, alpha=scale).to(x.dtype)
        ctx.save_for_backward(x, weight, down, up)
        ctx.scale = scale
        return nn.functional.linear(x, weight, None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        x, weight, down, up = ctx.saved_tensors
        rows, outputs = x.flatten(0, -2), gradient.flatten(0, -2)
        grad_x = gradient @ weight if ctx.needs_input_grad[0] else None
        narrow = rows @ down.to(rows.dtype).T
        # Narrow matrices on the left: the other way round BLAS libraries take several times as long.
        grad_up = (narrow.T @ outputs).T.to(up.dtype) * ctx.scale
        grad_down = ((outputs @ up.to(outputs.dtype)).T @ rows).to(down.dtype) * ctx.scale
        return grad_x, None, None, grad_down, grad_up, None


class BlockwiseAttention(torch.autograd.Function):
    """:func:`~pmam_plugin.nn.attention.relative_attention`, one clip and one block of rows at a time.

    Logits never leave the cache, and the backward pass computes them again instead of reading them back: 2.9 (2.8 to
    2.9) times as fast as torch's attention with a bias, forward and backward, 1000 frames, 12 heads of 32.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, position: Tensor, distance: Tensor) -> Tensor:  # noqa: D102
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
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # noqa: D102
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
    logits += skew(band)
    return logits.softmax(dim=-1)


def _columns(rows: slice, length: int) -> slice:
    """The distances that some rows meet: ``stop - 1`` down to ``start - (length - 1)``."""
    return slice(length - rows.stop, 2 * length - 1 - rows.start)


def skew(by_distance: Tensor) -> Tensor:
    """Turn logits by distance into logits by position, as a view.

    Args:
        by_distance: of some rows of ``T`` frames, ``(..., rows, T + rows - 1)``; column ``m`` of row ``i`` belongs to
            the position ``m - (rows - 1 - i)``.

    Returns:
        ``(..., rows, T)``: row ``i`` starts at column ``rows - 1 - i``, hence reading rows that are one element shorter
        straightens the diagonal.
    """
    rows, columns = by_distance.shape[-2:]
    if rows == 1:
        return by_distance
    flat = by_distance.flatten(-2)[..., rows - 1 :][..., : rows * (columns - 1)]
    return flat.unflatten(-1, (rows, columns - 1))[..., : columns - rows + 1]


def _band_of(logits: Tensor) -> Tensor:
    """The inverse of :func:`skew`, zero where no pair of frames has the distance."""
    heads, rows, length = logits.shape
    band = logits.new_zeros(heads, rows, length + rows - 1)
    skew(band).copy_(logits)
    return band
