"""An annotator's folder laid out as a corpus: whole recordings to learn from, to choose on and to be measured on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pmam_plugin.data.corpora.base import Corpus, Part, Recording as Entry, write_corpus
from pmam_plugin.data.holdout import split_clips
from pmam_plugin.data.manifest import Clip, Event
from pmam_plugin.data.survey import Survey
from pmam_plugin.errors import InputError

_LEAST = 3  # labelled recordings: one to learn from, one to choose on, one to be measured on
# Shares of the labelled recordings that figures are taken on, and that models and thresholds are chosen on.
TEST_SHARE, SELECTION_SHARE = 0.2, 0.15
_MORE = "more"  # folder of the recordings of --unlabelled


@dataclass(frozen=True)
class LaidOut:
    """A corpus in DESED's layout.

    Attributes:
        folder: of the corpus.
        recordings: how many there are, by part.
        unmeasured: classes that no held-out recording holds.
        left_out: recordings there was no room for.
    """

    folder: Path
    recordings: dict[str, int]
    unmeasured: tuple[str, ...]
    left_out: int


def lay_out(
    survey: Survey,
    folder: Path,
    more: Survey | None = None,
    share: float = 1.0,
    unlabelled_seconds: float = float("inf"),
    seed: int = 0,
) -> LaidOut:
    """Write a corpus in DESED's layout, its audio linked; whole recordings are held out, never parts of one.

    Args:
        survey: of the folder with labels; recordings without any are unlabelled ones.
        folder: of the corpus; of an earlier call, or new.
        more: of a folder of further unlabelled recordings.
        share: of the labelled recordings that are used at all, every class among them.
        unlabelled_seconds: how much unlabelled sound is used at most; whole recordings, drawn by ``seed``.
        seed: decides which recordings are held out.

    Raises:
        InputError: fewer than three labelled recordings, or no event.
    """
    clips = [
        Clip(name, recording.path, recording.seconds, events=events, labels=tuple(sorted({e.label for e in events})))
        for name, events in ((name, _usable(events, survey, name)) for name, events in survey.labelled.items())
        for recording in (survey.recordings[name],)
    ]
    if len(clips) < _LEAST or not any(clip.events for clip in clips):
        raise InputError(
            f"{survey.folder}: {len(clips)} labelled recordings with {sum(len(c.events or ()) for c in clips)} events; "
            f"at least {_LEAST} are needed, one to learn from, one to choose thresholds on and one to be measured on, "
            "since parts of one recording sound alike; label another recording"
        )
    used_clips = split_clips(clips, 1 - share, seed)[0] if share < 1 and len(clips) > _LEAST else clips
    rest, measured = split_clips(used_clips, TEST_SHARE, seed)
    learned, chosen = split_clips(rest, SELECTION_SHARE / (1 - TEST_SHARE), seed)
    free = [(name, survey.recordings[name].path, survey.recordings[name].seconds) for name in survey.unlabelled]
    if more is not None:
        free += [(f"{_MORE}/{name}", found.path, found.seconds) for name, found in more.recordings.items()]
    used = _within(free, unlabelled_seconds, seed)
    parts: dict[Part, list[Entry]] = {
        "strong": _entries(learned),
        "unlabelled": [Entry(name, path) for name, path, _ in used],
        "selection": _entries(chosen),
        "test": _entries(measured),
    }
    counts = write_corpus(Corpus({part: entries for part, entries in parts.items() if entries}), folder)
    heard = {label for clip in measured for label in clip.labels or ()}
    unmeasured = tuple(figures.label for figures in survey.classes if figures.label not in heard)
    return LaidOut(folder, counts, unmeasured, len(clips) - len(used_clips) + len(free) - len(used))


def _usable(events: Iterable[Event], survey: Survey, name: str) -> tuple[Event, ...]:
    """Events of a recording, each once, without those after its end."""
    end = survey.recordings[name].seconds
    return tuple(event for event in dict.fromkeys(events) if event.onset < end)


def _entries(clips: Iterable[Clip]) -> list[Entry]:
    return [Entry(clip.id, clip.path, clip.events) for clip in clips]


def _within(free: list[tuple[str, Path, float]], seconds: float, seed: int) -> list[tuple[str, Path, float]]:
    """Recordings drawn at random that together are no longer than ``seconds``, or the first drawn; in their order."""
    left, used = seconds, set[int]()
    for place in np.random.default_rng(seed).permutation(len(free)).tolist():
        if free[place][2] <= left or (not used and seconds > 0):
            left -= free[place][2]
            used.add(place)
    return [item for place, item in enumerate(free) if place in used]
