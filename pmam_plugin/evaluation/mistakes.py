"""What a detector gets wrong, event by event: missed, heard as another class, too early, too late, or not there at all.

F1 and PSDS say how much is wrong; this says what, so that a person can listen to it. An event's collars are those of
event F1: 200 ms at its onset, 200 ms or a fifth of its length at its offset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pmam_plugin.evaluation.alignment import aligned
from pmam_plugin.evaluation.counts import COLLAR_SECONDS, OFFSET_SHARE, TOLERANCE
from pmam_plugin.evaluation.intersection import Criteria, count_changes
from pmam_plugin.evaluation.intervals import score_intervals
from pmam_plugin.evaluation.psds import SECONDS_PER_HOUR

KINDS = {
    "missed": "missed",
    "missed_short": "missed, under 1 s",
    "confused": "heard as another",
    "begins_early": "begins too early",
    "begins_late": "begins too late",
    "ends_early": "ends too early",
    "ends_late": "ends too late",
    "false_alarm": "false alarm",
}
"""Kinds of mistakes and what they are called."""

_SHORT_SECONDS = 1.0
_COVERED = 0.5  # of an event, for another class to have been heard in its place
_HALF = Criteria(detection=0.5, ground_truth=0.5)
_MOST_POINTS = 200


@dataclass(frozen=True)
class Mistake:
    """One of them.

    Attributes:
        kind: one of :data:`KINDS`.
        clip: it happens in.
        label: the class that is there; of a false alarm the one that is not.
        onset: of the event (of a false alarm: of the detection), s.
        offset: likewise.
        other: the class heard instead, or that a false alarm is in truth; None where there is none.
        seconds: by how much an edge is wrong; 0 for other kinds.
    """

    kind: str
    clip: str
    label: str
    onset: float
    offset: float
    other: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Mistakes:
    """All mistakes of a set.

    Attributes:
        found: one by one, in the order of clips and onsets. An event may have both edges wrong.
        events: per class, how many there are.
        right: per class, how many are found with both edges within the collars.
        confusions: class that is there -> what was heard at it (a class, or None for nothing) -> events. Under None:
            false alarms by class, where nothing is.
    """

    found: tuple[Mistake, ...]
    events: dict[str, int]
    right: dict[str, int]
    confusions: dict[str | None, Counter[str | None]]


@dataclass(frozen=True)
class OperatingCurve:
    """What every threshold of a class would bring, from high to low; all ``(points,)``.

    An event counts as found when detections of its class cover half of it, a detection as a false alarm when less than
    half of it is covered by events of its class.

    Attributes:
        threshold: scores above it are detections; halfway between the scores at which something changes.
        below: the same counts hold for all thresholds below this one, down to that of the next point.
        recall: share of the events found.
        false_alarms: per hour.
    """

    threshold: np.ndarray
    below: np.ndarray
    recall: np.ndarray
    false_alarms: np.ndarray


def find_mistakes(detected: pd.DataFrame, truth: pd.DataFrame, labels: Sequence[str]) -> Mistakes:
    """Compare detections with the events that are there.

    Args:
        detected: ``filename, onset, offset, event_label``.
        truth: likewise; rows without a label are clips without events.
        labels: the classes.
    """
    given, wanted = _by_clip(detected), _by_clip(truth.dropna(subset="event_label"))
    found: list[Mistake] = []
    right, events = Counter[str](), Counter[str]()
    confusions: dict[str | None, Counter[str | None]] = {label: Counter() for label in (*labels, None)}
    for clip in sorted({*given, *wanted}):
        guesses, here = given.get(clip, []), wanted.get(clip, [])
        for event in here:
            label = event[2]
            events[label] += 1
            mine = max((g for g in guesses if g[2] == label), key=lambda g: _overlap(g, event), default=None)
            if mine is None or _overlap(mine, event) <= 0:
                other = _instead(event, guesses)
                confusions[label][other] += 1
                missed = "missed_short" if event[1] - event[0] < _SHORT_SECONDS else "missed"
                kind = "confused" if other is not None else missed
                found.append(Mistake(kind, clip, label, event[0], event[1], other))
                continue
            confusions[label][label] += 1
            edges = list(_edges(clip, event, mine))
            right[label] += not edges
            found.extend(edges)
        for guess in guesses:
            if not any(event[2] == guess[2] and _overlap(guess, event) > 0 for event in here):
                truly = _instead(guess, here)
                found.append(Mistake("false_alarm", clip, guess[2], guess[0], guess[1], truly))
                if truly is None:
                    confusions[None][guess[2]] += 1
    found.sort(key=lambda mistake: (mistake.clip, mistake.onset))
    return Mistakes(
        tuple(found), {label: events[label] for label in labels}, {label: right[label] for label in labels}, confusions
    )


def operating_curves(
    scores: Mapping[str, pd.DataFrame], events: pd.DataFrame, durations: Mapping[str, float], labels: Sequence[str]
) -> dict[str, OperatingCurve]:
    """Recall and false alarms per hour of every class that occurs, over its thresholds.

    Args:
        scores: post-processed table of every clip.
        events: ground truth.
        durations: seconds of every clip.
        labels: the classes.

    Raises:
        InputError: as :func:`pmam_plugin.evaluation.evaluate_scores`.
    """
    tables, reference = aligned(scores, events, durations, labels)
    united = reference.for_intersection()
    (changes,) = count_changes(
        (part for _, part in score_intervals(tables, united.clips, united.labels)), united, [_HALF]
    )
    total = united.counts.sum(axis=0)
    hours = united.seconds.sum(axis=0) / SECONDS_PER_HOUR
    curves = {}
    for number, (label, change) in enumerate(zip(united.labels, changes)):
        level = change.score[change.last]
        found = np.cumsum(change.found)[change.last] / total[number]
        wrong = np.cumsum(change.wrong)[change.last] / hours[number]
        # Halfway to the next lower score, and nothing at all above the highest.
        lower = np.append(level[1:], 0.0)
        threshold, below = np.append(1.0, (level + lower) / 2), np.append(np.inf, level)
        recall, alarms = np.concatenate(([0.0], found)), np.concatenate(([0.0], wrong))
        kept = _thinned(recall, alarms)
        curves[label] = OperatingCurve(threshold[kept], below[kept], recall[kept], alarms[kept])
    return curves


def _thinned(recall: np.ndarray, alarms: np.ndarray) -> np.ndarray:
    """Points at which something changes, evenly thinned."""
    moved = np.flatnonzero(np.append(True, (np.diff(recall) != 0) | (np.diff(alarms) != 0)))
    if len(moved) <= _MOST_POINTS:
        return moved
    return np.unique(moved[np.linspace(0, len(moved) - 1, _MOST_POINTS).round().astype(int)])


Span = tuple[float, float, str]


def _by_clip(table: pd.DataFrame) -> dict[str, list[Span]]:
    spans: dict[str, list[Span]] = {}
    for clip, onset, offset, label in zip(
        table["filename"].astype(str), table["onset"].astype(float), table["offset"].astype(float), table["event_label"]
    ):
        spans.setdefault(clip, []).append((onset, offset, str(label)))
    return spans


def _overlap(one: Span, other: Span) -> float:
    return min(one[1], other[1]) - max(one[0], other[0])


def _instead(span: Span, others: Sequence[Span]) -> str | None:
    """The other class that covers most of a span, if it covers half of it."""
    covered: dict[str, float] = {}
    for other in others:
        if other[2] != span[2]:
            covered[other[2]] = covered.get(other[2], 0.0) + max(0.0, _overlap(span, other))
    best = max(covered, key=lambda label: covered[label], default=None)
    length = max(span[1] - span[0], TOLERANCE)
    return best if best is not None and covered[best] >= _COVERED * length else None


def _edges(clip: str, event: Span, guess: Span) -> Iterator[Mistake]:
    begin, end = guess[0] - event[0], guess[1] - event[1]
    late = max(COLLAR_SECONDS, OFFSET_SHARE * (event[1] - event[0]))
    for name, wrong, collar in (("begins", begin, COLLAR_SECONDS), ("ends", end, late)):
        if abs(wrong) > collar + TOLERANCE:
            kind = f"{name}_{'early' if wrong < 0 else 'late'}"
            yield Mistake(kind, clip, event[2], event[0], event[1], seconds=abs(wrong))
