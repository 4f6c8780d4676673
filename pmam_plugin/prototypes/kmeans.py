"""K-means for frames that need not fit in memory (Lloyd's algorithm on sufficient statistics)."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes.estimator import Estimator, FitProgress, ProgressHook, as_frames, like
from pmam_plugin.prototypes.frames import FrameBatches, frames_of_all_processes, sample_frames
from pmam_plugin.prototypes.processes import rows_of_all_processes, sum_over_processes

logger = logging.getLogger(__name__)

SelfKMeans = TypeVar("SelfKMeans", bound="KMeans")

# Frames per cluster that seeding looks at (and that a mixture's own start is fitted on).
SAMPLE_PER_CLUSTER = 512
# Frames whose distances are computed at a time.
_TILE = 8192


class KMeans(Estimator):
    """K-means with scikit-learn's parameters and attributes, on arrays, memory-mapped files or batches.

    A cluster that loses all its frames moves to a frame far from every centre.

    Args:
        n_clusters: number of clusters K.
        init: ``"k-means++"``, ``"random"`` (random frames), or the centres ``(K, D)``.
        max_iter: most passes over the data.
        tol: stop when the squared shifts of all centres sum to less than ``tol`` times the mean variance of the
            dimensions.
        random_state: seed of the start; None draws one from the global generator.
        progress: called with a :class:`FitProgress` after every iteration.
        device: where the fit runs.
        batch_frames: frames processed at a time.

    Attributes:
        cluster_centers_: ``(K, D)`` float32.
        inertia_: sum of squared distances to the nearest centre, before the last update.
        n_iter_: iterations run.
        converged_: whether ``tol`` was reached.
        history_: one :class:`FitProgress` per iteration.
    """

    cluster_centers_: Tensor
    inertia_: float
    n_iter_: int
    converged_: bool
    history_: list[FitProgress]
    n_features_in_: int

    def __init__(
        self,
        n_clusters: int = 30,
        *,
        init: str | Tensor | np.ndarray = "k-means++",
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: int | None = None,
        progress: ProgressHook | None = None,
        device: str | torch.device = "cpu",
        batch_frames: int = 32768,
    ):
        self.n_clusters = n_clusters
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.progress = progress
        self.device = device
        self.batch_frames = batch_frames

    def fit(self: SelfKMeans, frames: Any, y: object = None) -> SelfKMeans:
        """Fit on ``frames`` (see :class:`FrameBatches` for what they may be; ``y`` is ignored).

        Raises:
            InputError: bad frames, or fewer of them than clusters.
        """
        batches = FrameBatches(frames, self.batch_frames, torch.device(self.device))
        centres = self._start(batches)
        origin = centres.mean(dim=0).float().double()  # distances are computed about it, or float32 cancels
        self.history_ = []
        self.converged_ = False
        threshold = 0.0
        for iteration in range(1, self.max_iter + 1):
            statistics = _Statistics(centres, origin)
            for batch in batches:
                statistics.add(batch)
            if iteration == 1:
                frames_of_all_processes(batches, self.n_clusters, "clusters")
            moved = statistics.centres()
            if iteration == 1:
                threshold = self.tol * statistics.mean_variance()
            shift = float((moved - centres).square().sum())
            centres = moved
            self._report(iteration, statistics)
            if shift <= threshold:
                self.converged_ = True
                break
        self.cluster_centers_ = centres.float()
        self.n_features_in_ = centres.shape[1]
        self.n_iter_ = len(self.history_)
        self.inertia_ = self.history_[-1].objective if self.history_ else float("nan")
        return self

    def restore(self: SelfKMeans, centres: Tensor) -> SelfKMeans:
        """Become the fitted k-means with these centres, ``(K, D)``."""
        self.cluster_centers_ = centres.float().to(torch.device(self.device))
        self.n_features_in_ = centres.shape[1]
        return self

    def predict(self, frames: Any) -> Any:
        """Nearest cluster of every frame, ``(n,)`` integers."""
        return like(self._distances(frames).argmin(dim=1), frames)

    def transform(self, frames: Any) -> Any:
        """Euclidean distances to all centres, ``(n, K)``."""
        return like(self._distances(frames).clamp_min(0).sqrt(), frames)

    def score(self, frames: Any) -> float:
        """Minus the sum of squared distances to the nearest centre (larger is better)."""
        return -float(self._distances(frames).amin(dim=1).double().sum())

    def _distances(self, frames: Any) -> Tensor:
        self._require_fitted("cluster_centers_")
        centres = self.cluster_centers_
        tensor = as_frames(frames, centres.device, self.n_features_in_)
        return torch.cat([_squared_distances(part, centres) for part in tensor.split(_TILE)])

    def _start(self, batches: FrameBatches) -> Tensor:
        if self.n_clusters < 1:
            raise InputError(f"n_clusters must be at least 1, got {self.n_clusters}")
        if not isinstance(self.init, str):
            centres = torch.as_tensor(self.init).to(device=torch.device(self.device), dtype=torch.float64)
            if centres.ndim != 2 or len(centres) != self.n_clusters:
                raise InputError(f"init must have the shape ({self.n_clusters}, D), got {tuple(centres.shape)}")
            return centres
        seed = shared_seed(self.random_state)
        sample = sample_frames(batches, SAMPLE_PER_CLUSTER * self.n_clusters, seed, self.n_clusters, "clusters")
        return seed_centres(sample, self.n_clusters, self.init, seed).double()

    def _report(self, iteration: int, statistics: _Statistics) -> None:
        inertia = float(statistics.inertia)
        before = self.history_[-1].objective if self.history_ else float("inf")
        step = FitProgress(iteration, self.max_iter, int(statistics.counts.sum()), inertia, inertia - before)
        self.history_.append(step)
        logger.info("k-means iteration %d: inertia %.6g over %d frames", iteration, inertia, step.frames)
        if self.progress is not None:
            self.progress(step)


def seed_centres(sample: Tensor, count: int, method: str, seed: int) -> Tensor:
    """Choose ``count`` starting centres among the frames of a sample.

    Args:
        sample: ``(n, D)`` in random order.
        count: number of centres.
        method: ``"k-means++"`` (greedy, as in scikit-learn) or ``"random"``.
        seed: of k-means++.

    Raises:
        InputError: an unknown method.
    """
    if method == "random":
        return sample[:count].clone()
    if method != "k-means++":
        raise InputError(f"unknown start {method!r}; choose 'k-means++' or 'random', or give the centres")
    from sklearn.cluster import kmeans_plusplus

    centres, _ = kmeans_plusplus(sample.cpu().numpy(), count, random_state=seed % 2**32)
    return torch.from_numpy(centres).to(sample.device)


def shared_seed(random_state: int | None) -> int:
    """The seed itself, or one from the global generator, the first process's in every process."""
    if random_state is not None:
        return int(random_state)
    drawn = torch.randint(0, 2**31 - 1, (1,))
    return int(rows_of_all_processes(drawn)[0])


