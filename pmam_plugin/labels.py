"""Event tables as frame arrays: one grid, one class list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from pmam_plugin.errors import InputError

# Seconds times frames per second is rarely a whole number in binary (0.07 * 100 = 7.000000000000001): times
# closer to a frame border than this share of a frame are taken to lie on it.
_BORDER_TOLERANCE = 1e-6


class LabelEncoder:
    """Put event tables in seconds on a frame grid.

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

    def encode_strong(self, events: pd.DataFrame) -> np.ndarray:
        """Activity of every class in every frame.

        Args:
            events: table of one clip with the columns ``onset``, ``offset`` (s), ``event_label`` and perhaps
                ``soft_label`` in [0, 1]; rows whose three cells are empty (a clip without events) count as none.

        Returns:
            float32 zeros and ones (or soft labels), ``(frames, classes)``.

        Raises:
            InputError: a column is missing, a label unknown, a time missing, or an offset not after its onset.
        """
        onsets, offsets, classes, soft = self._columns(events)
        activity = np.zeros((self.frames, len(self.labels)), dtype=np.float32)
        stops = np.ceil(offsets * self.frame_rate - _BORDER_TOLERANCE).astype(int)
        starts = np.minimum(self._onset_frames(onsets), stops - 1).clip(min=0)
        for start, stop, label, value in zip(starts, stops.clip(max=self.frames), classes, soft):
            activity[start:stop, label] = np.maximum(activity[start:stop, label], value)
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

    def _onset_frames(self, onsets: np.ndarray) -> np.ndarray:
        positions = onsets * self.frame_rate
        if self.onset_rounding == "floor":
            return np.floor(positions + _BORDER_TOLERANCE).astype(int)
        return np.round(positions).astype(int)

    def _columns(self, events: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list[int], np.ndarray]:
        missing = [name for name in ("onset", "offset", "event_label") if name not in events]
        if missing:
            raise InputError(f"the event table lacks the column {missing[0]!r}; it has {list(events.columns)}")
        try:
            onsets = events["onset"].to_numpy(dtype=float)
            offsets = events["offset"].to_numpy(dtype=float)
        except (TypeError, ValueError) as error:
            raise InputError(f"the event table holds a time that is no number ({error}); give seconds") from error
        labels = events["event_label"].tolist()
        kept = [row for row, label in enumerate(labels) if not (_empty(label) and np.isnan(onsets[row]))]
        for row in kept:
            if not onsets[row] < offsets[row]:
                raise InputError(
                    f"row {row} of the event table ({labels[row]}) runs from {onsets[row]} s to {offsets[row]} s; "
                    "give an offset after the onset"
                )
        soft = events["soft_label"].to_numpy(np.float32) if "soft_label" in events else np.ones(len(labels), np.float32)
        return onsets[kept], offsets[kept], [self._class_of(labels[row]) for row in kept], soft[kept]

    def _class_of(self, label: str) -> int:
        try:
            return self._index[label]
        except (KeyError, TypeError):
            raise InputError(f"unknown label {label!r}; the classes are {', '.join(self.labels)}") from None


def _empty(label: object) -> bool:
    return label is None or label == "" or (isinstance(label, float) and np.isnan(label))
