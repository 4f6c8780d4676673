"""The ground truth of an evaluation set as plain arrays: clips, durations, classes and events."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from pmam_plugin.audio.names import clip_name, match_clips
from pmam_plugin.errors import InputError
from pmam_plugin.tables.events import fit_events

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class EventArray:
    """Events as parallel arrays, sorted by clip, class and onset.

    Attributes:
        clip: index of the clip, ``(events,)`` int64.
        label: index of the class, ``(events,)`` int64.
        onset: seconds, ``(events,)`` float64.
        offset: seconds, ``(events,)`` float64.
    """

    clip: np.ndarray
    label: np.ndarray
    onset: np.ndarray
    offset: np.ndarray

    def __len__(self) -> int:
        return len(self.onset)

    @classmethod
    def sorted(cls, clip: np.ndarray, label: np.ndarray, onset: np.ndarray, offset: np.ndarray) -> EventArray:
        """Bring events in any order into this class's order."""
        order = np.lexsort((offset, onset, label, clip))
        return cls(
            np.asarray(clip, np.int64)[order],
            np.asarray(label, np.int64)[order],
            np.asarray(onset, np.float64)[order],
            np.asarray(offset, np.float64)[order],
        )

    def column(self, classes: int) -> np.ndarray:
        """One number per (clip, class) pair: ``clip * classes + label``, ``(events,)``."""
        return self.clip * classes + self.label

    def tally(self, shape: tuple[int, ...], weights: np.ndarray | None = None) -> np.ndarray:
        """Events, or the sum of what each weighs, by clip and class: ``shape`` is ``(clips, classes)``."""
        return np.bincount(self.column(shape[1]), weights, math.prod(shape)).reshape(shape)

    def select(self, keep: np.ndarray) -> EventArray:
        """The events where the boolean array ``keep`` is true."""
        return EventArray(self.clip[keep], self.label[keep], self.onset[keep], self.offset[keep])

    def merged(self, classes: int) -> EventArray:
        """Unite events of one class in one clip that overlap or touch, and drop those of no length.

        Intersection criteria count seconds covered, so two overlapping events of a class are one
        (sed_scores_eval refuses such ground truth).
        """
        events = self.select(self.offset > self.onset)
        if len(events) == 0:
            return events
        column = events.column(classes)
        reach = pd.Series(events.offset).groupby(column).cummax().to_numpy()
        begins = np.ones(len(events), dtype=bool)
        begins[1:] = (column[1:] != column[:-1]) | (events.onset[1:] > reach[:-1])
        first = np.flatnonzero(begins)
        offset = np.maximum.reduceat(events.offset, first)
        return EventArray(events.clip[first], events.label[first], events.onset[first], offset)


