"""Overlapping correlated clusters for the tests of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pmam_plugin.prototypes import GaussianMixture


def clusters(frames: int = 600, width: int = 6, count: int = 4, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    means = random.normal(size=(count, width)) * 1.5 + 3.0
    shapes = random.normal(size=(count, width, width)) * 0.6
    label = random.integers(count, size=frames)
    offsets = np.einsum("nij,nj->ni", shapes[label], random.normal(size=(frames, width)))
    return (means[label] + offsets + 0.2 * random.normal(size=(frames, width))).astype(np.float32)


def start(data: NDArray[Any], count: int, covariance_type: str, seed: int = 0) -> tuple[NDArray[np.float64], ...]:
    """Unequal weights, random frames as means, and precisions ``(count, width, width)`` or ``(count, width)``."""
    random = np.random.default_rng(seed)
    width = data.shape[1]
    weights = random.uniform(0.5, 1.5, count)
    root = random.normal(size=(count, width, width)) * 0.2 + np.eye(width)
    means = data[random.permutation(len(data))[:count]].astype(np.float64)
    diagonal = random.uniform(0.3, 2.0, (count, width))
    precisions = np.einsum("kij,klj->kil", root, root) if covariance_type == "full" else diagonal
    return weights / weights.sum(), means, precisions


def started(weights: NDArray[Any], means: NDArray[Any], precisions: NDArray[Any]) -> GaussianMixture:
    """The mixture with the parameters of :func:`start`, for a fit to go on from."""
    full = precisions.ndim == 3
    # The Cholesky factor of the matrix turned round, turned back, is the upper triangular one.
    factors = np.linalg.cholesky(precisions[:, ::-1, ::-1])[:, ::-1, ::-1] if full else np.sqrt(precisions)
    model = GaussianMixture(len(weights), covariance_type="full" if full else "diag")
    return model.restore(*(torch.from_numpy(value.astype(np.float32)) for value in (weights, means, factors)))
