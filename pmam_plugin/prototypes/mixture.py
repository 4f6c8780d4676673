"""Gaussian mixtures for frames that need not fit in memory: exact and sparse EM."""

from __future__ import annotations

import logging
import math
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes.estimator import Estimator, FitProgress, ProgressHook, as_frames, like
from pmam_plugin.prototypes.frames import FrameBatches, frames_of_all_processes, sample_frames
from pmam_plugin.prototypes.gaussians import FAMILIES, Gaussians, Moments, factors_from_precisions
from pmam_plugin.prototypes.kmeans import SAMPLE_PER_CLUSTER, KMeans, seed_centres, shared_seed
from pmam_plugin.prototypes.processes import sum_over_processes

logger = logging.getLogger(__name__)

SelfMixture = TypeVar("SelfMixture", bound="GaussianMixture")

# A component whose responsibilities sum to less than one frame is lost; it restarts beside the heaviest one.
_LOST = 1.0
# Sparse steps look only at the components that had at least this posterior in the last full step.
_LIVE = 1e-6
# The first steps move posteriors the most, so they are full whatever the interval.
_FULL_AT_FIRST = 2


class GaussianMixture(Estimator):
    """A mixture of K Gaussians with scikit-learn's parameters and attributes, on arrays, files or batches.

    EM alternates

        E:  r_nk = pi_k N(x_n | mu_k, Sigma_k) / sum_l pi_l N(x_n | mu_l, Sigma_l)     (in the log domain)
        M:  pi_k = N_k / N, and mu_k, Sigma_k from the moments in :mod:`~pmam_plugin.prototypes.gaussians`

    batch by batch, so that only the statistics stay in memory; under torch.distributed each process holds its own part
    of the frames and the statistics are summed. From the same start the log-likelihood follows scikit-learn's.

    With ``full_every > 1`` EM is sparse (Neal & Hinton 1998): a full E-step every so often finds each frame's few live
    components, the steps in between evaluate only those. The objective of a sparse step is a lower bound of the
    log-likelihood; convergence is declared on full steps only. Only ``covariance_type="full"`` gains from it, the other
    families take full steps always.

    Args:
        n_components: number of components K.
        covariance_type: ``"full"``, ``"tied"``, ``"diag"`` or ``"spherical"``.
        tol: stop when the mean log-likelihood per frame changes by less (nats).
        reg_covar: added to the diagonal of every covariance.
        max_iter: most EM iterations.
        init_params: where the first hard assignment comes from: ``"kmeans"`` (k-means on a sample), ``"k-means++"``
            (its seeds) or ``"random"`` (random frames, scikit-learn's ``random_from_data`` with every frame assigned).
        weights_init: ``(K,)``; given together with the other two, no initialisation runs.
        means_init: ``(K, D)``.
        precisions_init: in scikit-learn's shape for the covariance type.
        random_state: seed of the start; None draws one from the global generator.
        progress: called with a :class:`FitProgress` after every iteration.
        device: where the fit runs.
        batch_frames: frames processed at a time; smaller batches of an iterable are joined.
        full_every: 1 for exact EM, n for a full E-step in every n-th iteration.

    Attributes:
        weights_: ``(K,)`` float32, as all of the following.
        means_: ``(K, D)``.
        covariances_: full ``(K, D, D)``, tied ``(D, D)``, diag ``(K, D)``, spherical ``(K,)``.
        precisions_cholesky_: same shape; upper triangular ``U`` with ``Sigma^-1 = U U^T``.
        converged_: whether ``tol`` was reached.
        n_iter_: iterations run.
        lower_bound_: mean log-likelihood per frame before the last M-step (nats).
        history_: one :class:`FitProgress` per iteration.
    """

    weights_: Tensor
    means_: Tensor
    covariances_: Tensor
    precisions_cholesky_: Tensor
    converged_: bool
    n_iter_: int
    lower_bound_: float
    history_: list[FitProgress]
    n_features_in_: int

    def __init__(
        self,
        n_components: int = 30,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        init_params: str = "kmeans",
        weights_init: Tensor | np.ndarray | None = None,
        means_init: Tensor | np.ndarray | None = None,
        precisions_init: Tensor | np.ndarray | None = None,
        random_state: int | None = None,
        progress: ProgressHook | None = None,
        device: str | torch.device = "cpu",
        batch_frames: int = 32768,
        full_every: int = 1,
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.progress = progress
        self.device = device
        self.batch_frames = batch_frames
        self.full_every = full_every

    def fit(self: SelfMixture, frames: Any, y: object = None) -> SelfMixture:
        """Fit on ``frames`` (see :class:`FrameBatches` for what they may be; ``y`` is ignored).

        Raises:
            InputError: bad frames or parameters, fewer frames than components, or a component that collapsed.
        """
        self._check_parameters()
        batches = FrameBatches(frames, self.batch_frames, torch.device(self.device))
        weights, densities = self._start(batches)
        moments = densities.new_moments()
        self.history_, self.converged_ = [], False
        live: list[Tensor] = []
        full_next = True
        for iteration in range(1, self.max_iter + 1):
            full = full_next or iteration <= _FULL_AT_FIRST or (iteration - 1) % self.full_every == 0
            moments.reset()
            bound = self._pass(batches, weights, densities, moments, live, full)
            weights = self._m_step(densities, moments)
            change = self._report(iteration, round(float(bound[1])), float(bound[0] / bound[1]), full)
            self.converged_ = full and abs(change) < self.tol
            if self.converged_:
                break
            full_next = abs(change) < self.tol  # a sparse step that stalls asks for a full one
        covariances = densities.covariances(moments, self.reg_covar)
        del moments
        self._set_fitted(weights, densities, covariances)
        return self

    def predict(self, frames: Any) -> Any:
        """Most probable component of every frame, ``(n,)`` integers."""
        return like(self._joint(frames).argmax(dim=0), frames)

    def predict_proba(self, frames: Any, temperature: float = 1.0) -> Any:
        """Posterior of every component given each frame, ``(n, K)``; rows sum to one.

        Args:
            frames: ``(n, D)``.
            temperature: posteriors proportional to ``(pi_k N(x | mu_k, Sigma_k)) ** (1 / temperature)``: above one
                they are softer than the mixture's own, which in many dimensions are nearly one-hot.
        """
        if temperature <= 0:
            raise InputError(f"temperature must be positive, got {temperature}")
        return like((self._joint(frames) / temperature).softmax(dim=0).T, frames)

    def score_samples(self, frames: Any) -> Any:
        """Log-likelihood of every frame in nats, ``(n,)``."""
        return like(self._joint(frames).logsumexp(dim=0), frames)

    def score(self, frames: Any, y: object = None) -> float:
        """Mean log-likelihood per frame in nats; ``frames`` may be anything ``fit`` takes."""
        self._require_fitted("weights_")
        total, count = 0.0, 0
        for batch in FrameBatches(frames, self.batch_frames, self.means_.device):
            batch = as_frames(batch, self.means_.device, self.n_features_in_)
            total += float(self._joint(batch).logsumexp(dim=0).double().sum())
            count += len(batch)
        if not count:
            raise InputError("there are no frames to score")
        return total / count

    def restore(
        self: SelfMixture, weights: Tensor, means: Tensor, covariances: Tensor, precisions_cholesky: Tensor
    ) -> SelfMixture:
        """Become the fitted mixture with these parameters (shapes as in the attributes)."""
        densities = FAMILIES[self.covariance_type](means.to(torch.device(self.device)))
        densities.whiten(precisions_cholesky.to(densities.means.device))
        self._set_fitted(weights.to(densities.means), densities, covariances.to(densities.means.device))
        return self

    def _pass(
        self,
        batches: FrameBatches,
        weights: Tensor,
        densities: Gaussians,
        moments: Moments,
        live: list[Tensor],
        full: bool,
    ) -> Tensor:
        """E-step of every batch into the moments, summed over processes; (log-likelihood, frames), float64."""
        bound = weights.new_zeros(2)
        log_weights = weights.log().float()[:, None]
        sparse = self.full_every > 1 and self.covariance_type == "full"
        first = batches.count == 0
        for position, batch in enumerate(batches):
            mask = live[position] if sparse and not full else None
            joint = densities.log_densities(batch, mask).add_(log_weights)
            bound[0] += _normalise(joint)
            bound[1] += len(batch)
            densities.accumulate(moments, batch, joint)
            if sparse and full:
                live[position : position + 1] = [joint > _LIVE]
        if first:
            frames_of_all_processes(batches, self.n_components, "components")
        sum_over_processes([bound, *moments.tensors()])
        return bound

    def _m_step(self, densities: Gaussians, moments: Moments) -> Tensor:
        """Update the densities in place; new weights, float64 ``(K,)``."""
        counts = moments.counts.clone()
        for component in (counts < _LOST).nonzero().squeeze(1).tolist():
            donor = int(counts.argmax())
            logger.warning("component %d lost its frames; restarting it beside component %d", component, donor)
            moments.donors[component] = donor
            counts[component] = counts[donor] = counts[donor] / 2
        densities.update(moments, self.reg_covar)
        return counts / counts.sum()

    def _start(self, batches: FrameBatches) -> tuple[Tensor, Gaussians]:
        weights, means, precisions = self._given_start()
        if weights is None or means is None or precisions is None:
            found, densities = self._assign(batches)
            weights = found if weights is None else weights
            densities.means = densities.means if means is None else means
        else:
            densities = FAMILIES[self.covariance_type](means)
        if precisions is not None:
            densities.whiten(factors_from_precisions(precisions, self.covariance_type))
        return weights, densities

    def _assign(self, batches: FrameBatches) -> tuple[Tensor, Gaussians]:
        """M-step on the hard assignment of every frame to its nearest starting centre."""
        seed = shared_seed(self.random_state)
        count = self.n_components
        sample = sample_frames(batches, SAMPLE_PER_CLUSTER * count, seed, count, "components")
        if self.init_params == "kmeans":
            start = KMeans(count, random_state=seed, device=self.device, batch_frames=self.batch_frames)
            centres = start.fit(sample).cluster_centers_
        else:
            centres = seed_centres(sample, count, self.init_params, seed)
            start = KMeans(count, init=centres, device=self.device, max_iter=0).fit(sample)
        del sample
        densities = FAMILIES[self.covariance_type](centres)
        moments = densities.new_moments()
        for batch in batches:
            nearest = start.predict(batch)
            hard = batch.new_zeros(count, len(batch)).scatter_(0, nearest[None], 1.0)
            densities.accumulate(moments, batch, hard)
        sum_over_processes(moments.tensors())
        return self._m_step(densities, moments), densities

    def _check_parameters(self) -> None:
        if self.n_components < 1:
            raise InputError(f"n_components must be at least 1, got {self.n_components}")
        if self.covariance_type not in FAMILIES:
            raise InputError(f"unknown covariance_type {self.covariance_type!r}; choose one of {', '.join(FAMILIES)}")
        if self.init_params not in ("kmeans", "k-means++", "random"):
            raise InputError(f"unknown init_params {self.init_params!r}; choose 'kmeans', 'k-means++' or 'random'")
        if self.max_iter < 1 or self.full_every < 1 or self.reg_covar < 0:
            raise InputError("max_iter and full_every must be at least 1, reg_covar not negative")

    def _given_start(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Weights, means and precisions from the constructor, checked, float64."""
        device = torch.device(self.device)
        weights, means, precisions = (
            None if value is None else torch.as_tensor(value).to(device=device, dtype=torch.float64)
            for value in (self.weights_init, self.means_init, self.precisions_init)
        )
        count = self.n_components
        if weights is not None and (
            weights.shape != (count,) or (weights < 0).any() or abs(float(weights.sum()) - 1) > 1e-4
        ):
            raise InputError(f"weights_init must hold {count} weights, none negative, that sum to one")
        if means is not None and (means.ndim != 2 or len(means) != count):
            raise InputError(f"means_init must have the shape ({count}, D), got {tuple(means.shape)}")
        if precisions is not None:
            width = means.shape[1] if means is not None else precisions.shape[-1]
            full = {"full": (count, width, width), "tied": (width, width), "diag": (count, width)}
            expected = full.get(self.covariance_type, (count,))
            if precisions.shape != expected:
                raise InputError(f"precisions_init must have the shape {expected}, got {tuple(precisions.shape)}")
        return weights, means, precisions

    def _report(self, iteration: int, frames: int, bound: float, full: bool) -> float:
        change = bound - self.history_[-1].objective if self.history_ else math.inf
        step = FitProgress(iteration, self.max_iter, frames, bound, change, exact=full or self.full_every == 1)
        self.history_.append(step)
        kind = "" if step.exact else " (sparse)"
        logger.info("EM iteration %d%s: log-likelihood %.6g nats a frame, %d frames", iteration, kind, bound, frames)
        if self.progress is not None:
            self.progress(step)
        return change

    def _set_fitted(self, weights: Tensor, densities: Gaussians, covariances: Tensor) -> None:
        self._densities = densities
        self.weights_ = weights.float()
        self.means_ = densities.means.float()
        self.covariances_ = covariances
        self.precisions_cholesky_ = densities.factors()
        self.n_features_in_ = densities.width
        history = getattr(self, "history_", [])
        self.n_iter_ = len(history)
        self.lower_bound_ = history[-1].objective if history else math.nan

    def _joint(self, frames: Any) -> Tensor:
        """``log pi_k + log N(x_n | mu_k, Sigma_k)``, float32 ``(K, n)``."""
        self._require_fitted("weights_")
        tensor = as_frames(frames, self.means_.device, self.n_features_in_)
        parts = [self._densities.log_densities(part) for part in tensor.split(self.batch_frames)]
        return torch.cat(parts, dim=1).add_(self.weights_.log()[:, None])


def _normalise(joint: Tensor) -> Tensor:
    """Turn log joint probabilities ``(K, n)`` into posteriors in place; the summed log-likelihood, float64."""
    total = torch.zeros((), dtype=torch.float64, device=joint.device)
    for part in joint.split(4096, dim=1):
        evidence = part.logsumexp(dim=0)
        total += evidence.double().sum()
        part.sub_(evidence).exp_()
    return total
