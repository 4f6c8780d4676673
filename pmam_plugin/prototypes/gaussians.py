"""Gaussian densities with full or diagonal covariances, and the sufficient statistics that re-estimate them.

For responsibilities ``r_nk`` and any reference point ``a_k`` the M-step needs three moments per component only,

    N_k = sum_n r_nk,    f_k = sum_n r_nk (x_n - a_k),    S_k = sum_n r_nk (x_n - a_k)(x_n - a_k)^T,

which add up over batches and processes. With ``delta_k = f_k / N_k`` follow

    mu_k = a_k + delta_k,    Sigma_k = S_k / N_k - delta_k delta_k^T + reg_covar I.

The references are the means of the iteration before: ``delta`` is small, and nothing cancels. Products over frames run
in float32 (full) or float64 (diagonal), their sums, the Cholesky factors and the triangular solves in float64.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes.triangular import Whiteners, blocks, upper_scatter

# A responsibility below this moves no statistic: the M-step skips the frame for that component.
NEGLIGIBLE = 1e-7
# Frames gathered at a time, so that the copy stays small however many frames a component owns.
_GATHERED = 4096
_LOG_TWO_PI = math.log(2 * math.pi)
_ILL_DEFINED = (
    "component {} has an ill-defined covariance (its frames collapsed onto a point or a plane); use fewer components, "
    "a larger reg_covar, or covariance_type diag"
)


@dataclass
class Moments:
    """Sufficient statistics of one pass, float64, summed in place.

    Attributes:
        counts: N_k, ``(K,)``.
        first: f_k, ``(K, D)``.
        second: S_k in the form the covariance needs.
        donors: the component each one takes its statistics from, ``(K,)``: itself, unless it lost all its frames.
    """

    counts: Tensor
    first: Tensor
    second: list[Tensor]
    donors: list[int]

    def tensors(self) -> list[Tensor]:
        """All sums, to be added over processes."""
        return [self.counts, self.first, *self.second]

    def reset(self) -> None:
        """Back to zero, keeping the memory."""
        for tensor in self.tensors():
            tensor.zero_()
        self.donors = list(range(len(self.counts)))


class Gaussians(ABC):
    """K densities over D dimensions on one device.

    Attributes:
        means: float64 ``(K, D)``.
        centre: a point near the data, float64 ``(D,)``; subtracted before products in float32.
    """

    def __init__(self, means: Tensor):
        self.means = means.double()
        self.centre = self.means.mean(dim=0)

    @property
    def components(self) -> int:
        """K."""
        return len(self.means)

    @property
    def width(self) -> int:
        """D."""
        return self.means.shape[1]

    @abstractmethod
    def whiten(self, factors: Tensor) -> None:
        """Take over Cholesky factors ``U`` of the precisions, ``U U^T``: ``(K, D, D)``, or square roots ``(K, D)``."""

    @abstractmethod
    def factors(self) -> Tensor:
        """Those factors, float32 (scikit-learn's ``precisions_cholesky_``)."""

    @abstractmethod
    def log_densities(self, frames: Tensor) -> Tensor:
        """``log N(x_n | mu_k, Sigma_k)`` of frames ``(n, D)``, float32 ``(K, n)``."""

    @abstractmethod
    def new_moments(self) -> Moments:
        """Zero statistics."""

    @abstractmethod
    def accumulate(self, moments: Moments, frames: Tensor, responsibilities: Tensor) -> None:
        """Add the statistics of ``frames`` ``(n, D)`` under ``responsibilities`` ``(K, n)``."""

    @abstractmethod
    def update(self, moments: Moments, reg_covar: float) -> None:
        """M-step: new means and whitening from the moments."""

    def state(self) -> dict[str, Tensor]:
        """Everything that the next iteration depends on, to the last bit."""
        return {"means": self.means, "centre": self.centre, "factors": self.factors()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Become what :meth:`state` described."""
        device = self.means.device
        self.means, self.centre = state["means"].to(device), state["centre"].to(device)
        self.whiten(state["factors"].to(device))

    def _move(self, moments: Moments, references: Tensor, axes: dict[int, Tensor]) -> None:
        donors = moments.donors
        self.means = references[donors] + moments.first[donors] / moments.counts[donors, None]
        for component, axis in axes.items():
            # Children of the same donor go to alternating sides, ever closer, so that no two coincide.
            earlier = donors[:component].count(donors[component])
            self.means[component] += axis * (-1.0) ** earlier / (1 + earlier // 2)
        self.centre = moments.counts @ self.means / moments.counts.sum()


class FullGaussians(Gaussians):
    """Every component with its own covariance matrix."""

    def __init__(self, means: Tensor):
        super().__init__(means)
        self._whiteners = Whiteners(self.components, self.width, self.means.device)
        self._log_determinants = self.means.new_zeros(self.components)
        self._references = self.means
        self._scarce = torch.zeros(self.components, dtype=torch.bool)

    def whiten(self, factors: Tensor) -> None:  # noqa: D102
        for component, factor in enumerate(factors):
            self._set(component, factor.double())

    def factors(self) -> Tensor:  # noqa: D102
        factors = torch.empty(self.components, self.width, self.width, device=self.means.device)
        for component in range(self.components):
            factors[component] = self._whiteners[component]
        return factors

    def state(self) -> dict[str, Tensor]:  # noqa: D102
        return {**super().state(), "log_determinants": self._log_determinants, "scarce": self._scarce}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: D102
        super().restore(state)
        self._log_determinants = state["log_determinants"].to(self.means.device)
        self._scarce = state["scarce"]

    def log_densities(self, frames: Tensor) -> Tensor:  # noqa: D102
        constants = (self._log_determinants - 0.5 * self.width * _LOG_TWO_PI).float()
        distances = self._whiteners.squared_distances(frames, self.means, self.centre)
        return distances.mul_(-0.5).add_(constants[:, None])

    def new_moments(self) -> Moments:  # noqa: D102
        components, width = self.components, self.width
        # Block rows of the upper triangle: the covariance is symmetric, the rest is not stored.
        second = [self.means.new_zeros(components, end - start, width - start) for start, end in blocks(width)]
        return Moments(self.means.new_zeros(components), torch.zeros_like(self.means), second, [*range(components)])

    def accumulate(self, moments: Moments, frames: Tensor, responsibilities: Tensor) -> None:  # noqa: D102
        self._references = self.means
        references = self.means.float()
        for component in range(self.components):
            weights = responsibilities[component]
            for index in (weights > NEGLIGIBLE).nonzero().squeeze(1).split(_GATHERED):
                weight = weights[index]
                offsets = frames[index].sub_(references[component])
                moments.counts[component] += weight.double().sum()
                moments.first[component] += weight @ offsets
                offsets.mul_(weight.sqrt_()[:, None])
                if self._scarce[component]:  # rounding in float32 would fill the empty directions
                    offsets = offsets.double()
                scatter = upper_scatter(offsets)
                for total, (start, end) in zip(moments.second, blocks(self.width)):
                    total[component] += scatter[start:end, start:]

    def update(self, moments: Moments, reg_covar: float) -> None:  # noqa: D102
        axes = {}
        for component, donor in enumerate(moments.donors):
            covariance = self._covariance(moments, donor, reg_covar)
            self._set(component, _whitening_matrix(covariance, component, reg_covar))
            if donor != component:
                axes[component] = _longest_axis(covariance)
        self._move(moments, self._references, axes)
        self._scarce = (moments.counts[moments.donors] < 2 * self.width).cpu()

    def _covariance(self, moments: Moments, donor: int, reg_covar: float) -> Tensor:
        covariance = self.means.new_zeros(self.width, self.width)
        for total, (start, end) in zip(moments.second, blocks(self.width)):
            covariance[start:end, start:] = total[donor]
        covariance = covariance.triu() + covariance.triu(1).T
        delta = moments.first[donor] / moments.counts[donor]
        covariance.div_(moments.counts[donor]).sub_(torch.outer(delta, delta))
        covariance.diagonal().add_(reg_covar)
        return covariance

    def _set(self, component: int, factor: Tensor) -> None:
        self._whiteners[component] = factor
        self._log_determinants[component] = factor.diagonal().log().sum()


class DiagonalGaussians(Gaussians):
    """Every component with its own variance per dimension.

    Distances and moments are products of width K, cheap enough to run in float64 throughout.
    """

    def __init__(self, means: Tensor):
        super().__init__(means)
        self._factors = torch.zeros_like(self.means)
        self._reference = self.centre

    def whiten(self, factors: Tensor) -> None:  # noqa: D102
        self._factors = factors.double()

    def factors(self) -> Tensor:  # noqa: D102
        return self._factors.float()

    def state(self) -> dict[str, Tensor]:  # noqa: D102
        return {**super().state(), "factors": self._factors}

    def log_densities(self, frames: Tensor) -> Tensor:  # noqa: D102
        precisions = self._factors.square()
        means = self.means - self.centre
        constants = self._factors.log().sum(dim=1) - 0.5 * self.width * _LOG_TWO_PI
        constants = constants - 0.5 * (means.square() * precisions).sum(dim=1)
        result = frames.new_empty(self.components, len(frames))
        for start in range(0, len(frames), _GATHERED):
            offsets = frames[start : start + _GATHERED].double() - self.centre
            exponent = (means * precisions) @ offsets.T - 0.5 * precisions @ offsets.square_().T
            result[:, start : start + _GATHERED] = exponent + constants[:, None]
        return result

    def new_moments(self) -> Moments:  # noqa: D102
        zeros, count = torch.zeros_like(self.means), self.components
        return Moments(self.means.new_zeros(count), zeros, [zeros.clone()], [*range(count)])

    def accumulate(self, moments: Moments, frames: Tensor, responsibilities: Tensor) -> None:  # noqa: D102
        self._reference = self.centre
        for start in range(0, len(frames), _GATHERED):
            offsets = frames[start : start + _GATHERED].double() - self._reference
            weights = responsibilities[:, start : start + _GATHERED].double()
            moments.counts += weights.sum(dim=1)
            moments.first += weights @ offsets
            moments.second[0] += weights @ offsets.square_()

    def update(self, moments: Moments, reg_covar: float) -> None:  # noqa: D102
        counts = moments.counts[moments.donors, None]
        delta = moments.first[moments.donors] / counts
        variances = moments.second[0][moments.donors] / counts - delta.square() + reg_covar
        if not (variances > 0).all():
            raise InputError(_ILL_DEFINED.format(int((variances <= 0).any(dim=1).nonzero()[0, 0])))
        self._factors = variances.rsqrt()
        axes = {}
        for component, donor in enumerate(moments.donors):
            if donor != component:
                longest = variances[component] == variances[component].max()
                axes[component] = variances[component].sqrt() * longest
        self._move(moments, self._reference.expand_as(self.means), axes)


FAMILIES: dict[str, type[Gaussians]] = {"full": FullGaussians, "diag": DiagonalGaussians}


def covariances(factors: Tensor) -> Tensor:
    """Covariance matrices ``(K, D, D)`` float64 of factors ``(K, D, D)`` or ``(K, D)`` of their inverses."""
    if factors.ndim == 2:
        return torch.diag_embed(factors.double().pow(-2))
    inverse = torch.linalg.inv(factors.double())
    return inverse.mT @ inverse


def _whitening_matrix(covariance: Tensor, component: int, floor: float) -> Tensor:
    """Upper triangular ``U = L^-T`` of ``Sigma = L L^T``, so that ``Sigma^-1 = U U^T``.

    Every eigenvalue is at least ``reg_covar`` but for rounding; one that rounding made negative is lifted to it.
    """
    lower, info = torch.linalg.cholesky_ex(covariance)
    if info.item() and floor > 0:
        values, vectors = torch.linalg.eigh(covariance)
        lower, info = torch.linalg.cholesky_ex((vectors * values.clamp_min(floor)) @ vectors.T)
    if info.item():
        raise InputError(_ILL_DEFINED.format(component))
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.solve_triangular(lower, identity, upper=False).T


def _longest_axis(covariance: Tensor) -> Tensor:
    """One standard deviation along the direction in which the covariance is largest."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors[:, -1] * values[-1].sqrt()
