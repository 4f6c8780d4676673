"""What a prototype stands for, in numbers: labels, typical moments, how long it lasts, where it lies.

Everything works on soft posteriors ``(frames, K)`` whose rows sum to one; hard assignments are the special case.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from pmam_plugin.prototypes.agreement import co_occurrence

NO_EVENT = "no event"
"""Name of the column of frames without any labelled event."""


@dataclass(frozen=True, order=True)
class Moment:
    """A frame of a clip that shows a prototype well.

    Attributes:
        share: mean posterior of the prototype around the frame, in [0, 1].
        clip: its id.
        frame: index on the grid of the posteriors.
    """

    share: float
    clip: str
    frame: int


@dataclass(frozen=True, eq=False)
class MeansMap:
    """Prototypes in a plane.

    Attributes:
        means: ``(K, 2)``.
        covariances: of the Gaussians in the plane, ``(K, 2, 2)``; None for prototypes without any (k-means).
        explained: share of the scatter of the means that the plane shows, in [0, 1].
    """

    means: np.ndarray
    covariances: np.ndarray | None
    explained: float


class PrototypeCounts:
    """Sums over frames, collected clip by clip, of K prototypes.

    Attributes:
        joint: posterior mass per prototype and label ``(K, classes + 1)``; the last column is frames without event.
        entropies: frames by entropy, in 40 bins evenly over [0, ln K] nats.
        entropy_sum: of all frames, in nats.
        mass: posterior mass per prototype, ``(K,)``.
        starts: posterior mass that appears from one frame to the next, ``(K,)``.
        clips: clips that hold at least one frame of a prototype with posterior above one half, ``(K,)``.
        frames: number of frames; ``labelled``: of those with known events; ``clip_count``: of clips.
    """

    def __init__(self, prototypes: int, classes: int) -> None:
        self.joint = np.zeros((prototypes, classes + 1))
        self.entropies = np.zeros(40, dtype=np.int64)
        self.entropy_sum = 0.0
        self.mass = np.zeros(prototypes)
        self.starts = np.zeros(prototypes)
        self.clips = np.zeros(prototypes, dtype=np.int64)
        self.frames = self.labelled = self.clip_count = 0

    def add(self, posteriors: np.ndarray, activity: np.ndarray | None = None) -> None:
        """Count a clip: posteriors ``(frames, K)``, padding left out, and events ``(frames, classes)`` where known."""
        if not len(posteriors):
            return
        gamma = np.asarray(posteriors, dtype=np.float64)
        entropy = entr(gamma).sum(axis=1)
        most = np.log(gamma.shape[1]) or 1.0
        place = np.minimum((entropy / most * len(self.entropies)).astype(int), len(self.entropies) - 1)
        self.entropies += np.bincount(place, minlength=len(self.entropies))
        self.entropy_sum += float(entropy.sum())
        self.mass += gamma.sum(axis=0)
        self.starts += np.clip(np.diff(gamma, axis=0, prepend=0.0), 0.0, None).sum(axis=0)
        self.clips += (gamma > 0.5).any(axis=0)
        self.frames += len(gamma)
        self.clip_count += 1
        if activity is not None:
            self.joint += co_occurrence(gamma, activity)
            self.labelled += len(gamma)

    @property
    def mean_duration(self) -> np.ndarray:
        """Frames a prototype lasts on average once it has begun, ``(K,)``: the run length, for hard assignments."""
        return self.mass / np.maximum(self.starts, 1e-12)


def purity(joint: np.ndarray) -> float:
    """Share of the mass whose label is the most frequent one of its prototype, in [0, 1]."""
    total = joint.sum()
    return float(joint.max(axis=1).sum() / total) if total > 0 else 0.0


def telling_labels(joint: np.ndarray) -> np.ndarray:
    """The label that says most about each prototype, ``(K,)`` indices of columns; -1 without mass.

    Frames without event outnumber all others, so the most frequent label of a prototype often is none. Chosen is the
    largest term ``P(l|k) ln(P(l|k) / P(l))`` of the divergence from all frames: frequent here, and more than elsewhere.
    """
    mass = joint.sum(axis=1, keepdims=True)
    if joint.sum() <= 0:
        return np.full(len(joint), -1)
    share = np.divide(joint, mass, out=np.zeros_like(joint), where=mass > 0)
    overall = joint.sum(axis=0) / joint.sum()
    ratio = np.divide(share, overall, out=np.ones_like(share), where=(share > 0) & (overall > 0))
    return np.where(mass[:, 0] > 0, (share * np.log(ratio)).argmax(axis=1), -1)


class TypicalMoments:
    """The moments at which a prototype reigns longest, one per clip, so that they differ.

    Posteriors are nearly one-hot, so many frames reach 1: ranked is the mean posterior over a stretch around the frame.

    Args:
        prototypes: K.
        count: moments kept per prototype.
        width: frames of the stretch.
    """

    def __init__(self, prototypes: int, count: int, width: int) -> None:
        self._count, self._width = count, max(1, width)
        self._heaps: list[list[Moment]] = [[] for _ in range(prototypes)]

    def add(self, clip: str, posteriors: np.ndarray) -> None:
        """Look at a clip's ``(frames, K)``, padding left out."""
        frames = len(posteriors)
        if not frames:
            return
        width = min(self._width, frames)
        running = np.concatenate([np.zeros((1, posteriors.shape[1])), np.cumsum(posteriors, axis=0, dtype=np.float64)])
        shares = (running[width:] - running[:-width]) / width
        best = shares.argmax(axis=0)
        for k, start in enumerate(best):
            moment = Moment(float(shares[start, k]), clip, int(start) + width // 2)
            if len(self._heaps[k]) < self._count:
                heapq.heappush(self._heaps[k], moment)
            elif moment > self._heaps[k][0]:
                heapq.heapreplace(self._heaps[k], moment)

    def best(self) -> list[list[Moment]]:
        """Per prototype its moments, best first; those with a share below a twentieth show something else."""
        return [sorted((moment for moment in heap if moment.share >= 0.05), reverse=True) for heap in self._heaps]


def principal_map(means: np.ndarray, covariances: np.ndarray | None, weights: np.ndarray) -> MeansMap:
    """The plane in which the means ``(K, D)``, weighted ``(K,)``, scatter most: principal components of the means.

    The Gaussians' covariances, if they have any, are ``(K, D, D)``.
    """
    return _project(means, covariances, weights, np.eye(means.shape[1]))


def discriminant_map(means: np.ndarray, covariances: np.ndarray, weights: np.ndarray) -> MeansMap:
    """The plane in which the Gaussians are easiest to tell apart (linear discriminant analysis of the mixture).

    Distances are measured in units of the mean covariance, so that a Gaussian of average spread shows as a circle of
    radius one and the distance of two means says how well a posterior can separate them. Arguments are those of
    :func:`principal_map`.
    """
    within = np.einsum("k,kde->de", weights / weights.sum(), covariances)
    values, vectors = np.linalg.eigh(within)
    whitening = vectors / np.sqrt(np.maximum(values, values[-1] * 1e-10))
    return _project(means, covariances, weights, whitening)


def _project(means: np.ndarray, covariances: np.ndarray | None, weights: np.ndarray, space: np.ndarray) -> MeansMap:
    share = weights / weights.sum()
    moved = (means - share @ means) @ space
    _, spread, axes = np.linalg.svd(moved * np.sqrt(share)[:, None], full_matrices=False)
    plane = np.zeros((means.shape[1], 2))
    found = min(2, len(axes))
    plane[:, :found] = axes[:found].T
    # The sign of an axis is arbitrary; the heavier half goes to the right and up, so that a map can be compared.
    points = moved @ plane
    plane *= np.where((share[:, None] * points**3).sum(axis=0) < 0, -1.0, 1.0)
    scatter = spread**2
    explained = float(scatter[:2].sum() / scatter.sum()) if scatter.sum() > 0 else 1.0
    basis = space @ plane
    shapes = None if covariances is None else np.einsum("dp,kde,eq->kpq", basis, covariances, basis)
    return MeansMap(moved @ plane, shapes, explained)
