"""Whitening with triangular matrices at half the work: the inner loop of the E-step.

A component with precision matrix ``P = U U^T`` (``U`` upper triangular, as scikit-learn's ``precisions_cholesky_``)
has the squared Mahalanobis distance ``|(x - mu) U|^2``. Column ``j`` of ``U`` is zero below row ``j``, so the columns
``start:end`` need the first ``end`` coordinates of ``x`` only. The matrices are therefore kept as column blocks, and
one product per block serves all components at once: ``x[:, :end] @ [U_1[:end, block] | ... | U_K[:end, block]]``.
With D / 64 blocks this is (1 + 64 / D) / 2 of the multiplications, in products wide enough to run at full speed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Wide enough for fast products, narrow enough to skip nearly all of the zero half.
BLOCK = 64
# Frames whitened at a time: on a CPU the (frames, K * BLOCK) product then stays in the last-level cache.
_CPU_TILE, _TILE = 512, 16384
# Rows of a scatter matrix per product: few enough to skip most of the lower triangle.
_ROWS = 128


def blocks(width: int) -> list[tuple[int, int]]:
    """``(start, end)`` of the column blocks of a ``width``-dimensional triangular matrix."""
    return [(start, min(start + BLOCK, width)) for start in range(0, width, BLOCK)]


class Whiteners:
    """Upper triangular whitening matrices of all components, float32, in column blocks.

    Args:
        components: number of matrices K.
        width: their size D.
        device: where they live.
    """

    def __init__(self, components: int, width: int, device: torch.device):
        self.components, self.width = components, width
        self._weights = [torch.zeros(components, end - start, end, device=device) for start, end in blocks(width)]

    def __setitem__(self, component: int, matrix: Tensor) -> None:
        """Store one upper triangular matrix, ``(D, D)``."""
        for weight, (start, end) in zip(self._weights, blocks(self.width)):
            weight[component] = matrix[:end, start:end].T

    def __getitem__(self, component: int) -> Tensor:
        """One upper triangular matrix, ``(D, D)`` float32."""
        matrix = torch.zeros(self.width, self.width, device=self._weights[0].device)
        for weight, (start, end) in zip(self._weights, blocks(self.width)):
            matrix[:end, start:end] = weight[component].T
        return matrix

    def squared_distances(self, frames: Tensor, means: Tensor, centre: Tensor) -> Tensor:
        """Squared Mahalanobis distances of all frames to all components.

        ``(x - mu) U`` is computed as ``(x - c) U - (mu - c) U``; a common centre ``c`` near the data keeps both
        terms small, so that float32 does not cancel.

        Args:
            frames: float32 ``(n, D)``.
            means: float64 ``(K, D)``.
            centre: float64 ``(D,)``.

        Returns:
            float32 ``(K, n)``.
        """
        offsets = self._offsets(means - centre)
        shift = centre.to(frames.dtype)
        distances = []
        for tile in (part - shift for part in frames.split(_CPU_TILE if frames.device.type == "cpu" else _TILE)):
            total = frames.new_zeros(len(tile), self.components)
            for weight, offset, (_, end) in zip(self._weights, offsets, blocks(self.width)):
                whitened = nn.functional.linear(tile[:, :end], weight.flatten(0, 1), offset)
                norms = torch.linalg.vector_norm(whitened.unflatten(1, (self.components, -1)), dim=-1)
                total += norms.square_()
            distances.append(total.T)
        return torch.cat(distances, dim=1)

    def _offsets(self, means: Tensor) -> list[Tensor]:
        """``-(mu - c) U`` of all components side by side, one per block, products in float64."""
        offsets = []
        for weight, (_, end) in zip(self._weights, blocks(self.width)):
            parts = [part.double() @ mean[:end] for part, mean in zip(weight, means)]
            offsets.append(-torch.cat(parts).float())
        return offsets


def upper_scatter(offsets: Tensor) -> Tensor:
    """``sum_n x_n x_n^T`` of frames ``(n, D)``; of the ``(D, D)`` result only the upper triangle is meaningful."""
    width = offsets.shape[1]
    scatter = offsets.new_empty(width, width)
    for start in range(0, width, _ROWS):
        scatter[start : start + _ROWS, start:] = offsets[:, start : start + _ROWS].T @ offsets[:, start:]
    return scatter
