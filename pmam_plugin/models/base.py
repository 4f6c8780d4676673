"""What every full model is: features in, a :class:`Detection` out, and scores tables from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from pmam_plugin.postprocessing.rows import ScoreRows

if TYPE_CHECKING:
    import pandas as pd

    from pmam_plugin.features import FrontEnds


@dataclass
class Detection:
    """What a full model says about a batch of clips.

    Attributes:
        frames: frame probabilities, ``(batch, frames, classes)``, zero where a frame is padding.
        clips: clip probabilities pooled from the frames, ``(batch, classes)``.
        tags: clip probabilities of a separate tag branch, ``(batch, classes)``, or None.
        embedding: the frame embeddings the head saw, ``(batch, frames, dim)``, or None.
        encoded: the encoder's frames, before the context network, ``(batch, frames, encoder's dim)``, or None.
    """

    frames: Tensor
    clips: Tensor
    tags: Tensor | None = None
    embedding: Tensor | None = None
    encoded: Tensor | None = None


class SoundEventModel(nn.Module):
    """Base of all full models, so that inference, training and reports need no second source.

    Attributes:
        labels: class names in output order.
        sample_rate: of the waveform its front ends expect, Hz.
        frame_rate: frames per second of ``Detection.frames``.
        clip_seconds: the clip length it was trained with, s.
        frontend: waveform ``(batch, samples)`` -> features, name -> ``(batch, mel, frames)``.
        pretrained_name: of :meth:`pretrained_state` in the folder of a run.
    """

    labels: tuple[str, ...]
    sample_rate: int
    frame_rate: float
    clip_seconds: float
    frontend: FrontEnds
    pretrained_name: str

    def forward(self, features: Mapping[str, Tensor], padding: Tensor | None = None, **options: Any) -> Detection:
        """Detect sound events.

        Args:
            features: what ``frontend`` returned.
            padding: true where a frame is padding, ``(batch, frames)``.
            options: what the single model offers (temperature, windows, ...).
        """
        raise NotImplementedError

    def output_frames(self, samples: int) -> int:
        """Exact number of frames of ``Detection.frames`` for a waveform of this many samples."""
        raise NotImplementedError

    def pretrained_state(self) -> dict[str, Tensor]:
        """What pre-training hands on to fine-tuning; :meth:`load_pretrained` of a model of the same shape takes it."""
        raise NotImplementedError

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Start from what pre-training of this kind of model left behind; the rest keeps its initial weights."""
        raise NotImplementedError

    def score_tables(self, detection: Detection, durations: Sequence[float]) -> list[pd.DataFrame]:
        """Frame probabilities as one scores table per clip, not post-processed.

        Args:
            detection: of a batch.
            durations: length of every clip in seconds.

        Returns:
            Per clip ``onset, offset, <label>...`` with ``ceil(duration * frame_rate)`` rows; the last offset is the
            duration.
        """
        return [rows.table() for rows in self.score_rows(detection, durations)]

    def score_rows(self, detection: Detection, durations: Sequence[float]) -> list[ScoreRows]:
        """:meth:`score_tables` as arrays."""
        scores = detection.frames.detach().float().cpu().numpy()
        return [
            frame_rows(clip, duration, self.frame_rate, self.labels)
            for clip, duration in zip(scores, durations, strict=True)
        ]

    def clip_scores(self, detection: Detection) -> Tensor:
        """The model's best clip-level probabilities, ``(batch, classes)``: of the tag branch if it has one."""
        return detection.clips if detection.tags is None else detection.tags


def frame_rows(
    scores: np.ndarray, duration: float, frame_rate: float, labels: Sequence[str], first: int = 0
) -> ScoreRows:
    """One clip's frame probabilities as rows of a scores table.

    A frame grid and a clip's end rarely meet exactly: up to two missing frames repeat the last one, anything the
    model did not see beyond them scores zero, and frames past the end are dropped.

    Args:
        scores: ``(frames, classes)``.
        duration: clip length in seconds.
        frame_rate: frames per second.
        labels: class names, in the order of the columns of ``scores``.
        first: frame of the clip that ``scores`` begin with; there are no rows before it.
    """
    rows = max(1, math.ceil(duration * frame_rate - 1e-6) - first)
    missing = rows - len(scores)
    if missing > 0:
        scores = np.pad(scores, ((0, min(missing, 2)), (0, 0)), mode="edge")
        scores = np.pad(scores, ((0, max(missing - 2, 0)), (0, 0)))
    edges = np.append((first + np.arange(rows)) / frame_rate, duration)
    return ScoreRows(scores[:rows].astype(np.float64), edges[:-1], edges[1:], labels)
