"""How well prototypes and labels agree, which no fit has seen."""

from __future__ import annotations

import numpy as np
from scipy.stats import entropy


def co_occurrence(posteriors: np.ndarray, activity: np.ndarray) -> np.ndarray:
    """Posterior mass shared between prototypes and labels.

    A frame with several events is split evenly among them, one without any counts for the extra last column: every
    frame weighs one.

    Args:
        posteriors: ``(frames, K)``.
        activity: 0 or 1, ``(frames, classes)``.

    Returns:
        ``(K, classes + 1)``.
    """
    active = np.concatenate([activity, (activity.sum(axis=1) == 0)[:, None]], axis=1).astype(np.float64)
    return posteriors.T @ (active / active.sum(axis=1, keepdims=True))


def normalised_mutual_information(joint: np.ndarray) -> float:
    """Mutual information of rows and columns over the mean of their entropies (scikit-learn's default), in [0, 1].

    Args:
        joint: masses, ``(prototypes, labels)``; zero rows and columns do no harm.
    """
    if joint.sum() <= 0:
        return 0.0
    rows, columns = entropy(joint.sum(axis=1)), entropy(joint.sum(axis=0))
    information, mean = rows + columns - entropy(joint, axis=None), (rows + columns) / 2
    return float(np.clip(information / mean, 0.0, 1.0)) if mean > 1e-12 else 0.0
