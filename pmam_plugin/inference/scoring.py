"""One path from sound to scores: validation, evaluation, the detector, streams and SpeechBrain's interface all take it.

A recording is heard in windows of the model's clip length, each zero-padded to that length if it is shorter. What else
is in a batch therefore changes nothing, and nobody's scores differ from anybody else's: those that a figure was
computed from are those that a user gets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.inference.encoded import EncodedWindows
from pmam_plugin.inference.long_audio import Cutter, Grid, Joiner, Window
from pmam_plugin.models.base import Detection, SoundEventModel, frame_rows
from pmam_plugin.models.detector import FrameDetector
from pmam_plugin.models.sedt import SEDT
from pmam_plugin.postprocessing import ScoreRows, Scoring

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class ScoredClip:
    """A recording's scores before filters.

    Attributes:
        rows: of the scores table, weak mask applied; None after an error.
        frames: the same on the model's frame grid, ``(frames, classes)``; an event-based model's table is finer.
        clips: clip-level probabilities, ``(classes,)``; of a long recording the highest over its windows.
        events: those the model itself lists, where they were asked for and one window holds the recording.
        error: why there are none, or None.
    """

    rows: ScoreRows | None = None
    frames: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    clips: np.ndarray = field(default_factory=lambda: np.zeros(0))
    events: pd.DataFrame | None = None
    error: InputError | None = None

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows as ``onset, offset, <label>...``; empty after an error."""
        return table_of(self.rows)


class Scorer:
    """Scores recordings with a model.

    Args:
        model: in evaluation mode while it is used.
        scoring: how; its filters are not applied here.
        batch_size: windows scored at a time.
        autocast: context the network runs in; the front end always works in float32.
        tags: compute clip-level probabilities of a tag branch, which no mask needs.
        events: also list the events of a model that predicts sets, by its published protocol.
        encoded: keeps what a frozen encoder says of windows that are scored again; None encodes each time.
    """

    def __init__(
        self,
        model: SoundEventModel,
        scoring: Scoring,
        batch_size: int = 8,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        tags: bool = True,
        events: bool = False,
        encoded: EncodedWindows | None = None,
    ) -> None:
        self.events, self.encoded = events, encoded if scoring.windows is None else None
        self.model, self.scoring, self.batch_size, self.autocast = model, scoring, batch_size, autocast
        self.rule = scoring.postprocessing
        self.options = scoring.options
        if isinstance(model, FrameDetector) and not tags:
            self.options["tags"] = False

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def grid(self, reach_seconds: float | None = None) -> Grid:
        """The windows the model hears; ``reach_seconds`` as in :class:`~pmam_plugin.inference.long_audio.Grid`."""
        model = self.model
        samples = round(model.clip_seconds * model.sample_rate)
        frames = model.output_frames(samples)
        reach = frames if reach_seconds is None else round(reach_seconds * model.frame_rate)
        return Grid(samples, frames, model.sample_rate / model.frame_rate, min(max(reach, 2), frames))

    def run(self, recordings: Iterable[Iterable[Tensor]]) -> Iterator[ScoredClip]:
        """Score recordings, each given as blocks ``(samples,)`` at the model's rate; one result each, in order.

        Windows of several recordings share a batch. A recording whose blocks raise :class:`InputError` gives a result
        with that error and does not stop the others.
        """
        waiting: list[_Recording] = []
        queue: list[tuple[_Recording, Window]] = []
        for blocks in recordings:
            recording = _Recording(self.grid(), len(self.model.labels))
            waiting.append(recording)
            for window in recording.windows(blocks):
                queue.append((recording, window))
                if len(queue) == self.batch_size:
                    self._score(queue)
                    queue = []
            while waiting and waiting[0].done:
                yield waiting.pop(0).result(self.model)
        if queue:
            self._score(queue)
        for recording in waiting:
            yield recording.result(self.model)

    def waves(self, waves: Iterable[Tensor]) -> list[ScoredClip]:
        """Scores of waveforms ``(samples,)`` at the model's rate.

        Raises:
            InputError: a waveform cannot be scored.
        """
        results = list(self.run([wave] for wave in waves))
        for result in results:
            if result.error is not None:
                raise result.error
        return results

    @torch.inference_mode()
    def forward(self, windows: Sequence[Window]) -> Detection:
        """The model's output for windows, padded to its clip length."""
        grid = self.grid()
        waves = torch.zeros(len(windows), grid.clip_samples)
        padding = torch.zeros(len(windows), grid.clip_frames, dtype=torch.bool)
        for row, window in enumerate(windows):
            waves[row, : len(window.samples)] = window.samples
            padding[row, window.frames :] = True
        waves = waves.to(self.device)
        features = self.model.frontend(waves) if self.encoded is None else self.encoded.features(self.model, waves)
        with self.autocast():
            # None where nothing is padded: a mask of zeros may take another, slightly different route.
            return self.model(features, padding=padding.to(self.device) if padding.any() else None, **self.options)

    def masked(self, detection: Detection, windows: Sequence[Window]) -> list[np.ndarray]:
        """Frame scores of every window, ``(window.frames, classes)``, times the clip-level mask."""
        frames, factors = detection.frames.float().cpu().numpy(), self._factors(detection)
        return [frames[row, : window.frames] * factors[row] for row, window in enumerate(windows)]

    def _factors(self, detection: Detection) -> np.ndarray:
        return self.rule.mask(detection.clips.float().cpu().numpy()).astype(np.float32)

    def _score(self, queue: Sequence[tuple[_Recording, Window]]) -> None:
        windows = [window for _, window in queue]
        detection = self.forward(windows)
        rows = self.masked(detection, windows)
        clips = self.model.clip_scores(detection).float().cpu().numpy()
        seconds = [recording.cutter.received / self.model.sample_rate for recording, _ in queue]
        # A recording heard at once comes as the model writes it: an event-based one knows more than frames.
        whole = any(recording.whole for recording, _ in queue)
        tables = self.model.score_rows(detection, seconds) if whole else []
        events = self.model.event_tables(detection, seconds) if self.events and isinstance(self.model, SEDT) else None
        factors = self._factors(detection)
        for row, (recording, window) in enumerate(queue):
            recording.scored += 1
            recording.clips = np.maximum(recording.clips, clips[row])
            if recording.whole:
                recording.heard = _multiplied(tables[row], factors[row])
                recording.events = None if events is None else events[row]
            recording.rows.append(recording.joiner.add(window, rows[row]))


