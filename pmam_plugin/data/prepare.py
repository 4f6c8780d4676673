"""Turn a folder of recordings and annotations into manifests that can be trained on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from pmam_plugin.data.assembly import Assembly, Place
from pmam_plugin.data.classes import annotated_classes, merged_classes
from pmam_plugin.data.layout import PLACES, Source, expected_folders, find_corpora, find_source
from pmam_plugin.data.listing import Sets
from pmam_plugin.data.manifest import SUBSETS, TRAINING_SUBSETS, Manifest
from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json, write_json

logger = logging.getLogger(__name__)

# Raise when prepared files of an earlier version must be written again.
_VERSION = 3
# What a run's stages depend on: digested once, and read by every process at its start.
_DIGESTED = ((*TRAINING_SUBSETS, "selection"), ("test",))


@dataclass(frozen=True)
class Prepared:
    """Data that is ready to be trained on.

    Attributes:
        manifests: the subsets that have clips, by name.
        labels: the class list, sorted.
        clip_seconds: length that training clips are padded to; none is longer.
        report: what was found, and what was left out and why; plain JSON.
        fingerprint: changes when files, annotations or options change, in any subset; see :meth:`digest` for some.
        digests: of some sets of subsets, by their names, as :meth:`digest` gives them.
    """

    manifests: dict[str, Manifest]
    labels: tuple[str, ...]
    clip_seconds: float
    report: dict[str, Any]
    fingerprint: str
    digests: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def counts(self) -> dict[str, int]:
        """Clips of every subset."""
        return {name: len(manifest) for name, manifest in self.manifests.items()}

    @property
    def annotated(self) -> dict[str, list[str]]:
        """The classes that each of several corpora annotates, by the name that the ids of its clips begin with; empty
        where there is one."""
        return dict(self.report.get("annotated", {}))

    @property
    def description(self) -> str:
        """One line on the data: subsets with their sizes, and the number of classes."""
        subsets = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        return f"{subsets} clips; {len(self.labels)} classes; selection: {self.report['selection']}"

    def digest(self, *subsets: str) -> str:
        """Changes when the clips of ``subsets`` change, what is heard in them or what their labels say."""
        if ",".join(subsets) in self.digests:
            return self.digests[",".join(subsets)]
        known = (self.labels, self.clip_seconds, *([self.annotated] if self.annotated else []))
        digest = hashlib.sha256(repr(known).encode())
        for name in subsets:
            for clip in self.manifests.get(name, ()):
                known = (name, clip.id, clip.content, clip.start, clip.seconds, clip.events, clip.labels)
                digest.update(repr(known).encode())
        return digest.hexdigest()[:32]

    def judged(self, clip: str, scores: pd.DataFrame) -> pd.DataFrame:
        """Scores of the classes that the corpus of a clip annotates, by the clip's id: figures ask for no others."""
        if not self.annotated:
            return scores
        return scores[["onset", "offset", *(name for name in self.annotated[clip.partition("/")[0]] if name in scores)]]

    def has_events(self, subset: str) -> bool:
        """Whether all clips of a subset have strong labels, and any of them an event: what figures are taken from."""
        clips = self.manifests[subset].clips if subset in self.manifests else ()
        return all(clip.events is not None for clip in clips) and any(clip.events for clip in clips)

    def events(self, subset: str) -> pd.DataFrame:
        """Strong labels of a subset: ``filename, onset, offset, event_label``, where ``filename`` is the clip's id."""
        return self._manifest(subset).events()

    def durations(self, subset: str) -> dict[str, float]:
        """Seconds of every clip of a subset, by id."""
        return self._manifest(subset).durations()

    def seconds_by_clip(self, subsets: Sequence[str]) -> dict[str, float]:
        """Seconds of every clip of those of ``subsets`` that exist, at most ``clip_seconds`` each, by id."""
        present = [self.manifests[name] for name in subsets if name in self.manifests]
        return {clip.id: min(clip.seconds, self.clip_seconds) for manifest in present for clip in manifest}

    def _manifest(self, subset: str) -> Manifest:
        try:
            return self.manifests[subset]
        except KeyError:
            raise InputError(
                f"the data have no {subset} set, only {', '.join(self.manifests)}; add it or name another one"
            ) from None


