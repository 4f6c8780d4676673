"""What is done to embeddings before they are clustered: centring, and principal components where asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.processes import sum_over_processes
from pmam_plugin.prototypes.frames import Frames, as_frames

logger = logging.getLogger(__name__)


class Projection:
    """``(x - m) V_d``: frames about their mean ``m``, in their first ``d`` principal components where asked for.

    The losses look only at directions. Where all embeddings share a large mean, all prototypes point the same way,
    and no prediction can be near one of them and far from the others; about the mean they spread.

    The scatter matrix is accumulated in float64 in one pass and decomposed, ``C = V diag(lambda) V^T``; the entry of
    largest magnitude of every component is positive, which makes the signs those of scikit-learn's PCA and of every
    process.

    Args:
        components: dimensions kept; None keeps all, unrotated.
        device: where the fit runs.

    Attributes:
        mean_: ``(D,)`` float32.
        components_: ``(d, D)`` float32, or None.
        explained_: share of the variance that is kept.
    """

    mean_: Tensor
    components_: Tensor | None
    explained_: float

    def __init__(self, components: int | None = None, device: str | torch.device = "cpu"):
        self.components, self.device = components, torch.device(device)

    @property
    def input_dim(self) -> int:
        """D."""
        return len(self.mean_)

    def fit(self, frames: Any) -> Projection:
        """Fit on ``frames`` (see :class:`Frames`).

        Raises:
            InputError: bad frames, or fewer frames or dimensions than components.
        """
        if self.components is not None and self.components < 1:
            raise InputError(f"principal components must be at least 1, got {self.components}")
        data = Frames(frames, self.device, at_least=max(2, self.components or 0))
        width = data.frames.shape[1]
        if self.components is not None and self.components > width:
            raise InputError(f"{self.components} principal components do not fit in {width} dimensions")
        # About the first batch's mean of the first process, nothing cancels.
        reference = data._read(slice(0, min(len(data), 8192)), 0).double().mean(dim=0)
        total, scatter = torch.zeros_like(reference), reference.new_zeros(width, width)
        for batch in data:
            for part in batch.split(8192):
                offsets = part.double() - reference
                total += offsets.sum(dim=0)
                if self.components is not None:
                    scatter.addmm_(offsets.T, offsets)
        sum_over_processes([total, scatter])
        shift = total / len(data)
        self.mean_, self.components_, self.explained_ = (reference + shift).float(), None, 1.0
        if self.components is not None:
            values, vectors = torch.linalg.eigh(scatter - len(data) * torch.outer(shift, shift))
            values, vectors = values.flip(0).clamp_min(0), vectors.flip(1).T[: self.components]
            largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
            self.components_ = (vectors * largest.sign()).float()
            self.explained_ = float(values[: self.components].sum() / values.sum())
            kept = 100 * self.explained_
            logger.info("%d of %d principal components keep %.1f %% of the variance", self.components, width, kept)
        return self

    def transform(self, frames: Any) -> Tensor:
        """Coordinates of frames ``(n, D)``, ``(n, d)`` float32."""
        offsets = as_frames(frames, self.mean_.device, self.input_dim) - self.mean_
        return offsets if self.components_ is None else offsets @ self.components_.T

    def tensors(self) -> dict[str, Tensor]:
        """Everything :meth:`restore` needs."""
        parts = {"mean": self.mean_, "components": self.components_}
        return {name: tensor for name, tensor in parts.items() if tensor is not None}

    def restore(self, tensors: Mapping[str, Tensor]) -> Projection:
        """Become the fitted projection with these tensors."""
        self.mean_ = tensors["mean"].to(self.device)
        components = tensors.get("components")
        self.components_ = None if components is None else components.to(self.device)
        self.components = None if components is None else len(components)
        return self
