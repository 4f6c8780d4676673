"""Event tables and frame arrays: one grid, one class list, both directions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from pmam_plugin.errors import InputError

# Seconds times frames per second is rarely a whole number in binary (0.07 * 100 = 7.000000000000001): times
# closer to a frame border than this share of a frame are taken to lie on it.
_BORDER_TOLERANCE = 1e-6


class LabelEncoder:
    """Convert between event tables in seconds and arrays on a frame grid.

    An event covers the frames from its onset frame up to, not including, its offset frame. The offset is rounded up;
    the onset is rounded to the nearest frame, ties to even (PMAM), or down (ATST-SED and the DCASE baseline). An event
    shorter than a frame keeps the frame it lies in, and whatever lies outside the clip is cut off.

    Args:
        labels: class names in output order.
        frame_rate: frames per second of the grid.
        frames: number of frames of a clip.
        clip_seconds: length of a clip in seconds; decoded events end there at the latest. It may exceed the grid by
            less than a frame (ATST-SED: 156 frames of 64 ms cover 9.984 s of 10 s).
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
            events: table of one clip with the columns ``onset``, ``offset`` (s) and ``event_label``; rows whose three
                cells are empty (a clip without events) count as none.

        Returns:
            float32 zeros and ones, ``(frames, classes)``.

        Raises:
            InputError: a column is missing, a label unknown, a time missing, or an offset not after its onset.
        """
        onsets, offsets, classes = self._columns(events)
        activity = np.zeros((self.frames, len(self.labels)), dtype=np.float32)
        stops = np.ceil(offsets * self.frame_rate - _BORDER_TOLERANCE).astype(int)
        starts = np.minimum(self._onset_frames(onsets), stops - 1).clip(min=0)
        for start, stop, label in zip(starts, stops.clip(max=self.frames), classes):
            activity[start:stop, label] = 1.0
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

    def decode(self, active: Any, duration: float | None = None) -> pd.DataFrame:
        """Runs of active frames as events.

        Args:
            active: booleans (array or tensor), ``(frames, classes)``; any number of frames.
            duration: where the recording ends, in seconds; ``clip_seconds`` when not given.

        Returns:
            Events with the columns ``onset``, ``offset`` (s), ``event_label``, sorted by onset, then by class.
        """
        array = self._checked(active).astype(bool)
        end = self.clip_seconds if duration is None else float(duration)
        borders = np.diff(array.astype(np.int8), axis=0, prepend=0, append=0)
        starting_class, starts = np.nonzero(borders.T == 1)
        _, stops = np.nonzero(borders.T == -1)  # runs of a class alternate, so starts and stops pair up in order
        onsets = starts / self.frame_rate
        offsets = np.minimum(stops / self.frame_rate, end)
        order = np.lexsort((starting_class, onsets))
        order = order[onsets[order] < end]
        names = np.array(self.labels, dtype=object)[starting_class[order]]
        return pd.DataFrame({"onset": onsets[order], "offset": offsets[order], "event_label": names})

    def scores_table(self, scores: Any, duration: float) -> pd.DataFrame:
        """Frame scores as the table that sed_scores_eval reads.

        Rows beyond the end of the recording are cut off and the last row ends exactly at ``duration``; it may
        be longer than the others by less than a frame, since some grids end just before the clip does.

        Args:
            scores: array or tensor, ``(frames, classes)``.
            duration: length of the recording in seconds.

        Returns:
            Table with the columns ``onset``, ``offset`` (s) and one per class; every row starts exactly where the
            one before ends.

        Raises:
            ValueError: the scores end a frame or more before the recording does, or ``duration`` is not
                positive.
        """
        array = self._checked(scores)
        wanted = duration * self.frame_rate
        if duration <= 0 or not np.isfinite(duration):
            raise ValueError(f"the duration of a recording must be positive, not {duration}")
        if len(array) == 0 or len(array) <= wanted - 1 + _BORDER_TOLERANCE:
            raise ValueError(
                f"{len(array)} frames at {self.frame_rate:g} per second do not cover a recording of {duration:g} s; "
                "score the whole recording first"
            )
        rows = min(len(array), max(1, int(np.ceil(wanted - _BORDER_TOLERANCE))))
        borders = np.arange(rows + 1) / self.frame_rate
        borders[-1] = duration
        table = pd.DataFrame(array[:rows], columns=list(self.labels))
        table.insert(0, "onset", borders[:-1])
        table.insert(1, "offset", borders[1:])
        return table

    def _onset_frames(self, onsets: np.ndarray) -> np.ndarray:
        positions = onsets * self.frame_rate
        if self.onset_rounding == "floor":
            return np.floor(positions + _BORDER_TOLERANCE).astype(int)
        return np.round(positions).astype(int)

    def _columns(self, events: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list[int]]:
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
        return onsets[kept], offsets[kept], [self._class_of(labels[row]) for row in kept]

    def _class_of(self, label: str) -> int:
        try:
            return self._index[label]
        except (KeyError, TypeError):
            raise InputError(f"unknown label {label!r}; the classes are {', '.join(self.labels)}") from None

    def _checked(self, array: Any) -> np.ndarray:
        array = array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)
        if array.ndim != 2 or array.shape[1] != len(self.labels):
            raise ValueError(f"expected (frames, {len(self.labels)} classes), not {array.shape}")
        return array


def _empty(label: object) -> bool:
    return label is None or label == "" or (isinstance(label, float) and np.isnan(label))