class _Statistics:
    """Sums of one pass: what the next centres, the inertia and lost clusters need."""

    def __init__(self, centres: Tensor, origin: Tensor):
        self._old = centres
        self._origin = origin
        self._counts = centres.new_zeros(len(centres))
        self._sums = torch.zeros_like(centres)
        self._totals = centres.new_zeros(2)  # inertia; sum of squared distances to the origin
        self._far_distances = centres.new_zeros(0)
        self._far_frames = centres.new_zeros(0, centres.shape[1])

    @property
    def counts(self) -> Tensor:
        return self._counts

    @property
    def inertia(self) -> Tensor:
        return self._totals[0]

    def add(self, batch: Tensor) -> None:
        centres = (self._old - self._origin).float()
        for part in batch.split(_TILE):
            offsets = part - self._origin.float()
            distances = _squared_distances(offsets, centres)
            nearest, labels = distances.min(dim=1)
            chosen = torch.zeros_like(distances).scatter_(1, labels[:, None], 1.0)
            self._counts += chosen.sum(dim=0)
            self._sums += chosen.T @ offsets
            self._totals += torch.stack([nearest.double().sum(), offsets.double().square().sum()])
            self._remember_far(nearest.double(), offsets.double())

    def _remember_far(self, distances: Tensor, offsets: Tensor) -> None:
        """Keep the K farthest frames, in case clusters lose all theirs."""
        kept = min(len(self._old), len(distances))
        distances, index = distances.topk(kept)
        pool = torch.cat([self._far_distances, distances])
        frames = torch.cat([self._far_frames, offsets[index]])
        self._far_distances, index = pool.topk(min(len(self._old), len(pool)))
        self._far_frames = frames[index]

    def centres(self) -> Tensor:
        """New centres, float64 ``(K, D)``, after summing over processes."""
        sum_over_processes([self._counts, self._sums, self._totals])
        moved = self._origin + self._sums / self._counts.clamp_min(1)[:, None]
        empty = (self._counts == 0).nonzero().squeeze(1)
        distances = rows_of_all_processes(self._far_distances)
        frames = rows_of_all_processes(self._far_frames)
        if len(empty):
            logger.warning("%d clusters lost all their frames; moving them to the farthest frames", len(empty))
            index = distances.argsort(descending=True, stable=True)[: len(empty)]
            moved[empty] = self._origin + frames[index]
        return moved

    def mean_variance(self) -> float:
        """Mean variance of the dimensions of all frames."""
        count, width = self._counts.sum(), self._old.shape[1]
        shift = self._sums.sum(dim=0) / count
        return float((self._totals[1] / count - shift.square().sum()) / width)


def _squared_distances(frames: Tensor, centres: Tensor) -> Tensor:
    """``|x_n - c_k|^2`` as ``(n, K)``; both near the origin, or float32 cancels."""
    squares = frames.square().sum(dim=1, keepdim=True)
    return torch.addmm(squares + centres.square().sum(dim=1), frames, centres.T, alpha=-2.0)