def prepare(
    data_folder: str | PathLike[str],
    save_folder: str | PathLike[str],
    subsets: Sequence[str] = TRAINING_SUBSETS,
    selection: str | Sequence[str] = ("synthetic_validation", "hold_out"),
    test: str = "validation",
    hold_out: float = 0.1,
    seed: int = 0,
    clip_seconds: float = 10.0,
    max_unreadable: float = 0.01,
    check: Literal["decode", "header"] = "decode",
    labelled: Mapping[str, float] | None = None,
    most_clips: Mapping[str, int] | None = None,
    skip_prep: bool = False,
) -> Prepared:
    """Write a manifest per subset, ``labels.json`` and ``prepared.json``.

    Nothing is done when neither files, annotations nor options have changed since the last time. A file has changed
    when its content has (with ``check="header"``: its size or the time of its last change); files without labels are
    listed once, see :mod:`pmam_plugin.data.listing`. Tar files among recordings are shards, whose recordings are read
    where they lie (:mod:`pmam_plugin.audio.shards`). Recordings that are missing or unreadable are left out, counted
    and logged. Training clips whose recording (by AudioSet's naming) also stands in the selection or test set are left
    out of training: DESED has 35 of them. Recordings longer than ``clip_seconds`` become several training clips, with
    every event up to half as long whole in one of them; of a weakly labelled one only the first ``clip_seconds`` are
    used, since its labels may not hold in a part. Selection and test clips stay whole; of soft labels, those of at
    least one half are their events.

    Several corpora are prepared as one: the ids of their clips begin with the folder's name, classes of one name are
    one class, and what a corpus does not annotate is not taken for absent (:attr:`Prepared.annotated`).

    Args:
        data_folder: of a corpus laid out as DESED (``audio/``, ``metadata/``), or of a folder of each of several; or a
            plain folder of recordings, which are then unlabelled clips.
        save_folder: where the manifests go.
        subsets: of the training subsets ``strong``, ``synthetic``, ``weak`` and ``unlabelled``, those wanted; one that
            the folder does not have is left out.
        selection: the set that models are selected on: ``synthetic_validation``, ``validation``, ``public``,
            ``hold_out`` (a part of the strong clips) or ``none``; or several in order of preference, of which the first
            that the data have is taken. ``hold_out`` among them takes a part of the synthetic, weak or unlabelled
            clips where there is nothing else. Each of several corpora has its own, but one without events has none.
        test: the set that figures are reported on: ``validation``, ``public``, ``synthetic_validation`` or ``none``.
        hold_out: share of the clips held out.
        seed: decides which are held out.
        clip_seconds: length of a training clip.
        max_unreadable: share of the recordings that may be unreadable.
        check: ``decode`` every recording, or read its ``header`` only (faster, but damage turns up in training).
        labelled: training subset -> share of its clips that keep their labels, ``{strong: 0.25}``; the others become
            unlabelled clips, drawn by ``seed`` and alike for every class. For comparisons at fewer labels.
        most_clips: training subset -> how many of its clips are used at most, drawn by ``seed``.
        skip_prep: use what is in ``save_folder`` without looking at the data.

    Raises:
        InputError: no data, broken annotations, audio paths that leave their folder, too many unreadable recordings, or
            nothing prepared yet with ``skip_prep``.
    """
    root, save = Path(data_folder), Path(save_folder)
    if skip_prep:
        return load_prepared(root, save)
    preferred = [selection] if isinstance(selection, str) else list(selection)
    _check_options(subsets, preferred, test, hold_out, clip_seconds, max_unreadable)
    for subset, share in (labelled or {}).items():
        if subset not in ("strong", "synthetic", "weak") or not 0 < share <= 1:
            raise InputError(
                f"labelled: {subset}: {share} is no share in (0, 1] of the strong, synthetic or weak clips"
            )
    for subset, most in (most_clips or {}).items():
        if subset not in TRAINING_SUBSETS or not (isinstance(most, int) and most > 0):
            raise InputError(f"most_clips: {subset}: {most} is no number of clips of {', '.join(TRAINING_SUBSETS)}")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; data_folder must name the corpus (the folder that holds audio/)")
    options: dict[str, Any] = {
        "version": _VERSION,
        "subsets": list(subsets),
        "selection": preferred,
        "test": test,
        "hold_out": hold_out,
        "seed": seed,
        "clip_seconds": clip_seconds,
        "max_unreadable": max_unreadable,
        "check": check,
        **({"labelled": dict(labelled)} if labelled else {}),
        **({"most_clips": dict(most_clips)} if most_clips else {}),
    }
    corpora = find_corpora(root)
    sources = _sources(root, corpora, subsets, preferred, test)
    annotated = annotated_classes(root)
    labels = merged_classes(root, annotated)
    sets = Sets(root, save, sources, check == "decode")
    options |= {"labels": labels, **({"annotated": annotated} if len(corpora) > 1 else {})}
    fingerprint = _fingerprint(root, options, sources, sets.digests)
    if (save / "prepared.json").exists() and read_json(save / "prepared.json").get("fingerprint") == fingerprint:
        try:
            return load_prepared(root, save)
        except InputError:
            logger.warning("%s: prepared files are damaged; preparing again", save)
    files, stamps = sets.listed()
    assembly = Assembly(root, clip_seconds, max_unreadable, check == "decode", stamps)
    share = hold_out if "hold_out" in preferred else 0.0
    manifests = assembly.build(sources, files, share, seed, labelled, most_clips)
    report = assembly.report | {name: options[name] for name in ("labels", "annotated") if name in options}
    return _save(root, save, manifests, report, fingerprint, clip_seconds)