@dataclass(frozen=True, eq=False)
class Reference:
    """What a system is measured against.

    Attributes:
        clips: names of all clips, see :func:`~pmam_plugin.audio.names.clip_name`; a clip without events is one of them.
        labels: the classes.
        durations: seconds of every clip, ``(clips,)``.
        events: the ground truth as annotated.
        judged: which classes are looked for in which clips, ``(clips, classes)`` bool: those that the clip's corpus
            annotates. What is detected of the others is neither right nor wrong.
    """

    clips: tuple[str, ...]
    labels: tuple[str, ...]
    durations: np.ndarray
    events: EventArray
    judged: np.ndarray

    @classmethod
    def from_tables(
        cls,
        events: pd.DataFrame,
        durations: Mapping[str, float],
        labels: Sequence[str] | None = None,
        fitted: bool = True,
    ) -> Reference:
        """Arrange a ground-truth table over the clips that ``durations`` lists.

        Args:
            events: ground truth as :func:`pmam_plugin.tables.read_events` returns it.
            durations: seconds of every clip of the set, events or not.
            labels: the classes; default all classes of ``events``, sorted.
            fitted: fit events into their clips as training does (:func:`pmam_plugin.tables.clip_events`).

        Raises:
            InputError: no clips, no events, an event of an unlisted clip or of an unknown class.
        """
        seconds: dict[str, float] = {}
        for filename, duration in durations.items():
            if seconds.setdefault(clip_name(filename), float(duration)) != float(duration):
                raise InputError(f"clip {clip_name(filename)} has two durations; keep one row of it")
        if not seconds:
            raise InputError("the durations name no clip, so there is nothing to evaluate; list every clip of the set")
        found = sorted(set(events["event_label"].dropna().astype(str)))
        if not found:
            name = events.attrs.get("source", "the ground truth")
            raise InputError(f"{name}: holds no event to measure against; give the annotations of the set")
        labels = tuple(found if labels is None else labels)
        clips = tuple(sorted(seconds))
        ends = np.array([seconds[clip] for clip in clips])
        array = event_array(events, clips, labels, "the ground truth", ends if fitted else None)
        return cls(clips, labels, ends, array, np.ones((len(clips), len(labels)), dtype=bool))

    @cached_property
    def counts(self) -> np.ndarray:
        """Ground-truth events per clip and class, ``(clips, classes)``."""
        return self.events.tally(self.judged.shape)

    @cached_property
    def event_seconds(self) -> np.ndarray:
        """Seconds of ground-truth events per clip and class, ``(clips, classes)``."""
        return self.events.tally(self.judged.shape, self.events.offset - self.events.onset)

    @cached_property
    def seconds(self) -> np.ndarray:
        """Seconds in which each class is judged, ``(clips, classes)``."""
        return self.durations[:, None] * self.judged

    def for_intersection(self) -> Reference:
        """The same set with overlapping events united and classes without any event left out.

        A rate of detected events is undefined for a class that never occurs.
        """
        events = self.events.merged(len(self.labels))
        if len(events) < len(self.events):
            _LOG.warning(
                "%d ground-truth events touch or overlap another of their class or have no length; united for PSDS",
                len(self.events) - len(events),
            )
        present = events.tally(self.judged.shape).sum(axis=0) > 0
        if not present.all():
            absent = [label for label, there in zip(self.labels, present) if not there]
            _LOG.warning("no ground-truth event of %s: left out of PSDS", ", ".join(absent))
        renumbered = np.cumsum(present) - 1
        events = EventArray(events.clip, renumbered[events.label], events.onset, events.offset)
        labels = tuple(label for label, there in zip(self.labels, present) if there)
        return Reference(self.clips, labels, self.durations, events, self.judged[:, present])


def event_array(
    table: pd.DataFrame, clips: Sequence[str], labels: Sequence[str], name: str, durations: np.ndarray | None = None
) -> EventArray:
    """Turn an events table into arrays over known clips and classes; rows without a label are event-free clips.

    Args:
        table: columns ``filename, onset, offset, event_label``.
        clips: names of all clips.
        labels: the classes.
        name: what to call the table in an error.
        durations: seconds of every clip: events are fitted into them; None leaves them as they are.

    Raises:
        InputError: a clip or class that is not listed, or an event that begins before its clip or ends before its
            onset.
    """
    name = table.attrs.get("source", name)
    filenames = table["filename"].astype(str)
    numbers = {clip: index for index, clip in enumerate(clips)}
    named = match_clips(filenames.unique(), clips)
    unknown = sorted(set(filenames) - set(named))
    if unknown:
        raise InputError(
            f"{name}: {len(unknown)} clip(s) such as {unknown[0]} have no duration; "
            "add them to the durations table or remove their rows"
        )
    active = table["event_label"].notna().to_numpy()
    rows = table[active]
    class_numbers = {label: index for index, label in enumerate(labels)}
    label = rows["event_label"].map(class_numbers)
    if label.isna().any():
        strange = sorted(set(rows["event_label"][label.isna()].astype(str)))
        raise InputError(f"{name}: unknown class {', '.join(strange)}; the classes are {', '.join(labels)}")
    clip = filenames[active].map(lambda filename: numbers[named[filename]])
    onset, offset = rows["onset"].to_numpy(np.float64), rows["offset"].to_numpy(np.float64)
    wrong = ~((onset >= 0) & (offset >= onset) & (offset < np.inf))
    if wrong.any():
        row = rows[wrong].iloc[0]
        raise InputError(
            f"{name}: {row['filename']} has an event from {row['onset']} s to {row['offset']} s; correct it"
        )
    array = EventArray(clip.to_numpy(np.int64), label.to_numpy(np.int64), onset, offset)
    if durations is not None:
        onset, offset, kept = fit_events(onset, offset, durations[array.clip], name)
        array = EventArray(array.clip, array.label, onset, offset).select(kept)
    return EventArray.sorted(array.clip, array.label, array.onset, array.offset)