class _Recording:
    """A recording on its way through the model."""

    def __init__(self, grid: Grid, classes: int) -> None:
        self.cutter, self.joiner = Cutter(grid), Joiner(classes)
        self.cut = self.scored = 0
        self.whole = self.ended = False  # whole: one window holds it all
        self.rows: list[np.ndarray] = []
        self.clips: np.ndarray = np.array(0.0)
        self.heard: ScoreRows | None = None
        self.events: pd.DataFrame | None = None
        self.error: InputError | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or (self.ended and self.scored == self.cut)

    def windows(self, blocks: Iterable[Tensor]) -> Iterator[Window]:
        """Windows of the blocks; an error in reading ends them and is kept."""
        try:
            for block in blocks:
                for window in self.cutter.feed(block):
                    self.cut += 1
                    yield window
        except InputError as error:
            self.error = error
            return
        last = self.cutter.finish()
        self.whole, self.ended = self.cut == 0, True
        self.cut += len(last)
        yield from last

    def result(self, model: SoundEventModel) -> ScoredClip:
        if self.error is not None:
            return ScoredClip(error=self.error)
        if not self.cut:
            return ScoredClip(error=InputError("no samples; a recording cannot be empty"))
        frames = np.concatenate(self.rows)
        if self.heard is None:
            seconds = self.cutter.received / model.sample_rate
            self.heard = frame_rows(frames, seconds, model.frame_rate, model.labels)
        return ScoredClip(self.heard, frames, self.clips, self.events)


def table_of(rows: ScoreRows | None) -> pd.DataFrame:
    """Rows as a table; an empty one where there are none."""
    if rows is None:
        import pandas as pd

        return pd.DataFrame()
    return rows.table()


def _multiplied(rows: ScoreRows, factors: np.ndarray) -> ScoreRows:
    """Scores with their classes masked; minus infinity, where there is no event, stays."""
    finite = np.isfinite(rows.scores)
    return replace(rows, scores=np.where(finite, rows.scores * np.where(finite, factors, 1.0), rows.scores))
