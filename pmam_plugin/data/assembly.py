"""Match annotations with recordings and build the manifests of all subsets."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pmam_plugin.audio.names import clip_name, has_audio_ending, is_shard, plain_path, relative_path
from pmam_plugin.audio.shards import AudioFile, Member, members
from pmam_plugin.data.holdout import excerpt_source, forget_labels, split_clips
from pmam_plugin.data.layout import Source
from pmam_plugin.data.manifest import SUBSETS, TRAINING_SUBSETS, Clip, Event, Manifest, heard_events, unique_ids
from pmam_plugin.data.recordings import Recording, Stamp, examine
from pmam_plugin.errors import InputError
from pmam_plugin.tables import clip_events, read_events, read_weak

logger = logging.getLogger(__name__)

Files = Mapping[str, AudioFile]
Place = tuple[str, str]
"""A corpus (without a name where there is one) and a role: training subset, ``selection`` or ``test``."""

# Resampling leaves clips of 10.01 s; they count as 10 s.
_LENGTH_TOLERANCE_SECONDS = 0.1
# The rest of a long recording makes a training clip of its own only if there is something to learn in it.
_SHORTEST_REST_SECONDS = 1.0
# Of the recording before an event that begins a training clip, so that its onset is heard.
_LEAD_SECONDS = 0.5
_EXAMPLES = 5


class Assembly:
    """One preparation: builds manifests and writes down everything that was left out.

    Args:
        root: data folder.
        clip_seconds: length of a training clip.
        max_unreadable: share of the recordings that may be unreadable.
        decode: check samples, not only headers.
        stamps: of the recordings.

    Attributes:
        report: plain JSON; complete once :meth:`build` has returned.
    """

    def __init__(
        self, root: Path, clip_seconds: float, max_unreadable: float, decode: bool, stamps: Mapping[Path, Stamp]
    ) -> None:
        self.root, self.clip_seconds, self.stamps = root, clip_seconds, stamps
        self.max_unreadable, self.decode = max_unreadable, decode
        self.report: dict[str, Any] = {"subsets": {}}

    def build(
        self,
        sources: Mapping[Place, Source],
        files: Mapping[Place, Mapping[str, Path]],
        hold_out: float,
        seed: int,
        labelled: Mapping[str, float] | None = None,
        most_clips: Mapping[str, int] | None = None,
    ) -> dict[str, Manifest]:
        """Manifests of every subset that has clips.

        Args:
            sources: the sets to read.
            files: their audio files and shards.
            hold_out: share of a corpus's clips held out as selection set where it has none; 0 holds out nothing.
            seed: decides which are held out, and which keep their labels.
            labelled: training subset -> share of its clips that keep their labels.
            most_clips: training subset -> how many of its clips are kept.

        Raises:
            InputError: see :func:`pmam_plugin.data.prepare`.
        """
        matched = {place: self._match(place, source, _opened(files[place])) for place, source in sources.items()}
        recordings = self._examine([path for pairs in matched.values() for path in pairs])
        clips: dict[str, list[Clip]] = {}
        selections = []
        corpora = list(dict.fromkeys(corpus for corpus, _ in sources))
        for corpus in corpora:
            own = {
                place[1]: self._clips(place, source, matched[place], recordings)
                for place, source in sources.items()
                if place[0] == corpus
            }
            chosen = sources[corpus, "selection"].name if "selection" in own else "none"
            if "selection" not in own and hold_out:
                # Among several, one that only knows tags would leave figures of events nothing to be taken on.
                kinds = TRAINING_SUBSETS if len(corpora) == 1 else ("strong", "synthetic")
                chosen = _hold_out(own, kinds, hold_out, seed)
            selections.append(f"{corpus}: {chosen}" if corpus else chosen)
            for role, found in own.items():
                clips.setdefault(role, []).extend(found)
        self.report["selection"] = ", ".join(selections)
        self._separate(clips)
        for role in ("selection", "test"):
            clips[role] = [
                clip if clip.events is None else replace(clip, events=heard_events(clip.events))
                for clip in clips.get(role, ())
            ]
        for subset, share in sorted((labelled or {}).items()):
            if subset in clips and share < 1:
                count = len(clips[subset])
                clips |= forget_labels(clips, subset, share, seed)
                self.report.setdefault("labels_forgotten", {})[subset] = count - len(clips[subset])
        for subset, most in sorted((most_clips or {}).items()):
            self._limit(clips, subset, most, seed)
        # Test and selection clips keep their plain names: scores are compared with annotations by name.
        order = ["test", "selection", *(name for name in TRAINING_SUBSETS if name in clips)]
        named = unique_ids((name, clips[name]) for name in order if name in clips)
        manifests = {name: Manifest(name, tuple(named[name])) for name in SUBSETS if named.get(name)}
        self._summarise(manifests)
        return manifests

    def _match(self, place: Place, source: Source, files: Files) -> dict[AudioFile, Any]:
        """Audio file -> annotation of one set; files without annotation and the reverse are counted."""
        if source.table is None:
            self._note(place, source, files, listed=len(files), missing=[], unlisted=0)
            return dict.fromkeys(files.values())
        exact: dict[str, list[AudioFile]] = {}
        by_clip: dict[str, list[AudioFile]] = {}
        for name, path in files.items():
            exact.setdefault(plain_path(name), []).append(path)
            by_clip.setdefault(clip_name(name), []).append(path)
        pairs: dict[AudioFile, Any] = {}
        missing, listed = [], 0
        for filename, annotation in _annotations(source):
            name = relative_path(filename, str(source.table), source.folder)
            listed += 1
            found = exact.get(name) or by_clip.get(clip_name(name), [])
            if len(found) > 1:
                names = ", ".join(repr(Path(path).name)[1:-1] for path in found)
                raise InputError(f"{source.table}: {filename!r} may be {names}; write the ending, or keep one of them")
            if not found:
                missing.append(filename)
            elif found[0] not in pairs:
                pairs[found[0]] = annotation
            elif source.kind == "weak":
                raise InputError(f"{source.table}: lists {filename!r} for the second time; keep one row of it")
            else:  # one clip under two spellings
                pairs[found[0]] = pd.concat([pairs[found[0]], annotation], ignore_index=True)
        if not listed:
            raise InputError(f"{source.table}: lists no recording; write a row for each, or remove {source.folder}")
        if not pairs:
            raise InputError(
                f"{source.folder}: none of the {listed} clips of {source.table} is there; "
                "put the recordings under the names in the table"
            )
        self._note(place, source, files, listed, missing, len(files) - len(pairs))
        return pairs

    def _note(self, place: Place, source: Source, files: Files, listed: int, missing: list[str], unlisted: int) -> None:
        role = _named(place)
        self.report["subsets"][role] = {
            "folder": source.folder.relative_to(self.root).as_posix(),
            "files": len(files),
            "listed": listed,
            "missing": len(missing),
            "missing_examples": missing[:_EXAMPLES],
            "unlisted": unlisted,
        }
        if missing:
            logger.warning(
                "%s: %d of %d listed clips are not in %s (such as %s); they are left out",
                role,
                len(missing),
                listed,
                source.folder,
                missing[0],
            )
        if unlisted:
            logger.info("%s: %d recordings have no annotation and are not used", role, unlisted)

    def _examine(self, paths: list[AudioFile]) -> dict[AudioFile, Recording]:
        recordings = examine(paths, self.decode)
        odd = [note for recording in recordings.values() for note in recording.notes]
        self.report["odd"], self.report["odd_examples"] = len(odd), odd[:_EXAMPLES]
        if odd:
            logger.warning("%d recordings are odd but whole and are used; such as %s", len(odd), odd[0])
        broken = [recording for recording in recordings.values() if recording.problem]
        self.report["unreadable"] = len(broken)
        self.report["unreadable_examples"] = [str(recording.problem) for recording in broken[:_EXAMPLES]]
        if len(broken) > self.max_unreadable * len(recordings):
            raise InputError(
                f"{self.root}: {len(broken)} of {len(recordings)} recordings cannot be read, more than max_unreadable "
                f"= {self.max_unreadable:g} allows; repair them or raise the limit (the first: {broken[0].problem})"
            )
        for recording in broken:
            logger.warning("left out, unreadable: %s", recording.problem)
        return recordings

    def _clips(
        self,
        place: Place,
        source: Source,
        matched: Mapping[AudioFile, Any],
        recordings: Mapping[AudioFile, Recording],
    ) -> list[Clip]:
        corpus, role = place
        usable = {path: annotation for path, annotation in matched.items() if not recordings[path].problem}
        self.report["subsets"][_named(place)]["unreadable"] = len(matched) - len(usable)
        if source.kind == "strong":
            seconds = {str(path): recordings[path].seconds for path in usable}
            usable = _within(usable, seconds, _named(place))
        clips, cut = [], 0
        for path, annotation in usable.items():
            whole = self._whole_clip(corpus, source, path, recordings[path], annotation)
            if role not in TRAINING_SUBSETS:
                clips.append(self._tolerated(whole))
            elif source.kind == "weak":
                cut += whole.seconds > self.clip_seconds + _LENGTH_TOLERANCE_SECONDS
                clips.append(replace(whole, seconds=min(whole.seconds, self.clip_seconds)))
            else:
                clips.extend(windows_of(whole, self.clip_seconds))
        if cut:
            logger.warning("%s: %d recordings are cut to their first %g s", _named(place), cut, self.clip_seconds)
            self.report["subsets"][_named(place)]["cut"] = cut
        return clips

    def _whole_clip(self, corpus: str, source: Source, file: AudioFile, recording: Recording, annotation: Any) -> Clip:
        events, labels = None, None
        if source.kind == "strong":
            rows = annotation.dropna(subset="event_label")
            soft = rows["soft_label"] if "soft_label" in rows else np.ones(len(rows))
            found = map(Event, rows["onset"], rows["offset"], rows["event_label"], soft)
            events = tuple(sorted(event for event in found if event.soft > 0))
            labels = _labels_of(events)
        elif source.kind == "weak":
            labels = tuple(sorted(set(annotation)))
        member = file if isinstance(file, Member) else None
        stamp = self.stamps.get(recording.path if member is None else member.shard, Stamp())
        return Clip(
            id=clip_name(Path(corpus) / recording.path.relative_to(source.folder)),
            path=recording.path,
            seconds=recording.seconds,
            sample_rate=recording.sample_rate,
            size=stamp.size if member is None else member.size,
            content=stamp.content if member is None else f"{stamp.content}@{member.offset}",
            events=events,
            labels=labels,
            offset=None if member is None else member.offset,
        )

    def _tolerated(self, clip: Clip) -> Clip:
        slightly_longer = self.clip_seconds < clip.seconds <= self.clip_seconds + _LENGTH_TOLERANCE_SECONDS
        return next(windows_of(clip, self.clip_seconds)) if slightly_longer else clip

    def _limit(self, clips: dict[str, list[Clip]], subset: str, most: int, seed: int) -> None:
        """Keep some of a subset's clips, drawn at random, in their order."""
        found = clips.get(subset, [])
        if len(found) > most:
            kept = sorted(np.random.default_rng(seed).permutation(len(found))[:most].tolist())
            clips[subset] = [found[place] for place in kept]
            self.report.setdefault("beyond_most_clips", {})[subset] = len(found) - most

    def _separate(self, clips: dict[str, list[Clip]]) -> None:
        """Take recordings of the test set out of selection, and those of both out of training."""
        forbidden = {excerpt_source(clip) for clip in clips.get("test", ())} - {None}
        for subset in ("selection", *TRAINING_SUBSETS):
            if subset in clips:
                kept = [clip for clip in clips[subset] if excerpt_source(clip) not in forbidden]
                removed = len(clips[subset]) - len(kept)
                if removed:
                    logger.warning("%s: %d clips also stand in a set to be evaluated on; left out", subset, removed)
                    self.report["subsets"].setdefault(subset, {})["also_evaluated_on"] = removed
                clips[subset] = kept
            if subset == "selection":
                forbidden |= {excerpt_source(clip) for clip in clips.get("selection", ())} - {None}

    def _summarise(self, manifests: Mapping[str, Manifest]) -> None:
        trained: set[str] = set()
        heard: set[str] = set()
        for name, manifest in manifests.items():
            counts = Counter(event.label for clip in manifest for event in clip.events or () if event.heard)
            counts.update(label for clip in manifest if clip.events is None for label in clip.labels or ())
            (trained if name in TRAINING_SUBSETS else heard).update(counts)
            self.report["subsets"].setdefault(name, {}).update(
                clips=len(manifest),
                hours=round(sum(clip.seconds for clip in manifest) / 3600, 3),
                sample_rates={str(rate): n for rate, n in sorted(Counter(c.sample_rate for c in manifest).items())},
                labels=dict(sorted(counts.items())),
            )
        if trained and heard - trained:
            logger.warning(
                "no training clip holds %s, which the evaluation sets do", ", ".join(sorted(heard - trained))
            )


