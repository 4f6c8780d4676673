"""Gaussian densities with four shapes of covariance, and the sufficient statistics that re-estimate them.

For responsibilities ``r_nk`` and any reference point ``a_k`` the M-step needs three moments per component only,

    N_k = sum_n r_nk,    f_k = sum_n r_nk (x_n - a_k),    S_k = sum_n r_nk (x_n - a_k)(x_n - a_k)^T,

which add up over batches and processes. With ``delta_k = f_k / N_k`` follow

    mu_k = a_k + delta_k,    Sigma_k = S_k / N_k - delta_k delta_k^T + reg_covar I.

The references are the means of the iteration before: ``delta`` is small, and nothing cancels. Products over frames run
in float32, their sums, the Cholesky factors and the triangular solves in float64.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

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
    "a larger reg_covar, or another covariance_type"
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
    donors: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.donors = list(range(len(self.counts)))

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
        """Take over Cholesky factors of the precisions in scikit-learn's shape for this covariance."""

    @abstractmethod
    def factors(self) -> Tensor:
        """Cholesky factors of the precisions in scikit-learn's shape (``precisions_cholesky_``)."""

    @abstractmethod
    def log_densities(self, frames: Tensor, live: Tensor | None = None) -> Tensor:
        """``log N(x_n | mu_k, Sigma_k)``, float32 ``(K, n)``.

        Args:
            frames: float32 ``(n, D)``.
            live: bool ``(K, n)``; where given, only these pairs need to be computed and others may be -inf.
        """

    @abstractmethod
    def new_moments(self) -> Moments:
        """Zero statistics."""

    @abstractmethod
    def accumulate(self, moments: Moments, frames: Tensor, responsibilities: Tensor) -> None:
        """Add the statistics of ``frames`` ``(n, D)`` under ``responsibilities`` ``(K, n)``."""

    @abstractmethod
    def covariances(self, moments: Moments, reg_covar: float) -> Tensor:
        """Covariances in scikit-learn's shape, float32; references must be those of ``accumulate``."""

    @abstractmethod
    def update(self, moments: Moments, reg_covar: float) -> None:
        """M-step: new means and whitening from the moments."""

    def _new_means(self, moments: Moments, references: Tensor, axes: dict[int, Tensor]) -> Tensor:
        donors = moments.donors
        means = references[donors] + moments.first[donors] / moments.counts[donors, None]
        for component, axis in axes.items():
            # Children of the same donor go to alternating sides, ever closer, so that no two coincide.
            earlier = donors[:component].count(donors[component])
            means[component] += axis * (-1.0) ** earlier / (1 + earlier // 2)
        return means

    def _recentre(self, counts: Tensor) -> None:
        self.centre = counts @ self.means / counts.sum()


class FullGaussians(Gaussians):
    """Every component with its own covariance matrix."""

    def __init__(self, means: Tensor):
        super().__init__(means)
        self._whiteners = Whiteners(self.components, self.width, self.means.device)
        self._log_determinants = self.means.new_zeros(self.components)
        self._references = self.means
        self._scarce = [False] * self.components

    def whiten(self, factors: Tensor) -> None:  # noqa: D102
        for component, factor in enumerate(factors):
            self._set(component, factor.double())

    def factors(self) -> Tensor:  # noqa: D102
        factors = torch.empty(self.components, self.width, self.width, device=self.means.device)
        for component in range(self.components):
            factors[component] = self._whiteners[component]
        return factors

    def log_densities(self, frames: Tensor, live: Tensor | None = None) -> Tensor:  # noqa: D102
        constants = (self._log_determinants - 0.5 * self.width * _LOG_TWO_PI).float()
        if live is None:
            distances = self._whiteners.squared_distances(frames, self.means, self.centre)
            return distances.mul_(-0.5).add_(constants[:, None])
        result = frames.new_full((self.components, len(frames)), -math.inf)
        means = self.means.float()
        for component in range(self.components):
            for index in _chosen(live[component]):
                offsets = frames[index].sub_(means[component])
                distances = self._whiteners.squared_norms(offsets, component)
                result[component, index] = constants[component] - 0.5 * distances
        return result

    def new_moments(self) -> Moments:  # noqa: D102
        components, width = self.components, self.width
        # Block rows of the upper triangle: the covariance is symmetric, the rest is not stored.
        second = [self.means.new_zeros(components, end - start, width - start) for start, end in blocks(width)]
        return Moments(self.means.new_zeros(components), torch.zeros_like(self.means), second)

    def accumulate(self, moments: Moments, frames: Tensor, responsibilities: Tensor) -> None:  # noqa: D102
        self._references = self.means
        references = self.means.float()
        for component in range(self.components):
            weights = responsibilities[component]
            for index in _chosen(weights > NEGLIGIBLE):
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

    def covariances(self, moments: Moments, reg_covar: float) -> Tensor:  # noqa: D102
        result = torch.empty(self.components, self.width, self.width, device=self.means.device)
        for component in range(self.components):
            result[component] = self._covariance(moments, component, reg_covar)
        return result

    def update(self, moments: Moments, reg_covar: float) -> None:  # noqa: D102
        axes = {}
        for component, donor in enumerate(moments.donors):
            covariance = self._covariance(moments, component, reg_covar)
            self._set(component, _whitening_matrix(covariance, component, reg_covar))
            if donor != component:
                axes[component] = _longest_axis(covariance)
        self.means = self._new_means(moments, self._references, axes)
        self._recentre(moments.counts)
        self._scarce = (moments.counts[moments.donors] < 2 * self.width).tolist()

    def _covariance(self, moments: Moments, component: int, reg_covar: float) -> Tensor:
        donor = moments.donors[component]
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


class TiedGaussians(Gaussians):
    """One covariance matrix for all components.

    The scatter of all frames does not depend on the responsibilities; it is summed in the first pass only, and
    ``Sigma = (T - sum_k N_k delta_k delta_k^T) / N + reg_covar I``, all about the same reference.
    """

    def __init__(self, means: Tensor):
        super().__init__(means)
        self._factor = self.means.new_zeros(self.width, self.width)
        self._reference = self.centre
        self._scatter: Tensor | None = None

    def whiten(self, factors: Tensor) -> None:  # noqa: D102
        self._factor = factors.double()

    def factors(self) -> Tensor:  # noqa: D102
        return self._factor.float()

    def log_densities(self, frames: Tensor, live: Tensor | None = None) -> Tensor:  # noqa: D102
        factor = self._factor.float()
        targets = (self.means - self.centre) @ self._factor
        constant = self._factor.diagonal().log().sum() - 0.5 * self.width * _LOG_TWO_PI
        result = frames.new_empty(self.components, len(frames))
        shift = self.centre.float()
        for start in range(0, len(frames), _GATHERED):
            whitened = ((frames[start : start + _GATHERED] - shift) @ factor).double()
            distances = _squared_distances(whitened, targets)
            result[:, start : start + _GATHERED] = constant - 0.5 * distances
        return result

    def new_moments(self) -> Moments:  # noqa: D102
        self._scatter = None
        return Moments(
            self.means.new_zeros(self.components),
            torch.zeros_like(self.means),
            [self.means.new_zeros(self.width, self.width)],
        )

    def accumulate(self, moments: Moments, frames: Tensor, responsibilities: Tensor) -> None:  # noqa: D102
        if self._scatter is None and not moments.counts.any():
            self._reference = self.centre  # kept from the first pass on, like the scatter about it
        for start in range(0, len(frames), _GATHERED):
            offsets = frames[start : start + _GATHERED].double() - self._reference
            weights = responsibilities[:, start : start + _GATHERED].double()
            weights /= weights.sum(dim=0)  # exactly one per frame, as the scatter counts it
            moments.counts += weights.sum(dim=1)
            moments.first += weights @ offsets
            if self._scatter is None:
                moments.second[0].addmm_(offsets.T, offsets)

    def covariances(self, moments: Moments, reg_covar: float) -> Tensor:  # noqa: D102
        return self._covariance(moments, reg_covar).float()

    def update(self, moments: Moments, reg_covar: float) -> None:  # noqa: D102
        covariance = self._covariance(moments, reg_covar)
        self._factor = _whitening_matrix(covariance, 0, reg_covar)
        split = {k: _longest_axis(covariance) for k, donor in enumerate(moments.donors) if donor != k}
        self.means = self._new_means(moments, self._reference.expand_as(self.means), split)
        self._recentre(moments.counts)

    def _covariance(self, moments: Moments, reg_covar: float) -> Tensor:
        if self._scatter is None:
            self._scatter = moments.second[0].clone()
        delta = moments.first / moments.counts.clamp_min(torch.finfo(torch.float64).tiny)[:, None]
        between = (delta * moments.counts[:, None]).T @ delta
        covariance = (self._scatter - between) / moments.counts.sum()
        covariance.diagonal().add_(reg_covar)
        return covariance


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

    def log_densities(self, frames: Tensor, live: Tensor | None = None) -> Tensor:  # noqa: D102
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
        return Moments(
            self.means.new_zeros(self.components), torch.zeros_like(self.means), [torch.zeros_like(self.means)]
        )

    def accumulate(self, moments: Moments, frames: Tensor, responsibilities: Tensor) -> None:  # noqa: D102
        self._reference = self.centre
        for start in range(0, len(frames), _GATHERED):
            offsets = frames[start : start + _GATHERED].double() - self._reference
            weights = responsibilities[:, start : start + _GATHERED].double()
            moments.counts += weights.sum(dim=1)
            moments.first += weights @ offsets
            moments.second[0] += weights @ offsets.square_()

    def covariances(self, moments: Moments, reg_covar: float) -> Tensor:  # noqa: D102
        return self._variances(moments, reg_covar).float()

    def update(self, moments: Moments, reg_covar: float) -> None:  # noqa: D102
        variances = self._variances(moments, reg_covar)
        self._factors = _reciprocal_root(variances)
        axes = {}
        for component, donor in enumerate(moments.donors):
            if donor != component:
                longest = int(variances[component].argmax())
                axes[component] = torch.zeros_like(variances[component])
                axes[component][longest] = variances[component, longest].sqrt()
        self.means = self._new_means(moments, self._reference.expand_as(self.means), axes)
        self._recentre(moments.counts)

    def _variances(self, moments: Moments, reg_covar: float) -> Tensor:
        counts = moments.counts[moments.donors, None]
        delta = moments.first[moments.donors] / counts
        return moments.second[0][moments.donors] / counts - delta.square() + reg_covar


class SphericalGaussians(DiagonalGaussians):
    """Every component with one variance: the mean of its variances over the dimensions."""

    def whiten(self, factors: Tensor) -> None:  # noqa: D102
        super().whiten(factors[:, None].expand(self.components, self.width))

    def factors(self) -> Tensor:  # noqa: D102
        return super().factors()[:, 0].clone()

    def covariances(self, moments: Moments, reg_covar: float) -> Tensor:  # noqa: D102
        return super().covariances(moments, reg_covar)[:, 0].clone()

    def _variances(self, moments: Moments, reg_covar: float) -> Tensor:
        variances = super()._variances(moments, reg_covar)
        return variances.mean(dim=1, keepdim=True).expand_as(variances)


FAMILIES: dict[str, type[Gaussians]] = {
    "full": FullGaussians,
    "tied": TiedGaussians,
    "diag": DiagonalGaussians,
    "spherical": SphericalGaussians,
}


def factors_from_precisions(precisions: Tensor, covariance_type: str) -> Tensor:
    """Factors of precisions in scikit-learn's shape: ``U`` upper triangular with ``P = U U^T``, or square roots.

    ``U`` is the Cholesky factor of the matrix with rows and columns reversed, reversed back.

    Raises:
        InputError: a precision that is not positive (definite).
    """
    precisions = precisions.double()
    if covariance_type in ("diag", "spherical"):
        if not (precisions > 0).all():
            raise InputError("precisions_init must be positive")
        return precisions.sqrt()
    if covariance_type == "tied":
        return _upper_factor(precisions)
    factors = torch.empty_like(precisions, dtype=torch.float32)
    for component, precision in enumerate(precisions):
        factors[component] = _upper_factor(precision)
    return factors


def _upper_factor(precision: Tensor) -> Tensor:
    lower, info = torch.linalg.cholesky_ex(precision.flip(0, 1))
    if info.item() or not torch.allclose(precision, precision.T, rtol=1e-4):
        raise InputError("precisions_init must be symmetric and positive definite")
    return lower.flip(0, 1)


def _chosen(mask: Tensor) -> Iterator[Tensor]:
    """Positions where ``mask`` is true, in pieces small enough to gather."""
    return (part for part in mask.nonzero().squeeze(1).split(_GATHERED) if len(part))


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


def _reciprocal_root(variances: Tensor) -> Tensor:
    if not (variances > 0).all():
        raise InputError(_ILL_DEFINED.format(int((variances <= 0).any(dim=1).nonzero()[0, 0])))
    return variances.rsqrt()


def _longest_axis(covariance: Tensor) -> Tensor:
    """One standard deviation along the direction in which the covariance is largest."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors[:, -1] * values[-1].sqrt()


def _squared_distances(points: Tensor, targets: Tensor) -> Tensor:
    """``|x_n - t_k|^2`` as ``(K, n)``."""
    cross = targets @ points.T
    return points.square().sum(dim=1) - 2 * cross + targets.square().sum(dim=1, keepdim=True)