def load_prepared(data_folder: str | PathLike[str], save_folder: str | PathLike[str]) -> Prepared:
    """Load what :func:`prepare` has written.

    Args:
        data_folder: where the corpus lies now; it may have been moved since.
        save_folder: that was given to :func:`prepare`.

    Raises:
        InputError: nothing prepared there, or files are damaged.
    """
    save = Path(save_folder)
    if not (save / "prepared.json").exists():
        raise InputError(f"{save}: holds no prepared data; run once without skip_prep")
    state = read_json(save / "prepared.json")
    try:
        report = dict(state["report"])
        manifests = {
            name: Manifest.load(save / f"{name}.json", data_folder, report["subsets"][name].get("sample_rates"))
            for name in state["subsets"]
        }
        labels = tuple(map(str, read_json(save / "labels.json")))
        return Prepared(
            manifests,
            labels,
            float(state["clip_seconds"]),
            report,
            str(state["fingerprint"]),
            dict(state.get("digests", {})),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{save / 'prepared.json'}: damaged ({error}); remove it and prepare the data again"
        ) from error


def _sources(
    root: Path, corpora: Mapping[str, Path], subsets: Sequence[str], selection: Sequence[str], test: str
) -> dict[Place, Source]:
    """Corpus and role (subset, ``selection`` or ``test``) -> set."""
    wanted = {subset: subset for subset in TRAINING_SUBSETS if subset in subsets}
    if test != "none":
        wanted["test"] = test
    sources: dict[Place, Source] = {}
    for corpus, folder in corpora.items():
        for role, name in wanted.items():
            if (source := find_source(folder, name)) is not None:
                sources[corpus, role] = source
        for name in selection:
            if name == "none" or (name == "hold_out" and (corpus, "strong") in sources):
                break
            source = None if name == "hold_out" else find_source(folder, name)
            if source is not None:
                sources[corpus, "selection"] = source
                break
    roles = {role for _, role in sources}
    if not any(role in TRAINING_SUBSETS for role in roles):
        raise InputError(
            f"{root}: no training data; expected recordings in {expected_folders([s for s in wanted if s in PLACES])}"
        )
    if "selection" not in roles and not {"none", "hold_out"} & set(selection):
        raise InputError(
            f"{root}: the selection set {' or '.join(selection)} is not there; expected {expected_folders(selection)}"
        )
    for source in sources.values():
        if source.kind != "none" and source.table is None:
            raise InputError(
                f"{source.folder}: has audio but no annotations; write {source.expected_table} or remove the folder"
            )
    for role in wanted.keys() - roles:
        logger.warning("%s: no %s set (looked for %s)", root, role, expected_folders([wanted[role]]))
    return sources


def _check_options(
    subsets: Sequence[str],
    selection: Sequence[str],
    test: str,
    hold_out: float,
    clip_seconds: float,
    max_unreadable: float,
) -> None:
    unknown = [name for name in subsets if name not in TRAINING_SUBSETS]
    if unknown or not subsets or isinstance(subsets, str):
        raise InputError(f"subsets holds {unknown or subsets!r}; choose from {', '.join(TRAINING_SUBSETS)}")
    sets = ("synthetic_validation", "validation", "public")
    choices = ("hold_out", *sets, "none")
    for key, value, allowed in (
        *(("selection", value, choices) for value in selection or [""]),
        ("test", test, (*sets, "none")),
    ):
        if value not in allowed:
            raise InputError(f"{key} is {value!r}; choose one of {', '.join(allowed)}")
    if test in selection and test != "none":
        raise InputError(
            f"selection and test both name {test!r}; figures would be chosen on the set they are reported on"
        )
    if not 0 < hold_out < 1 or clip_seconds <= 0 or not 0 <= max_unreadable <= 1:
        raise InputError("hold_out must lie between 0 and 1, max_unreadable too, and clip_seconds must be positive")


def _fingerprint(
    root: Path,
    options: dict[str, Any],
    sources: Mapping[Place, Source],
    digests: Mapping[Place, str],
) -> str:
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for place, source in sources.items():
        where = (place[1], source.name, source.kind, source.folder.relative_to(root).as_posix())
        digest.update(json.dumps(where).encode())
        digest.update(digests[place].encode())
        if source.table is not None:
            digest.update(source.table.read_bytes())
    return digest.hexdigest()[:32]


def _save(
    root: Path,
    save: Path,
    manifests: dict[str, Manifest],
    report: dict[str, Any],
    fingerprint: str,
    clip_seconds: float,
) -> Prepared:
    labels = report["labels"]
    (save / "prepared.json").unlink(missing_ok=True)
    for name in SUBSETS:
        if name in manifests:
            manifests[name].save(save / f"{name}.json", root)
        else:
            (save / f"{name}.json").unlink(missing_ok=True)
    write_json(save / "labels.json", labels)
    state = {"fingerprint": fingerprint, "clip_seconds": clip_seconds, "subsets": list(manifests), "report": report}
    # Written last: it says that all the others are whole.
    write_json(save / "prepared.json", state)
    prepared = load_prepared(root, save)
    state["digests"] = {",".join(subsets): prepared.digest(*subsets) for subsets in _DIGESTED}
    write_json(save / "prepared.json", state)
    prepared = load_prepared(root, save)
    logger.info("prepared %s", prepared.description)
    return prepared