def windows_of(clip: Clip, seconds: float) -> Iterator[Clip]:
    """Cut a long clip into ones of at most ``seconds``; strong labels are cut with it, and none is lost.

    An event that a cut would divide stands whole in the next clip, which begins a little before it and so overlaps the
    one before by up to its half; only events longer than that are divided. A rest shorter than a second is left out
    where it holds no event. A clip that is short enough comes back as it is.
    """
    if clip.seconds <= seconds:
        yield clip
        return
    borders = _borders(clip, seconds)
    for begin, end in borders:
        events = None
        if clip.events is not None:
            events = tuple(
                event._replace(
                    onset=round(max(0.0, event.onset - begin), 6),
                    offset=round(min(end, event.offset) - begin, 6),
                )
                for event in clip.events
                if event.onset < end and event.offset > begin
            )
        yield replace(
            clip,
            id=clip.id if len(borders) == 1 else f"{clip.id}_{begin:.3f}_{end:.3f}",
            start=clip.start + begin,
            seconds=end - begin,
            events=events,
            labels=clip.labels if events is None else _labels_of(events),
        )


def _borders(clip: Clip, seconds: float) -> list[tuple[float, float]]:
    """Where the clips that a longer one is cut into begin and end, s."""
    begin, borders = 0.0, []
    while True:
        end = min(begin + seconds, clip.seconds)
        borders.append((begin, end))
        if clip.seconds - end <= _LENGTH_TOLERANCE_SECONDS:
            return borders
        half = begin + seconds / 2
        divided = [event.onset for event in clip.events or () if half < event.onset < end < event.offset]
        begin = max(half, min(divided) - _LEAD_SECONDS) if divided else end
        if clip.seconds - begin < _SHORTEST_REST_SECONDS:
            if not any(event.offset > end for event in clip.events or ()):
                return borders
            begin = clip.seconds - seconds


