"""Take a part of the training clips aside to select models on, so that the test set stays untouched."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pmam_plugin.audio.names import clip_name
from pmam_plugin.data.manifest import Clip

# AudioSet's and so DESED's names: video, start and end in seconds ("Y00pbt6aJV8Y_350.000_360.000").
_EXCERPT = re.compile(r"^(?P<recording>.+)_\d+\.\d+_\d+\.\d+$")


def excerpt_source(clip: Clip) -> str | None:
    """The recording of a clip named as in AudioSet; None for other names, which are unique in their folder only."""
    match = _EXCERPT.match(clip_name(clip.path.name))
    return match["recording"] if match else None


def recording_of(clip: Clip) -> str:
    """What a clip was cut from: clips of one recording sound alike and must not stand on both sides of a split."""
    return excerpt_source(clip) or str(clip.path)


def split_clips(clips: Sequence[Clip], share: float, seed: int) -> tuple[list[Clip], list[Clip]]:
    """Split clips into a part to train on and a part held out, about equal in their shares of every class.

    Recordings are dealt class by class, the rarest first, until a class has its share (iterative stratification,
    Sechidis et al. 2011, in its greedy form); clips without labels fill up what is missing. All clips of a recording
    stay together, and the last recording of a class is not held out: nothing would be left to learn it from.

    Args:
        clips: to be split.
        share: of the clips that is held out, in (0, 1).
        seed: decides which.

    Returns:
        Clips to train on and clips held out, each in the given order; neither is empty if there are two recordings.
    """
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(recording_of(clip), []).append(clip)
    names = np.random.default_rng(seed).permutation(sorted(groups)).tolist()
    labels = {name: {label for clip in groups[name] for label in clip.labels or ()} for name in names}
    left = Counter(label for name in names for label in labels[name])  # recordings of a class that are not held out
    held: dict[str, None] = {}  # an ordered set

    def hold(candidates: list[str], wanted: int, size: Callable[[str], int]) -> None:
        count = sum(size(name) for name in candidates if name in held)
        for name in candidates:
            if count >= wanted:
                break
            if name not in held and all(left[label] > 1 for label in labels[name]):
                held[name] = None
                left.subtract(labels[name])
                count += size(name)

    totals = dict(left)
    for label in sorted(totals, key=lambda label: (totals[label], label)):
        hold([name for name in names if label in labels[name]], _part(totals[label], share), lambda _: 1)
    hold(names, _part(len(clips), share), lambda name: len(groups[name]))
    if not held and len(names) > 1:  # every recording is the only one of a class
        held[names[0]] = None
    if len(held) == len(groups):
        held.pop(names[-1])
    kept = [clip for clip in clips if recording_of(clip) not in held]
    return kept, [clip for clip in clips if recording_of(clip) in held]


def forget_labels(clips: Mapping[str, Sequence[Clip]], subset: str, share: float, seed: int) -> dict[str, list[Clip]]:
    """``subset`` with a share of its clips, about equal for every class, and ``unlabelled`` with the others as well."""
    kept, rest = split_clips(clips[subset], 1 - share, seed)
    plain = [replace(clip, events=None, labels=None) for clip in rest]
    return {subset: kept, "unlabelled": [*clips.get("unlabelled", ()), *plain]}


def _part(count: int, share: float) -> int:
    """A share of a count: at least one, but never the only one."""
    return 0 if count < 2 else min(count - 1, max(1, round(share * count)))
