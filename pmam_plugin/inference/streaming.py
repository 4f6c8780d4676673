"""Sound events while they happen: feed audio in pieces, get scores and events as soon as they are final."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from pmam_plugin.audio import MonoResampler
from pmam_plugin.errors import InputError
from pmam_plugin.inference.long_audio import Cutter, Joiner, Window
from pmam_plugin.inference.scoring import Scorer
from pmam_plugin.models.base import frame_rows
from pmam_plugin.postprocessing.filters import PostProcessing
from pmam_plugin.postprocessing.per_class import per_class
from pmam_plugin.postprocessing.rows import ScoreRows


@dataclass
class Finalised:
    """What became final since the last call; times count from the start of the stream.

    Attributes:
        scores: post-processed rows of the scores table.
        events: events that have ended, with their score.
    """

    scores: pd.DataFrame
    events: pd.DataFrame


class SoundEventStream:
    """Scores and events of audio that arrives in pieces.

    >>> stream = detector.stream(sample_rate=48_000, latency=2.0)  # doctest: +SKIP
    >>> for chunk in microphone:  # doctest: +SKIP
    ...     print(stream.feed(chunk).events)
    >>> print(stream.finish().events)  # doctest: +SKIP

    At the clip's own length as ``latency`` the scores equal those of the whole file. With a smaller one each score
    rests on up to a clip of the past but at most ``latency`` seconds of the future. Bounding boxes, which look at whole
    events, may place edges differently than on the whole file.

    Attributes:
        latency: seconds of audio that must follow a moment until its score is out, at most; computing comes on top.

    Args:
        scorer: does the work.
        sample_rate: of the audio that will be fed, Hz.
        latency: seconds until the network's scores are final, at most a clip; the filters add half their length, and
            the frame grid up to two frames.

    Raises:
        InputError: a latency of zero or less, or more than a clip; a sample rate that is not positive.
    """

    def __init__(self, scorer: Scorer, sample_rate: int, latency: float | None = None) -> None:
        model = scorer.model
        if latency is not None and not 0 < latency <= model.clip_seconds:
            raise InputError(
                f"latency {latency} s: must be more than 0 and at most the model's clip, {model.clip_seconds} s"
            )
        self.scorer, self.labels = scorer, model.labels
        grid = scorer.grid(latency)
        self._cutter, self._joiner = Cutter(grid), Joiner(len(model.labels))
        self._resampler = MonoResampler(sample_rate, model.sample_rate, "the stream")
        rule = scorer.rule
        # Later scores that the filters need; bounding boxes, which have no such length, get half a clip.
        longest = per_class(rule.median_seconds, model.labels, "median_seconds").max(initial=0.0)
        boxes = 0.0 if rule.segments is None else model.clip_seconds / 2
        self._margin = math.ceil((longest / 2 + boxes) * model.frame_rate)
        self._scores = _Rows(model.labels, model.frame_rate, rule, self._margin)
        self._open = _OpenEvents(rule)
        empty = self._scores.add(np.zeros((0, len(model.labels)), dtype=np.float32))
        self._nothing = Finalised(empty, self._open.add(empty, False))
        self._ended = False
        self.latency = (grid.reach + self._margin + 2) / model.frame_rate

    def feed(self, samples: np.ndarray | Tensor) -> Finalised:
        """Add audio, ``(samples,)`` or with a channel axis, floating point or integer PCM.

        Raises:
            InputError: NaN or infinite samples, or no waveform.
            RuntimeError: the stream has been finished.
        """
        self._require_open()
        return self._advance(self._cutter.feed(self._resampler.feed(samples)), last=False)

    def finish(self) -> Finalised:
        """End the stream: all that is left becomes final.

        Raises:
            RuntimeError: it has been finished before.
        """
        self._require_open()
        self._ended = True
        windows = self._cutter.feed(self._resampler.finish())
        return self._advance([*windows, *self._cutter.finish()], last=True)

    def _require_open(self) -> None:
        if self._ended:
            raise RuntimeError("this stream has been finished; open another one with detector.stream()")

    def _advance(self, windows: Sequence[Window], last: bool) -> Finalised:
        if not windows and not last:
            return Finalised(self._nothing.scores.copy(), self._nothing.events.copy())
        rows = [np.zeros((0, len(self.labels)), dtype=np.float32)]
        for window in windows:
            (frames,) = self.scorer.masked(self.scorer.forward([window]), [window])
            rows.append(self._joiner.add(window, frames))
        seconds = self._cutter.received / self.scorer.model.sample_rate if last else None
        table = self._scores.add(np.concatenate(rows), seconds)
        return Finalised(table, self._open.add(table, last))


class _Rows:
    """Filter rows as they come: a row is out once the filter has seen all it needs on both sides."""

    def __init__(self, labels: Sequence[str], frame_rate: float, postprocessing: PostProcessing, margin: int) -> None:
        self.labels, self.frame_rate = labels, frame_rate
        self.postprocessing, self.margin = postprocessing, margin
        self._kept = np.zeros((0, len(self.labels)), dtype=np.float32)
        self._first = 0  # frame of the first kept row
        self._out = 0  # rows already given out

    def add(self, rows: np.ndarray, seconds: float | None = None) -> pd.DataFrame:
        """Add raw rows; ``seconds`` is the length of the stream when it has ended."""
        self._kept = np.concatenate((self._kept, rows))
        end = self._first + len(self._kept)
        if not end:
            return ScoreRows(self._kept, np.zeros(0), np.zeros(0), self.labels).table()
        length = end / self.frame_rate if seconds is None else seconds
        known = frame_rows(self._kept, length, self.frame_rate, self.labels, self._first)
        ready = max(self._out, end - self.margin) if seconds is None else self._first + len(known.onset)
        final = slice(self._out - self._first, ready - self._first)
        table = self.postprocessing.filtered_rows(known)[final].table()
        self._out = ready
        unneeded = max(0, self._out - self.margin - 1 - self._first)
        self._kept, self._first = self._kept[unneeded:], self._first + unneeded
        return table


class _OpenEvents:
    """Events across calls: one is out when it has ended, and only once."""

    def __init__(self, postprocessing: PostProcessing) -> None:
        self.postprocessing = postprocessing
        self._rows: pd.DataFrame | None = None
        self._closed: dict[str, float] = {}

    def add(self, rows: pd.DataFrame, last: bool) -> pd.DataFrame:
        """Add final rows; returns the events that ended."""
        self._rows = rows if self._rows is None or not len(self._rows) else pd.concat((self._rows, rows))
        events = self.postprocessing.events(self._rows, "stream")
        end = self._rows["offset"].iloc[-1] if len(self._rows) else 0.0
        is_new = [onset >= self._closed.get(label, 0.0) for label, onset in zip(events["event_label"], events["onset"])]
        events = events[np.array(is_new, dtype=bool)]
        is_open = (events["offset"] >= end) & (not last)
        begin = events["onset"][is_open].min() if is_open.any() else end
        self._rows = self._rows[self._rows["onset"] >= begin]
        ended = events[~is_open]
        for label, offset in zip(ended["event_label"], ended["offset"]):
            self._closed[label] = max(offset, self._closed.get(label, 0.0))
        return ended.reset_index(drop=True)
