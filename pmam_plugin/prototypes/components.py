"""Principal components, fitted on batches that never fit in memory together."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes.estimator import Estimator, as_frames, like
from pmam_plugin.prototypes.frames import FrameBatches
from pmam_plugin.prototypes.processes import sum_over_processes

Self = TypeVar("Self", bound="PrincipalComponents")


class PrincipalComponents(Estimator):
    """PCA by accumulated moments (float64), summed over processes; signs as scikit-learn chooses them.

    Args:
        n_components: dimensions kept.
        standardise: divide every dimension by its standard deviation first, so that loud mel bands do not rule.
        whiten: give every kept dimension unit variance.
        device: where the moments are accumulated.
        batch_frames: frames at a time.

    Attributes:
        mean_: ``(D,)``.
        scale_: ``(D,)``; ones without ``standardise``.
        components_: ``(n_components, D)``, orthonormal rows.
        explained_variance_: ``(n_components,)``.
        explained_variance_ratio_: ``(n_components,)``.
    """

    mean_: Tensor
    scale_: Tensor
    components_: Tensor
    explained_variance_: Tensor
    explained_variance_ratio_: Tensor

    def __init__(
        self,
        n_components: int,
        standardise: bool = False,
        whiten: bool = False,
        device: str | torch.device = "cpu",
        batch_frames: int = 32768,
    ) -> None:
        self.n_components, self.standardise, self.whiten = n_components, standardise, whiten
        self.device, self.batch_frames = device, batch_frames

    def fit(self: Self, frames: Any, y: object = None) -> Self:
        """Fit on an array, a memory map or an iterable of batches; see :class:`FrameBatches`.

        Raises:
            InputError: more components than dimensions, fewer than two frames, or bad frames.
        """
        batches = FrameBatches(frames, self.batch_frames, torch.device(self.device))
        count = torch.zeros((), dtype=torch.float64)
        total: Tensor | None = None
        product = shift = torch.zeros(0)
        for batch in batches:
            if total is None:
                # Moments about a frame of this process: about zero, large means would cost all digits.
                shift = torch.zeros(batch.shape[1], dtype=torch.float64, device=batch.device)
                total = torch.zeros_like(shift)
                product = torch.zeros(batch.shape[1], batch.shape[1], dtype=torch.float64, device=batch.device)
            wide = batch.double() - shift
            count += len(batch)
            total += wide.sum(dim=0)
            product += wide.T @ wide
        if total is None or not 1 <= self.n_components <= len(total):
            width = 0 if total is None else len(total)
            raise InputError(f"cannot keep {self.n_components} components of frames with {width} dimensions")
        count = count.to(total.device)
        sum_over_processes([count, total, product])
        if count < 2:
            raise InputError("principal components need at least two frames")
        mean = total / count
        covariance = (product - count * torch.outer(mean, mean)) / (count - 1)
        self._decompose(mean, covariance)
        return self

    def _decompose(self, mean: Tensor, covariance: Tensor) -> None:
        scale = covariance.diagonal().clamp_min(1e-12).sqrt() if self.standardise else torch.ones_like(mean)
        values, vectors = torch.linalg.eigh(covariance / torch.outer(scale, scale))
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1).T[: self.n_components]
        largest = vectors.abs().argmax(dim=1, keepdim=True)
        vectors = vectors * vectors.gather(1, largest).sign()
        self.restore(mean, scale, vectors, values[: self.n_components], values[: self.n_components] / values.sum())

    def restore(self: Self, mean: Tensor, scale: Tensor, components: Tensor, variance: Tensor, ratio: Tensor) -> Self:
        """Become the fitted transform with these parameters (shapes as in the attributes)."""
        self.mean_, self.scale_, self.components_ = mean.float(), scale.float(), components.float()
        self.explained_variance_, self.explained_variance_ratio_ = variance.float(), ratio.float()
        self.n_features_in_ = len(mean)
        return self

    def transform(self, frames: Any) -> Any:
        """``(n, D) -> (n, n_components)``."""
        self._require_fitted("components_")
        projected = (as_frames(frames, self.mean_.device, len(self.mean_)) - self.mean_) / self.scale_
        projected = projected @ self.components_.T
        if self.whiten:
            projected = projected / self.explained_variance_.clamp_min(1e-12).sqrt()
        return like(projected, frames)

    def inverse_transform(self, projected: Any) -> Any:
        """``(n, n_components) -> (n, D)``; what was dropped is missing."""
        self._require_fitted("components_")
        wide = as_frames(projected, self.mean_.device, len(self.components_))
        if self.whiten:
            wide = wide * self.explained_variance_.clamp_min(1e-12).sqrt()
        return like(wide @ self.components_ * self.scale_ + self.mean_, projected)
