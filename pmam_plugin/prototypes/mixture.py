"""Gaussian mixtures for frames that need not fit in memory."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path
from pmam_plugin.processes import share, sum_over_processes, wait_for_all
from pmam_plugin.prototypes.frames import Frames, as_frames
from pmam_plugin.prototypes.gaussians import FAMILIES, Gaussians, Moments, covariances
from pmam_plugin.prototypes.kmeans import KMeans
from pmam_plugin.weights import read_tensors

logger = logging.getLogger(__name__)

# A component whose responsibilities sum to less than one frame is lost; it restarts beside the heaviest one.
_LOST = 1.0
# Frames per component of the sample whose k-means starts the mixture.
_SAMPLE_PER_COMPONENT = 512


class GaussianMixture:
    """A mixture of K Gaussians with scikit-learn's names, on arrays or memory-mapped files.

    EM alternates

        E:  r_nk = pi_k N(x_n | mu_k, Sigma_k) / sum_l pi_l N(x_n | mu_l, Sigma_l)     (in the log domain)
        M:  pi_k = N_k / N, and mu_k, Sigma_k from the moments in :mod:`~pmam_plugin.prototypes.gaussians`

    batch by batch, so that only the statistics stay in memory; under torch.distributed each process reads its own part
    of the frames and the statistics are summed. From the same start the log-likelihood follows scikit-learn's.

    Args:
        n_components: number of components K.
        covariance_type: ``"full"`` or ``"diag"``.
        tol: stop when the mean log-likelihood per frame changes by less (nats).
        reg_covar: added to the diagonal of every covariance.
        max_iter: most EM iterations.
        random_state: seed of the start, scikit-learn's k-means on a sample of the frames.
        device: where the fit runs.
        batch_frames: frames processed at a time.

    Attributes:
        weights_: ``(K,)`` float32, as the following.
        means_: ``(K, D)``.
        precisions_cholesky_: upper triangular ``U`` with ``Sigma^-1 = U U^T``, ``(K, D, D)``; for diagonal covariances
            their inverse roots, ``(K, D)``.
        converged_: whether ``tol`` was reached.
        history_: mean log-likelihood per frame (nats) before every M-step.
    """

    kind = "gmm"

    weights_: Tensor
    means_: Tensor
    precisions_cholesky_: Tensor
    converged_: bool
    history_: list[float]

    def __init__(
        self,
        n_components: int = 30,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        random_state: int = 0,
        device: str | torch.device = "cpu",
        batch_frames: int = 32768,
    ):
        if n_components < 1 or max_iter < 1 or reg_covar < 0:
            raise InputError("a mixture needs n_components and max_iter of at least 1 and reg_covar not negative")
        if covariance_type not in FAMILIES:
            raise InputError(f"unknown covariance_type {covariance_type!r}; choose {' or '.join(FAMILIES)}")
        self.n_components, self.covariance_type = n_components, covariance_type
        self.tol, self.reg_covar, self.max_iter = tol, reg_covar, max_iter
        self.random_state, self.device, self.batch_frames = random_state, torch.device(device), batch_frames

    def fit(
        self,
        frames: Any,
        start: GaussianMixture | None = None,
        state: str | os.PathLike[str] | None = None,
    ) -> GaussianMixture:
        """Fit on ``frames`` (an array or :class:`Frames`).

        Args:
            frames: ``(n, D)``, the same in every process.
            start: a fitted (or restored) mixture of the same size and type; by default k-means of a sample.
            state: a file that keeps the fit after every iteration; where it exists, the fit goes on from it and ends
                as one that was never stopped, to the last bit.

        Raises:
            InputError: bad frames, fewer frames than components, a component that collapsed, or the state of another
                fit.
        """
        transform = frames.transform if isinstance(frames, Frames) else None
        data = frames.frames if isinstance(frames, Frames) else frames
        data = Frames(data, self.device, self.batch_frames, self.n_components, transform)
        weights, densities = self._resume(state, data) or self._start(data, start)
        moments = densities.new_moments()
        while not self.converged_ and len(self.history_) < self.max_iter:
            moments.reset()
            bound = self._expect(data, weights, densities, moments) / len(data)
            weights = self._maximise(densities, moments)
            self.converged_ = bool(self.history_) and abs(bound - self.history_[-1]) < self.tol
            self.history_.append(bound)
            logger.info("EM iteration %d: log-likelihood %.6g nats a frame", len(self.history_), bound)
            self._keep(state, data, weights, densities)
        self._set_fitted(weights, densities)
        return self

    @property
    def covariances_(self) -> Tensor:
        """``(K, D, D)`` float64, whatever the covariance type."""
        return covariances(self.precisions_cholesky_)

    def predict_proba(self, frames: Any, temperature: float = 1.0) -> Tensor:
        """Posterior of every component given each frame, ``(n, K)``; rows sum to one.

        Args:
            frames: array or tensor ``(n, D)``.
            temperature: posteriors proportional to ``(pi_k N(x | mu_k, Sigma_k)) ** (1 / temperature)``: above one
                they are softer than the mixture's own, which in many dimensions are nearly one-hot.
        """
        if temperature <= 0:
            raise InputError(f"temperature must be positive, got {temperature}")
        return (self._joint(frames) / temperature).softmax(dim=0).T

    def score(self, frames: Any) -> float:
        """Mean log-likelihood per frame of an array or tensor ``(n, D)``, in nats."""
        return float(self._joint(frames).logsumexp(dim=0).double().mean())

    def tensors(self) -> dict[str, Tensor]:
        """Everything :meth:`restore` needs."""
        return {"weights": self.weights_, "means": self.means_, "precisions_cholesky": self.precisions_cholesky_}

    def restore(self, weights: Tensor, means: Tensor, precisions_cholesky: Tensor) -> GaussianMixture:
        """Become the fitted mixture with these parameters (shapes as in the attributes)."""
        densities = FAMILIES[self.covariance_type](means.to(self.device))
        densities.whiten(precisions_cholesky.to(self.device))
        self._set_fitted(weights.to(self.device), densities)
        return self

    def _start(self, data: Frames, start: GaussianMixture | None) -> tuple[Tensor, Gaussians]:
        self.history_, self.converged_ = [], False
        if start is not None:
            self.restore(**start.tensors())
            return self.weights_.double(), self._densities
        # M-step on the hard assignment of every frame to its nearest centre.
        count = self.n_components
        sample = _SAMPLE_PER_COMPONENT * count
        clusters = KMeans(count, sample=sample, random_state=self.random_state, device=self.device).fit(data)
        densities = FAMILIES[self.covariance_type](clusters.means_)
        moments = densities.new_moments()
        for batch in data:
            densities.accumulate(moments, batch, clusters.predict_proba(batch).T.contiguous())
        sum_over_processes(moments.tensors())
        return self._maximise(densities, moments), densities

    def _expect(self, data: Frames, weights: Tensor, densities: Gaussians, moments: Moments) -> float:
        """E-step of every batch into the moments; the log-likelihood summed over frames and processes."""
        bound = weights.new_zeros(())
        log_weights = weights.log().float()[:, None]
        for batch in data:
            joint = densities.log_densities(batch).add_(log_weights)
            bound += _normalise(joint)
            densities.accumulate(moments, batch, joint)
        sum_over_processes([bound, *moments.tensors()])
        return float(bound)

    def _maximise(self, densities: Gaussians, moments: Moments) -> Tensor:
        """Update the densities in place; new weights, float64 ``(K,)``."""
        counts = moments.counts.clone()
        for component in (counts < _LOST).nonzero().squeeze(1).tolist():
            donor = int(counts.argmax())
            logger.warning("component %d lost its frames; restarting it beside component %d", component, donor)
            moments.donors[component] = donor
            counts[component] = counts[donor] = counts[donor] / 2
        densities.update(moments, self.reg_covar)
        return counts / counts.sum()

    def _signature(self, data: Frames) -> str:
        settings = (self.n_components, self.covariance_type, self.reg_covar, self.random_state, len(data))
        return json.dumps([*settings, data.frames.shape[1]])

    def _keep(self, state: str | os.PathLike[str] | None, data: Frames, weights: Tensor, densities: Gaussians) -> None:
        if state is None or share()[0] != 0:
            return
        tensors = {name: tensor.cpu().contiguous() for name, tensor in densities.state().items()}
        tensors |= {"weights": weights.cpu(), "history": torch.tensor(self.history_, dtype=torch.float64)}
        metadata = {"fit": self._signature(data), "converged": str(int(self.converged_))}
        with atomic_path(state) as temporary:
            save_file(tensors, temporary, metadata)

    def _resume(self, state: str | os.PathLike[str] | None, data: Frames) -> tuple[Tensor, Gaussians] | None:
        if state is None or not Path(state).exists():
            wait_for_all()
            return None
        tensors = read_tensors(state, ("weights", "means", "centre", "factors", "history"), "delete it")
        with safe_open(state, framework="pt") as file:
            metadata = file.metadata() or {}
        wait_for_all()  # nobody writes the next state while others still look for this one
        if metadata.get("fit") != self._signature(data):
            raise InputError(f"{state}: is the state of another fit; delete it")
        densities = FAMILIES[self.covariance_type](tensors["means"].to(self.device))
        densities.restore(tensors)
        self.history_, self.converged_ = tensors["history"].tolist(), metadata["converged"] == "1"
        logger.info("the fit goes on after EM iteration %d", len(self.history_))
        return tensors["weights"].to(self.device), densities

    def _set_fitted(self, weights: Tensor, densities: Gaussians) -> None:
        self._densities = densities
        self.weights_, self.means_ = weights.float(), densities.means.float()
        self.precisions_cholesky_ = densities.factors()

    def _joint(self, frames: Any) -> Tensor:
        """``log pi_k + log N(x_n | mu_k, Sigma_k)``, float32 ``(K, n)``."""
        if not hasattr(self, "weights_"):
            raise InputError("this mixture is not fitted yet; call fit or load a saved one first")
        tensor = as_frames(frames, self.means_.device, self.means_.shape[1])
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
