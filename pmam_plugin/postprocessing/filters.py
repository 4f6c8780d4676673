"""From a model's frame scores to the scores that are evaluated, and from those to events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pmam_plugin.config import configurable
from pmam_plugin.errors import InputError
from pmam_plugin.postprocessing.boxes import SoundEventBoxes
from pmam_plugin.postprocessing.per_class import PerClass, per_class, values_of
from pmam_plugin.postprocessing.rows import EventRows, ScoreRows

if TYPE_CHECKING:
    import pandas as pd

_LONGEST_FILTER = 600.0  # seconds; no event needs more, and memory would
_VALUES_AT_ONCE = 1 << 20


@configurable
class PostProcessing:
    """Weak mask, then a median filter over time, then bounding boxes; each may be left out.

    One object serves PSDS, F1 and inference alike. (The reference systems mask softly and filter with even lengths for
    PSDS, but mask hard and filter with odd lengths for F1, so that the two describe different systems; both rules are
    there.)

    Args:
        weak_mask: ``"none"``; ``"soft"``: multiply a class's scores by its clip score; ``"hard"``: set them to zero
            where the clip score is below 0.5. Clip scores are pooled from the frames, as in the reference systems,
            whose tag branch serves the clip F1 alone.
        median_seconds: length of the filter, for all classes or per class; 0 for no filter. It becomes whole frames at
            the frame rate of the scores, at least one.
        median_rule: ``"scipy"``: any length, clips mirrored at their ends; ``"odd"``: even lengths get one frame more,
            the first and last scores are repeated.
        segments: bounding boxes, or None.
        threshold: scores above it are events, for all classes or per class.

    Raises:
        InputError: a setting that is none of these.
    """

    def __init__(
        self,
        weak_mask: Literal["none", "soft", "hard"] = "none",
        median_seconds: PerClass = 0.0,
        median_rule: Literal["scipy", "odd"] = "scipy",
        segments: SoundEventBoxes | None = None,
        threshold: PerClass = 0.5,
    ) -> None:
        for name, value, allowed in (
            ("weak_mask", weak_mask, ("none", "soft", "hard")),
            ("median_rule", median_rule, ("scipy", "odd")),
        ):
            if value not in allowed:
                raise InputError(f"post-processing: {name} must be one of {', '.join(allowed)}, not {value!r}")
        if not all(0 <= length <= _LONGEST_FILTER for length in _numbers("median_seconds", median_seconds)):
            raise InputError(f"post-processing: median_seconds must be within 0 and {_LONGEST_FILTER:g} s")
        _numbers("threshold", threshold)
        self.weak_mask = weak_mask
        self.median_seconds = median_seconds
        self.median_rule = median_rule
        self.segments = segments
        self.threshold = threshold

    def __call__(
        self, table: pd.DataFrame, clip_scores: Sequence[float] | Mapping[str, float] | np.ndarray | None = None
    ) -> pd.DataFrame:
        """Post-process the scores of one clip; the input stays as it is.

        Args:
            table: ``onset, offset, <class>...`` (s, scores in [0, 1]); rows of one length but for the last.
            clip_scores: score of every class for the whole clip, by class or in the order of the columns; the weak
                masks need it.

        Returns:
            A new table on the same rows. Bounding boxes leave ``-inf`` outside of events.

        Raises:
            InputError: a per-class setting lacks a class of the table.
            ValueError: a weak mask without clip scores.
        """
        if self.weak_mask == "none":
            return self.filtered(table)
        rows = ScoreRows.of(table)
        masked = replace(rows, scores=rows.scores * self._clip_factors(rows.labels, clip_scores))
        return self.filtered_rows(masked).table()

    def mask(self, clip_scores: np.ndarray) -> np.ndarray:
        """What the weak mask multiplies scores by: ``(..., classes)`` clip scores -> factors of that shape."""
        if self.weak_mask == "none":
            return np.ones_like(clip_scores)
        return clip_scores if self.weak_mask == "soft" else (clip_scores >= 0.5).astype(clip_scores.dtype)

    def filtered(self, table: pd.DataFrame) -> pd.DataFrame:
        """Filter over time and boxes, without the weak mask; arguments and result as of a call."""
        return self.filtered_rows(ScoreRows.of(table)).table()

    def filtered_rows(self, rows: ScoreRows) -> ScoreRows:
        """:meth:`filtered` of arrays."""
        scores, frames = rows.scores.copy(), self._filter_frames(rows)
        for length in np.unique(frames[frames > 1]):
            scores[:, frames == length] = self._median(scores[:, frames == length], int(length))
        result = replace(rows, scores=scores)
        return result if self.segments is None else self.segments(result)

    def events(self, table: pd.DataFrame, filename: str) -> pd.DataFrame:
        """Events of one clip: where post-processed scores exceed the threshold.

        Args:
            table: post-processed scores.
            filename: what to write into the first column.

        Returns:
            Columns ``filename, onset, offset, event_label, score`` in order of onset; the score is the mean over the
            event (with bounding boxes: its confidence). No rows for a clip without events.

        Raises:
            InputError: a per-class threshold lacks a class of the table.
        """
        return self.event_rows(ScoreRows.of(table)).table(filename)

    def event_rows(self, rows: ScoreRows) -> EventRows:
        """:meth:`events` as arrays."""
        scores, labels, onset, offset = rows.scores, rows.labels, rows.onset, rows.offset
        label, first, last = active_runs(scores > per_class(self.threshold, labels, "threshold"))
        # A row before the first makes every sum a difference; scores of -inf lie outside all events.
        seconds = np.where(np.isfinite(scores), scores, 0.0) * (offset - onset)[:, None]
        area = np.concatenate((np.zeros((1, len(labels))), np.cumsum(seconds, axis=0)))
        begin, end = onset[first], offset[last]
        mean = (area[last + 1, label] - area[first, label]) / (end - begin)
        order = np.lexsort((label, begin))
        return EventRows(begin[order], end[order], [labels[index] for index in label[order]], mean[order])

    def _clip_factors(self, labels: Sequence[str], clip_scores: Any) -> np.ndarray:
        """Factor per class, ``(classes,)``."""
        if clip_scores is None:
            raise ValueError(f"the {self.weak_mask} weak mask needs clip scores")
        if isinstance(clip_scores, Mapping):
            clip_scores = [clip_scores[label] for label in labels]
        weights = np.asarray(clip_scores, dtype=np.float64)
        if weights.shape != (len(labels),):
            raise ValueError(
                f"expected {len(labels)} clip scores, one per class, not an array of shape {weights.shape}"
            )
        return self.mask(weights)

    def _filter_frames(self, rows: ScoreRows) -> np.ndarray:
        """Filter length per class in frames, ``(classes,)``; 1 for none."""
        seconds = per_class(self.median_seconds, rows.labels, "median_seconds")
        if not seconds.any() or len(rows.onset) < 2:
            return np.ones(len(rows.labels), dtype=np.int64)
        frame = float(np.median(rows.offset - rows.onset))
        frames = np.maximum(np.floor(seconds / frame + 0.5).astype(np.int64), 1)
        return frames + (frames % 2 == 0) if self.median_rule == "odd" else frames

    def _median(self, scores: np.ndarray, length: int) -> np.ndarray:
        """Median over time, the upper one of an even length; as scipy.ndimage's, which takes long to import."""
        before = length // 2
        mode: Literal["symmetric", "edge"] = "symmetric" if self.median_rule == "scipy" else "edge"
        padded = np.pad(scores.T, ((0, 0), (before, length - 1 - before)), mode=mode)
        windows = sliding_window_view(padded, length, axis=1)
        result = np.empty_like(scores)
        step = max(1, _VALUES_AT_ONCE // (length * scores.shape[1]))
        for first in range(0, len(scores), step):
            part = np.partition(windows[:, first : first + step], before, axis=-1)
            result[first : first + step] = part[..., before].T
        return result


def active_runs(active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of true frames: class, first and last frame (inclusive) of each, class by class in time order.

    Args:
        active: booleans, ``(frames, classes)``.
    """
    border = np.zeros((active.shape[1], 1), dtype=np.int8)
    change = np.diff(np.concatenate((border, active.T.astype(np.int8), border), axis=1), axis=1)
    label, first = np.nonzero(change == 1)
    _, after = np.nonzero(change == -1)
    return label, first, after - 1


def _numbers(name: str, value: Any) -> list[float]:
    """A setting for all classes or per class as numbers; InputError where one is none."""
    values = values_of(value)
    for item in values:
        if not isinstance(item, Real) or isinstance(item, bool) or item != item:
            raise InputError(f"post-processing: {name} must be a number, or one per class, not {item!r}")
    return [float(item) for item in values]
