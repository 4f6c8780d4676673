"""Principal components of frames that need not fit in memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path
from pmam_plugin.prototypes.estimator import Estimator, as_frames, like
from pmam_plugin.prototypes.frames import FrameBatches, frames_of_all_processes
from pmam_plugin.prototypes.processes import sum_over_processes
from pmam_plugin.prototypes.tensors import read_tensors

logger = logging.getLogger(__name__)

SelfComponents = TypeVar("SelfComponents", bound="PrincipalComponents")


class PrincipalComponents(Estimator):
    """Principal component analysis with scikit-learn's attributes, fitted on arrays, files or batches in one pass.

    The scatter matrix is accumulated in float64 and decomposed,

        C = 1 / (N - 1) sum_n (x_n - m)(x_n - m)^T = V diag(lambda) V^T,    transform(x) = (x - m) V_d,

    with ``/ sqrt(lambda)`` when whitening. The entry of largest magnitude of every component is positive, which makes
    the signs those of scikit-learn and of every process.

    Args:
        n_components: dimensions kept.
        whiten: scale every component to unit variance.
        device: where the fit runs.
        batch_frames: frames processed at a time.

    Attributes:
        mean_: ``(D,)`` float32, as all of the following.
        components_: ``(d, D)``.
        explained_variance_: ``(d,)``.
        explained_variance_ratio_: share of the total variance, ``(d,)``.
    """

    mean_: Tensor
    components_: Tensor
    explained_variance_: Tensor
    explained_variance_ratio_: Tensor
    n_features_in_: int

    def __init__(
        self,
        n_components: int,
        *,
        whiten: bool = False,
        device: str | torch.device = "cpu",
        batch_frames: int = 32768,
    ):
        self.n_components = n_components
        self.whiten = whiten
        self.device = device
        self.batch_frames = batch_frames

    def fit(self: SelfComponents, frames: Any, y: object = None) -> SelfComponents:
        """Fit on ``frames`` (see :class:`FrameBatches` for what they may be; ``y`` is ignored).

        Raises:
            InputError: bad frames, or fewer frames or dimensions than components.
        """
        if self.n_components < 1:
            raise InputError(f"n_components must be at least 1, got {self.n_components}")
        batches = FrameBatches(frames, self.batch_frames, torch.device(self.device))
        mean, scatter = _moments(batches)
        count = frames_of_all_processes(batches, max(2, self.n_components), "principal components")
        if self.n_components > len(mean):
            raise InputError(f"{self.n_components} principal components do not fit in {len(mean)} dimensions")
        values, vectors = torch.linalg.eigh(scatter / (count - 1))
        values = values.flip(0).clamp_min(0)
        vectors = vectors.flip(1).T[: self.n_components]
        largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
        self.mean_ = mean.float()
        self.components_ = (vectors * largest.sign()).float()
        self.explained_variance_ = values[: self.n_components].float()
        self.explained_variance_ratio_ = (values / values.sum())[: self.n_components].float()
        self.n_features_in_ = len(mean)
        logger.info(
            "%d of %d principal components keep %.1f %% of the variance of %d frames",
            self.n_components,
            len(mean),
            100 * float(self.explained_variance_ratio_.sum()),
            count,
        )
        return self

    def transform(self, frames: Any) -> Any:
        """Coordinates of frames ``(n, D)`` in the components, ``(n, d)`` float32."""
        self._require_fitted("components_")
        tensor = as_frames(frames, self.mean_.device, self.n_features_in_)
        return like((tensor - self.mean_) @ (self.components_ / self._scale()[:, None]).T, frames)

    def inverse_transform(self, coordinates: Any) -> Any:
        """Frames ``(n, D)`` nearest to what :meth:`transform` was given."""
        self._require_fitted("components_")
        tensor = as_frames(coordinates, self.mean_.device, len(self.components_))
        return like((tensor * self._scale()) @ self.components_ + self.mean_, coordinates)

    def tensors(self) -> dict[str, Tensor]:
        """Everything :meth:`restore` needs."""
        self._require_fitted("components_")
        names = ("mean_", "components_", "explained_variance_", "explained_variance_ratio_")
        return {name.rstrip("_"): getattr(self, name).cpu().contiguous() for name in names}

    def restore(self: SelfComponents, tensors: dict[str, Tensor]) -> SelfComponents:
        """Become the fitted analysis with these tensors."""
        for name, tensor in tensors.items():
            setattr(self, f"{name}_", tensor.to(torch.device(self.device)))
        self.n_features_in_ = len(self.mean_)
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, atomically."""
        with atomic_path(path) as temporary:
            save_file(self.tensors(), temporary, metadata={"whiten": str(int(self.whiten))})

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> PrincipalComponents:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: missing, not safetensors, or not principal components.
        """
        needed = ("mean", "components", "explained_variance", "explained_variance_ratio")
        tensors, metadata = read_tensors(path, needed)
        whiten = metadata.get("whiten") == "1"
        return cls(len(tensors["components"]), whiten=whiten, device=device).restore(tensors)

    def _scale(self) -> Tensor:
        variance = self.explained_variance_
        return variance.clamp_min(torch.finfo(torch.float32).tiny).sqrt() if self.whiten else torch.ones_like(variance)


class TransformedBatches:
    """Re-iterable batches of the coordinates of ``batches`` in principal components."""

    def __init__(self, batches: FrameBatches, transform: PrincipalComponents):
        self._batches = batches
        self._transform = transform

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self._batches:
            yield self._transform.transform(batch)


def _moments(batches: FrameBatches) -> tuple[Tensor, Tensor]:
    """Mean and scatter about it over all processes, float64 ``(D,)`` and ``(D, D)``.

    Each process sums about its own first batch's mean (so that nothing cancels), and the parts are joined by
    ``S = sum_p S_p + N_p (m_p - m)(m_p - m)^T``.
    """
    reference = total = scatter = torch.empty(0)
    for batch in batches:
        if not len(reference):
            reference = batch.double().mean(dim=0)
            total = torch.zeros_like(reference)
            scatter = reference.new_zeros(len(reference), len(reference))
        for part in batch.split(8192):
            offsets = part.double() - reference
            total += offsets.sum(dim=0)
            scatter.addmm_(offsets.T, offsets)
    frames_of_all_processes(batches, 1, "frames")
    count = reference.new_tensor([float(batches.count)])
    shift = total / count
    scatter -= count * torch.outer(shift, shift)
    own_mean = reference + shift
    mean = own_mean * count
    own_count = count.clone()
    sum_over_processes([count, mean])
    mean /= count
    scatter += own_count * torch.outer(own_mean - mean, own_mean - mean)
    sum_over_processes([scatter])
    return mean, scatter
