"""K-means: scikit-learn's on a sample in memory, or in mini-batches over all frames."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.processes import share, sum_over_processes
from pmam_plugin.prototypes.frames import Frames, as_frames

logger = logging.getLogger(__name__)

_MINI_BATCH = 8192  # frames


class KMeans:
    """Cluster centres as prototypes; pseudo-labels are one-hot.

    Args:
        n_clusters: number of clusters K.
        minibatch: scikit-learn's MiniBatchKMeans, batches of 8192 drawn from all frames, instead of its KMeans on one
            sample in memory.
        sample: most frames of that sample.
        max_iter: most passes over the sample; number of mini-batches.
        random_state: seed.
        device: where frames are assigned to centres; the fit itself runs on the CPU, in the first process.

    Attributes:
        means_: ``(K, D)`` float32.
        weights_: even, ``(K,)``.
    """

    kind = "kmeans"

    means_: Tensor
    weights_: Tensor

    def __init__(
        self,
        n_clusters: int = 30,
        *,
        minibatch: bool = False,
        sample: int = 131072,
        max_iter: int = 300,
        random_state: int = 0,
        device: str | torch.device = "cpu",
    ):
        if n_clusters < 1 or max_iter < 1 or sample < 1:
            raise InputError("k-means needs n_clusters, sample and max_iter of at least 1")
        self.n_clusters, self.minibatch, self.sample, self.max_iter = n_clusters, minibatch, sample, max_iter
        self.random_state, self.device = int(random_state) % 2**32, torch.device(device)

    def fit(self, frames: Any, state: str | os.PathLike[str] | None = None) -> KMeans:
        """Fit on ``frames`` (an array or :class:`Frames`; ``state`` is the mixture's and has no use here).

        Raises:
            InputError: bad frames, or fewer (different) frames than clusters.
        """
        data = frames if isinstance(frames, Frames) else Frames(frames, self.device)
        data = Frames(data.frames, data.device, data.batch_frames, self.n_clusters, data.transform)
        centres = torch.zeros(self.n_clusters, data.sample(1, 0).shape[1], dtype=torch.float64, device=self.device)
        if share()[0] == 0:
            centres += torch.from_numpy(self._found(data)).to(centres)
        sum_over_processes([centres])
        if len(centres.unique(dim=0)) < self.n_clusters:
            raise InputError(f"the frames are too much alike for {self.n_clusters} clusters; ask for fewer")
        return self.restore(centres.float())

    def predict_proba(self, frames: Any, temperature: float = 1.0) -> Tensor:
        """One at the nearest centre of every frame, else zero, ``(n, K)``; a temperature has no meaning here."""
        if not hasattr(self, "means_"):
            raise InputError("this k-means is not fitted yet; call fit or load a saved one first")
        origin = self.means_.mean(dim=0)  # distances are computed about it, or float32 cancels
        centres = self.means_ - origin
        squares = centres.square().sum(dim=1)
        labels = [
            torch.addmm(squares, part - origin, centres.T, alpha=-2.0).argmin(dim=1)
            for part in as_frames(frames, self.device, self.means_.shape[1]).split(8192)
        ]
        return torch.nn.functional.one_hot(torch.cat(labels), self.n_clusters).float()

    def tensors(self) -> dict[str, Tensor]:
        """Everything :meth:`restore` needs."""
        return {"means": self.means_}

    def restore(self, means: Tensor) -> KMeans:
        """Become the fitted k-means with these centres, ``(K, D)``."""
        self.means_ = means.to(self.device)
        self.weights_ = torch.full_like(self.means_[:, 0], 1 / len(means))
        return self

    def _found(self, data: Frames) -> NDArray[np.float64]:
        from sklearn import cluster

        if self.minibatch:
            model = cluster.MiniBatchKMeans(self.n_clusters, random_state=self.random_state)
            for number in range(self.max_iter):
                model.partial_fit(data.sample(_MINI_BATCH, self.random_state + number))
        else:
            model = cluster.KMeans(self.n_clusters, max_iter=self.max_iter, random_state=self.random_state)
            model.fit(data.sample(self.sample, self.random_state))
        logger.info("k-means: %d iterations, inertia %.6g", getattr(model, "n_iter_", self.max_iter), model.inertia_)
        return np.asarray(model.cluster_centers_, dtype=np.float64)
