"""Which passages of unlabelled recordings are worth an annotator's next half hour.

A passage is worth listening to if the model is undecided about it, and if it sounds unlike the ones chosen before: a
hundred doubtful versions of one hum teach as much as one. How alike two passages sound is read off prototypes, a
mixture fitted to the frame embeddings of the recordings themselves: a passage is its mean posterior.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import entr, expit, logit
from torch import Tensor

from pmam_plugin.audio import audio_blocks
from pmam_plugin.errors import InputError, Progress
from pmam_plugin.inference.detector import SoundEventDetector
from pmam_plugin.inference.long_audio import Cutter, Grid, Window
from pmam_plugin.inference.scoring import Scorer
from pmam_plugin.models.sedt import SEDT
from pmam_plugin.postprocessing.per_class import per_class

logger = logging.getLogger(__name__)

_FRAMES = 20_000  # frames that the mixture is fitted to
_ENOUGH_FRAMES = 20  # frames per prototype


@dataclass(frozen=True)
class Passage:
    """A stretch of a recording.

    Attributes:
        filename: the recording, as it was given.
        onset: s. offset: s.
        label: the class the model is most undecided about.
        uncertainty: entropy of that decision, 0 to 1 bit.
        novelty: 1 less the likeness (cosine of mean posteriors) to the passage chosen before that is most like it.
    """

    filename: str
    onset: float
    offset: float
    label: str
    uncertainty: float
    novelty: float


def suggest_passages(
    detector: SoundEventDetector,
    recordings: Sequence[str | os.PathLike[str]],
    minutes: float = 30.0,
    seconds: float = 5.0,
    prototypes: int = 30,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Passage]:
    """Rank passages for annotation, best first.

    Greedy: the next passage is the one of highest ``uncertainty * novelty``. Uncertainty is the binary entropy of a
    class's highest score in the passage, seen from its threshold (a score right at the threshold is one bit).

    Args:
        detector: a model that has frame embeddings.
        recordings: files without labels.
        minutes: how much to choose.
        seconds: length of a passage.
        prototypes: components of the mixture; fewer where there are few frames.
        seed: of the mixture's start.
        progress: is told of every recording that has been heard.

    Raises:
        InputError: no recordings, none that can be read, or settings that choose nothing. One that cannot be read is
            logged, and does not stop the rest.
    """
    if not recordings:
        raise InputError("no recordings to choose passages from; name a folder that holds some")
    if minutes <= 0 or seconds <= 0:
        raise InputError(f"{minutes:g} minutes in passages of {seconds:g} s choose nothing; both must be more than 0")
    if isinstance(detector.model, SEDT):
        raise InputError("SEDT has no frame embeddings to tell passages apart by; give a frame-based model")
    scorer = Scorer(detector.model, detector.scoring, detector.batch_size, tags=False)
    found: list[Passage] = []
    embeddings: list[np.ndarray] = []
    for done, path in enumerate(recordings, 1):
        try:
            heard = list(_passages(detector, scorer, path, seconds))
        except InputError as error:
            if done == len(recordings) and not found:
                raise
            logger.warning("left out: %s", error)
            continue
        found += [passage for passage, _ in heard]
        embeddings += [frames for _, frames in heard]
        if progress is not None:
            progress("listening", done, len(recordings))
    profiles = _profiles(embeddings, prototypes, seed)
    return _chosen(found, profiles, minutes * 60)


def _windows(grid: Grid, blocks: Iterable[Tensor]) -> Iterator[Window]:
    """Every second window, which together hear all, and the last."""
    cutter = Cutter(grid)
    yield from itertools.islice((window for block in blocks for window in cutter.feed(block)), 0, None, 2)
    yield from cutter.finish()


def _passages(
    detector: SoundEventDetector, scorer: Scorer, path: str | os.PathLike[str], seconds: float
) -> Iterator[tuple[Passage, np.ndarray]]:
    """Passages of a recording in order, with their frame embeddings ``(frames, dim)``."""
    labels, rate = detector.labels, detector.frame_rate
    limits = per_class(detector.postprocessing.threshold, labels, "threshold")
    windows = _windows(scorer.grid(), audio_blocks(path, detector.sample_rate))
    step, heard = max(1, round(seconds * rate)), 0
    while batch := list(itertools.islice(windows, detector.batch_size)):
        detection = scorer.forward(batch)
        assert detection.embedding is not None
        scores = scorer.masked(detection, batch)
        for row, window in enumerate(batch):
            embedding = detection.embedding[row].float().cpu().numpy()
            first = max(heard - window.first_frame, 0)
            # Cut evenly: a window that is a frame longer than two passages is two, not two and one of a frame.
            count = max(min(1, window.frames - first), round((window.frames - first) / step))
            edges = np.linspace(first, window.frames, count + 1).astype(int)
            for start, stop in itertools.pairwise(edges.tolist()):
                entropy = _entropy(scores[row][start:stop].max(axis=0), limits)
                best = int(entropy.argmax())
                onset, offset = ((window.first_frame + frame) / rate for frame in (start, stop))
                passage = Passage(os.fspath(path), onset, offset, labels[best], float(entropy[best]), 1.0)
                yield passage, embedding[start:stop]
            heard = window.end_frame


def _entropy(scores: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Binary entropy in bits of scores seen from their thresholds, ``(classes,)``."""
    odds = logit(np.clip(scores, 1e-6, 1 - 1e-6)) - logit(np.clip(limits, 1e-6, 1 - 1e-6))
    return (entr(expit(odds)) + entr(expit(-odds))) / np.log(2)


def _profiles(embeddings: Sequence[np.ndarray], prototypes: int, seed: int) -> np.ndarray:
    """Mean posterior of every passage over prototypes of all of them, at unit length, ``(passages, prototypes)``."""
    try:
        from pmam_plugin.prototypes import GaussianMixture
    except ImportError as error:
        raise InputError(f"suggesting needs scikit-learn ({error}); pip install 'pmam-plugin[train]'") from error
    frames = np.concatenate(embeddings).astype(np.float32)
    centre, scale = frames.mean(axis=0), frames.std(axis=0) + 1e-6
    sample = frames[np.random.default_rng(seed).permutation(len(frames))[:_FRAMES]]
    count = max(1, min(prototypes, len(sample) // _ENOUGH_FRAMES))
    mixture = GaussianMixture(count, covariance_type="diag", reg_covar=1e-2, max_iter=30, random_state=seed)
    mixture.fit(_standardised(sample, centre, scale))
    means = [mixture.predict_proba(_standardised(piece, centre, scale)).mean(dim=0) for piece in embeddings]
    profiles = torch.stack(means).numpy()
    return profiles / np.linalg.norm(profiles, axis=1, keepdims=True)


def _standardised(frames: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> Tensor:
    return torch.from_numpy((frames - centre) / scale)


def _chosen(passages: Sequence[Passage], profiles: np.ndarray, seconds: float) -> list[Passage]:
    """Passages of the highest uncertainty times novelty, one after the other, until ``seconds`` are full."""
    uncertainty = np.array([passage.uncertainty for passage in passages])
    novelty, free = np.ones(len(passages)), np.ones(len(passages), dtype=bool)
    chosen: list[Passage] = []
    filled = 0.0
    while free.any() and filled < seconds:
        best = int(np.where(free, uncertainty * novelty, -1.0).argmax())
        free[best] = False
        chosen.append(replace(passages[best], novelty=float(novelty[best])))
        filled += chosen[-1].offset - chosen[-1].onset
        novelty = np.minimum(novelty, 1.0 - np.clip(profiles @ profiles[best], 0.0, 1.0))
    return chosen