def _annotations(source: Source) -> Iterator[tuple[str, Any]]:
    """File name and annotation of every listed clip: a table of events, or a tuple of classes."""
    assert source.table is not None
    if source.kind == "weak":
        table = read_weak(source.table)
        yield from zip(table["filename"], table["event_labels"])
    else:
        for filename, rows in read_events(source.table).groupby("filename", sort=False):
            yield str(filename), rows


def _opened(files: Mapping[str, Path]) -> dict[str, AudioFile]:
    """The recordings in shards beside those that are files of their own."""
    opened: dict[str, AudioFile] = {}
    for name, path in files.items():
        if is_shard(path.name):
            inside = {f"{name}/{each.name}": each for each in members(path) if has_audio_ending(each.name)}
            if not inside:
                raise InputError(f"{path}: holds no recording; take the shard out, or pack sound into it")
            opened |= inside
        else:
            opened[name] = path
    return opened


def _within(
    annotations: Mapping[AudioFile, pd.DataFrame], seconds: Mapping[str, float], role: str
) -> dict[AudioFile, pd.DataFrame]:
    """Cut all events of a set at the ends of their recordings at once, for one line in the log."""
    if not annotations:
        return {}
    joined = pd.concat([table.assign(filename=str(path)) for path, table in annotations.items()], ignore_index=True)
    cut = dict(list(clip_events(joined, seconds, role).groupby("filename", sort=False)))
    return {path: cut.get(str(path), joined.iloc[:0]) for path in annotations}


def _hold_out(clips: dict[str, list[Clip]], kinds: Sequence[str], share: float, seed: int) -> str:
    """Move a part of the first of those subsets that there is to ``selection``, and say which."""
    for subset in kinds:
        if len(clips.get(subset, ())) > 1:
            clips[subset], clips["selection"] = split_clips(clips[subset], share, seed)
            return f"held out of {subset}"
    return "none"


def _labels_of(events: Iterable[Event]) -> tuple[str, ...]:
    return tuple(sorted({event.label for event in events if event.heard}))


def _named(place: Place) -> str:
    return "/".join(filter(None, place))
