"""Events as frame arrays: one grid, one class list."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from pmam_plugin.errors import InputError

# Seconds times frames per second is rarely a whole number in binary (0.07 * 100 = 7.000000000000001): times
# closer to a frame border than this share of a frame are taken to lie on it.
_BORDER_TOLERANCE = 1e-6


class LabelEncoder:
    """Put events in seconds on a frame grid.

    An event covers the frames from its onset frame up to, not including, its offset frame. The offset is rounded up;
    the onset is rounded to the nearest frame, ties to even (PMAM), or down (ATST-SED and the DCASE baseline). An event
    shorter than a frame keeps the frame it lies in, and whatever lies outside the clip is cut off. A soft label is the
    target of all frames that it covers (it says how likely the class is heard in any of them, not in how many); of
    several, the highest counts.

    Args:
        labels: class names in output order.
        frame_rate: frames per second of the grid.
        frames: number of frames of a clip.
        clip_seconds: length of a clip in seconds. It may exceed the grid by less than a frame (ATST-SED: 156 frames of
            64 ms cover 9.984 s of 10 s).
        onset_rounding: ``"nearest"`` or ``"floor"``.

    Raises:
        ValueError: no labels, a label twice, or a grid that is empty.
    """

    def __init__(
        self,
        labels: Sequence[str],
        frame_rate: float,
        frames: int,
        clip_seconds: float = 10.0,
        onset_rounding: Literal["nearest", "floor"] = "nearest",
    ) -> None:
        if not labels or len(set(labels)) != len(labels):
            raise ValueError(f"labels must be distinct and at least one, not {list(labels)}")
        if frame_rate <= 0 or frames <= 0 or clip_seconds <= 0:
            raise ValueError("frame_rate, frames and clip_seconds must be positive")
        if onset_rounding not in ("nearest", "floor"):
            raise ValueError(f"onset_rounding must be 'nearest' or 'floor', not {onset_rounding!r}")
        self.labels = tuple(labels)
        self.frame_rate = float(frame_rate)
        self.frames = int(frames)
        self.clip_seconds = float(clip_seconds)
        self.onset_rounding = onset_rounding
        self._index = {label: position for position, label in enumerate(self.labels)}

    def encode_strong(self, events: Iterable[tuple[Any, ...]]) -> np.ndarray:
        """Activity of every class in every frame.

        Args:
            events: rows ``(onset, offset, label)`` of one clip, times in s, perhaps with a soft label in [0, 1] behind.

        Returns:
            float32 zeros and ones (or soft labels), ``(frames, classes)``.

        Raises:
            InputError: an unknown label, or an offset not after its onset.
        """
        activity = np.zeros((self.frames, len(self.labels)), dtype=np.float32)
        for onset, offset, label, *soft in events:
            if not onset < offset:
                raise InputError(
                    f"an event of {label} runs from {onset} s to {offset} s; give an offset after the onset"
                )
            stop = max(math.ceil(offset * self.frame_rate - _BORDER_TOLERANCE), 0)
            start = max(min(self._onset_frame(onset), stop - 1), 0)
            active = activity[start:stop, self._class_of(label)]
            np.maximum(active, soft[0] if soft else 1.0, out=active)
        return activity

    def encode_weak(self, labels: Iterable[str]) -> np.ndarray:
        """Presence of every class in a clip.

        Args:
            labels: the classes that occur; none is allowed.

        Returns:
            float32 zeros and ones, ``(classes,)``.

        Raises:
            InputError: an unknown label.
        """
        presence = np.zeros(len(self.labels), dtype=np.float32)
        for label in labels:
            presence[self._class_of(label)] = 1.0
        return presence

    def _onset_frame(self, onset: float) -> int:
        position = onset * self.frame_rate
        return math.floor(position + _BORDER_TOLERANCE) if self.onset_rounding == "floor" else round(position)

    def _class_of(self, label: str) -> int:
        try:
            return self._index[label]
        except (KeyError, TypeError):
            raise InputError(f"unknown label {label!r}; the classes are {', '.join(self.labels)}") from None
