"""One recording as the page's player wants it: sound, spectrogram, and a lane per class."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pmam_plugin.postprocessing.per_class import PerClass
from pmam_plugin.report.media import AudioEncoder, AudioSource, bytes_of, duration_of, mono_blocks, relative_link
from pmam_plugin.report.spectrogram import SpectrogramBuilder, spectrogram_data

_MOST_POINTS = 6_000  # of one score curve
_TOPS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
_HEADROOM = 1.4  # a threshold stands visibly below the top of its lane


@dataclass
class DetectedRecording:
    """A recording and what a model found in it.

    Attributes:
        name: as shown, usually the file name.
        source: the audio file, or samples with their rate in Hz.
        events: detections ``onset, offset, event_label[, score]``, seconds.
        scores: ``onset, offset, <label>...`` per frame, in [0, 1]; None leaves the curves out.
        labels: the classes the model knows, a lane each; by default those of the scores table, else those of the
            events. Events of other labels are left out.
        truth: annotated events ``onset, offset, event_label``; None when nobody annotated the recording.
        thresholds: what scores had to exceed, None where nobody knows: drawn as a line, and what the height of a lane
            is chosen by.
    """

    name: str
    source: AudioSource
    events: pd.DataFrame
    scores: pd.DataFrame | None = None
    labels: Sequence[str] = ()
    truth: pd.DataFrame | None = None
    thresholds: PerClass | None = None

    def __post_init__(self) -> None:
        if not self.labels and self.scores is not None:
            self.labels = [str(name) for name in self.scores.columns if name not in ("onset", "offset")]
        elif not self.labels and len(self.events):
            self.labels = sorted(self.events["event_label"].unique())


def recording_data(
    recording: DetectedRecording, embed: bool = True, page: str | os.PathLike[str] = "."
) -> dict[str, Any]:
    """Everything the player shows of a recording, JSON-able.

    Args:
        recording: is read here.
        embed: put the sound into the page; otherwise a file is referred to, and samples stay silent.
        page: where the page will lie (references are relative to it).

    Raises:
        InputError: the file is missing, damaged or no audio.
    """
    source, duration = recording.source, duration_of(recording.source)
    encoder = AudioEncoder() if embed else None
    spectrogram = SpectrogramBuilder(duration)
    for block in mono_blocks(source):
        spectrogram.add(block)
        if encoder is not None:
            encoder.write(block)
    audio = encoder.finish() if encoder is not None else None
    if audio is None and not isinstance(source, tuple):
        audio = {"href": relative_link(source, page)}
    return {
        "name": recording.name,
        "duration": duration,
        "audio": audio,
        "spectrogram": spectrogram_data(spectrogram.finish(), spectrogram.seconds_per_column),
        "annotated": recording.truth is not None,
        "lanes": [_lane(label, duration, recording) for label in recording.labels],
    }


def score_curve(table: pd.DataFrame, label: str, duration: float, threshold: float | None = None) -> dict[str, Any]:
    """Scores of a class on an even grid of at most 6000 points; a point is the highest score in its span.

    Returns:
        ``{"step": seconds per point, "top": the score at the top of the lane, "values": base64 bytes, 255 = top}``.
    """
    onsets, offsets = table["onset"].to_numpy(np.float64), table["offset"].to_numpy(np.float64)
    values = np.nan_to_num(table[label].to_numpy(np.float64), neginf=0.0)  # where there is no event at all
    if not len(values) or duration <= 0:
        return {"step": max(duration, 1.0), "top": 1.0, "values": ""}
    shortest = float(np.median(offsets - onsets))
    points = int(np.clip(np.ceil(duration / max(shortest, 1e-3) - 1e-6), 1, _MOST_POINTS))
    edges = np.linspace(0.0, points * max(shortest, duration / points), points + 1)
    first = np.minimum(np.searchsorted(offsets, edges[:-1] + 1e-9, side="right"), len(values) - 1)
    after = np.maximum(np.searchsorted(onsets, edges[1:] - 1e-9, side="left"), first + 1)
    padded = np.append(values, 0.0)
    highest = np.maximum.reduceat(padded, np.column_stack([first, after]).ravel())[::2]
    top = lane_top(float(highest.max()), threshold)
    return {"step": float(edges[1]), "top": top, "values": bytes_of(highest / top)}


def lane_top(highest: float, threshold: float | None = None) -> float:
    """The score that a lane is high: 1, or a round smaller one where scores and threshold are so low (1, 2 or 5 times
    a power of ten, not below a thousandth), so that a curve of low scores can be read."""
    needed = max(highest, _HEADROOM * (threshold or 0.0))
    return min((top for top in _TOPS if top >= needed), default=1.0)


def _lane(label: str, duration: float, recording: DetectedRecording) -> dict[str, Any]:
    scores, truth, threshold = recording.scores, recording.truth, recording.thresholds
    threshold = threshold.get(label) if isinstance(threshold, Mapping) else threshold
    return {
        "label": label,
        "detected": _spans(recording.events, label, duration),
        "truth": [] if truth is None else _spans(truth, label, duration),
        "threshold": threshold,
        "scores": score_curve(scores, label, duration, threshold) if scores is not None and label in scores else None,
    }


def _spans(events: pd.DataFrame, label: str, duration: float) -> list[list[float | None]]:
    """``[onset, offset, score or None]`` of the events of a class, in time order, inside the recording."""
    rows = events[events["event_label"] == label].sort_values("onset") if len(events) else events
    known = rows["score"] if "score" in rows else [None] * len(rows)
    return [
        [max(0.0, float(onset)), min(duration, float(offset)), None if score is None else float(score)]
        for onset, offset, score in zip(rows["onset"], rows["offset"], known)
    ]
