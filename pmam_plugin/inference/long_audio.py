"""Recordings longer than a model's clip: read in blocks, cut into overlapping windows, joined without seams.

Files and streams share one scheme, with all positions on the model's frame grid. Window ``k`` ends at
``reach + k * hop`` frames and starts a clip length before (or at zero). Its last ``reach`` frames count, weighted by a
triangle, and ``hop`` is half of ``reach``, so that two neighbours fade into each other. With ``reach`` = the whole clip
every frame is heard from both sides (files); a smaller one makes scores final sooner (streams).

Where the first window begins is arbitrary, and scores depend on it a little, because a frame is heard with other
surroundings. Moved by half a window, a recording is heard by windows of the same content and scores the same. Moved
by a quarter, the raw scores of a trained small PMAM on 80 s of real recordings differ by 0.008 on average and by 0.31
at most (``python benchmarks/inference.py --model FOLDER --recording FILE`` measures it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Where windows and their frames lie.

    Attributes:
        clip_samples: length of a window.
        clip_frames: frames the model gives for it.
        samples_per_frame: distance of two frames in samples.
        reach: frames at the end of a window that count, 1 to ``clip_frames``.
    """

    clip_samples: int
    clip_frames: int
    samples_per_frame: float
    reach: int

    @property
    def hop(self) -> int:
        """Frames from one window to the next."""
        return max(1, self.reach // 2)

    def sample_of(self, frame: int) -> int:
        """First sample of a frame."""
        return round(frame * self.samples_per_frame)

    def frames_of(self, samples: int) -> int:
        """Frames of a window of so many samples: all that begin within it, at least one."""
        return min(self.clip_frames, max(1, math.ceil(samples / self.clip_samples * self.clip_frames - 1e-3)))


@dataclass(frozen=True)
class Window:
    """A stretch of a recording that the model hears at once.

    Attributes:
        samples: ``(samples,)``, at most a clip; shorter at the start of a stream and in a short recording.
        first_frame: where it starts on the recording's frame grid.
        frames: how many of the model's frames belong to it; the others are padding.
        fade_from: frame of the recording from which on its scores count.
        settled: once it has been scored, all frames of the recording before this one are final.
    """

    samples: Tensor
    first_frame: int
    frames: int
    fade_from: int
    settled: int

    @property
    def end_frame(self) -> int:
        """Frame of the recording after its last one."""
        return self.first_frame + self.frames


class Cutter:
    """Cut audio that arrives in pieces into windows; holds no more than a clip and the newest piece."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._buffer = torch.zeros(0)
        self._dropped = 0  # samples before the buffer
        self._number = 0  # of the next window

    @property
    def received(self) -> int:
        """Samples fed so far."""
        return self._dropped + len(self._buffer)

    def feed(self, samples: Tensor) -> list[Window]:
        """Add ``(samples,)``; returns the windows that are complete and not the last.

        A window is held back until a frame of audio follows it, so that a recording of one clip is one window.
        """
        self._buffer = torch.cat((self._buffer, samples.float()))
        windows = []
        while True:
            start, end = self._span()
            if self.received < end + self.grid.samples_per_frame:
                break
            settled = (self._number + 1) * self.grid.hop
            windows.append(self._window(start, end, self._number * self.grid.hop, settled))
            self._number += 1
        self._forget()
        return windows

    def finish(self) -> list[Window]:
        """The last window, which ends where the audio ends (to less than a frame); none without audio."""
        if not self.received:
            return []
        start = max(0, int((self.received - self.grid.clip_samples) // self.grid.samples_per_frame))
        end = min(self.received, self.grid.sample_of(start) + self.grid.clip_samples)
        end_frame = start + self.grid.frames_of(end - self.grid.sample_of(start))
        return [self._window(start, end, max(0, end_frame - self.grid.reach), end_frame)]

    def _span(self) -> tuple[int, int]:
        """First frame of the next window and the sample after it."""
        end_frame = self.grid.reach + self._number * self.grid.hop
        start = end_frame - self.grid.clip_frames
        if start >= 0:
            return start, self.grid.sample_of(start) + self.grid.clip_samples
        return 0, self.grid.sample_of(end_frame)  # the start of a stream: as much as has been heard

    def _window(self, start: int, end: int, fade_from: int, settled: int) -> Window:
        first = self.grid.sample_of(start)
        samples = self._buffer[first - self._dropped : end - self._dropped]
        return Window(samples, start, self.grid.frames_of(end - first), fade_from, settled)

    def _forget(self) -> None:
        # The last window may start up to a frame and a clip before the end of the audio.
        needed = self.received - self.grid.clip_samples - math.ceil(self.grid.samples_per_frame)
        unneeded = min(needed, self.grid.sample_of(self._span()[0])) - self._dropped
        if unneeded > 0:
            self._buffer, self._dropped = self._buffer[unneeded:].clone(), self._dropped + unneeded


class Joiner:
    """Fade the scores of overlapping windows into each other.

    Sums are kept in double precision: a frame heard once comes out exactly as the model scored it.

    Args:
        classes: columns of the scores.
    """

    def __init__(self, classes: int) -> None:
        self._first = 0  # frame of the first row that is not final
        self._sum, self._weight = np.zeros((0, classes)), np.zeros(0)

    def add(self, window: Window, scores: np.ndarray) -> np.ndarray:
        """Add a window's scores, ``(window.frames, classes)``; returns the rows that became final."""
        begin = max(window.fade_from, self._first)
        steps = np.arange(begin - window.fade_from, window.end_frame - window.fade_from)
        weights = np.minimum(steps + 1, window.end_frame - window.fade_from - steps).astype(np.float64)
        missing = max(0, window.end_frame - self._first - len(self._weight))
        self._sum, self._weight = np.pad(self._sum, ((0, missing), (0, 0))), np.pad(self._weight, (0, missing))
        rows = slice(begin - self._first, window.end_frame - self._first)
        self._sum[rows] += weights[:, None] * scores[begin - window.first_frame :].astype(np.float64)
        self._weight[rows] += weights
        settled = min(max(window.settled - self._first, 0), len(self._weight))
        final = self._sum[:settled] / np.maximum(self._weight[:settled], 1e-12)[:, None]
        self._sum, self._weight = self._sum[settled:], self._weight[settled:]
        self._first += settled
        return final.astype(np.float32)
