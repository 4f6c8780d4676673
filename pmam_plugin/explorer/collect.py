"""Gather what ``pmam prototypes`` shows from the folder of a run: prototypes, posteriors, labels and sound."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pmam_plugin.data import Clip, Prepared, load_prepared, read_clip
from pmam_plugin.errors import InputError, Progress
from pmam_plugin.explorer.page import EXCERPT_SECONDS, Excerpt, PrototypeIteration, PrototypeReport
from pmam_plugin.explorer.statistics import (
    MeansMap,
    Moment,
    PrototypeCounts,
    TypicalMoments,
    discriminant_map,
    principal_map,
)
from pmam_plugin.files import read_json
from pmam_plugin.labels import LabelEncoder
from pmam_plugin.prototypes import ArrayStore, GaussianMixture, PrototypeSet
from pmam_plugin.report.media import SAMPLE_RATE
from pmam_plugin.report.spectrogram import log_mel

logger = logging.getLogger(__name__)

_EXCERPTS = 8
_TYPICAL_SECONDS = 0.5  # stretch that a prototype should fill to be typical
_SPECTRUM_CLIPS = 300  # enough for a mean spectrum; a whole corpus would take minutes
_SPECTRUM_BANDS = 64
# A store of bytes keeps the middle of 256 intervals: what was zero reads as half an interval.
_ZERO = 1 / 512 + 1e-6


def collect(
    run_folder: str | os.PathLike[str],
    data_folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> PrototypeReport:
    """Read every E-step of a run.

    Args:
        run_folder: output folder of a training run with at least one finished E-step.
        data_folder: the corpus, if it has been moved since; by default where the run's ``hyperparams.yaml`` says.
        progress: a progress hook.

    Raises:
        InputError: not such a folder, or the data are not where they were.
    """
    run = Path(run_folder)
    folders = sorted(
        (path.parent for path in run.glob("prototypes/*/prototypes.json") if path.parent.name.isdigit()),
        key=lambda path: int(path.name),
    )
    folders = [folder for folder in folders if (folder / "posteriors").is_dir()]
    if not folders:
        raise InputError(
            f"{run}: holds no prototypes (prototypes/1/prototypes.json and posteriors); "
            "give the output folder of a run that has finished an E-step"
        )
    root = Path(data_folder) if data_folder is not None else _data_folder(run)
    prepared = load_prepared(root, run / "manifests")
    first = next((clip.path for manifest in prepared.manifests.values() for clip in manifest), None)
    if first is not None and not Path(first).exists():
        raise InputError(f"{root}: the training data are not there (no {first}); say with --data-folder where they are")
    notify = progress or (lambda what, done, of: None)
    iterations = [_Iteration(folder, prepared, notify).collect() for folder in folders]
    provenance = {"run": run.resolve().name, "data": prepared.description}
    return PrototypeReport(iterations, provenance)


class _Iteration:
    """One E-step while it is being read."""

    def __init__(self, folder: Path, prepared: Prepared, progress: Progress) -> None:
        self.folder, self.prepared, self.progress = folder, prepared, progress
        self.name = f"iteration {folder.name}"
        self.prototypes = PrototypeSet.load(folder)
        self.store = ArrayStore.open(folder / "posteriors")
        self.frames, self.count = self.store.frames, len(self.prototypes.means)
        self.frame_rate = self.frames / prepared.clip_seconds
        self.encoder = LabelEncoder(prepared.labels, self.frame_rate, self.frames, prepared.clip_seconds)
        known = [clip for manifest in prepared.manifests.values() for clip in manifest]
        self.clips = {clip.id: clip for clip in known if clip.id in self.store}
        if not self.clips:
            raise InputError(f"{folder}: its posteriors belong to none of the run's clips; run the E-step again")
        self.wave = lru_cache(maxsize=32)(self._wave)

    def collect(self) -> PrototypeIteration:
        counts = PrototypeCounts(self.count, len(self.prepared.labels))
        typical = TypicalMoments(self.count, _EXCERPTS, round(_TYPICAL_SECONDS * self.frame_rate))
        for done, clip in enumerate(self.clips.values()):
            posteriors = self._posteriors(clip)
            activity = None if clip.events is None else self.encoder.encode_strong(event[:3] for event in clip.events)
            counts.add(posteriors, None if activity is None else activity[: len(posteriors)])
            typical.add(clip.id, posteriors)
            self.progress(f"{self.name}: posteriors", done + 1, len(self.clips))
        shares = counts.mass / max(counts.mass.sum(), 1e-12)
        model = self.prototypes.model
        return PrototypeIteration(
            name=self.name,
            weights=model.weights_.double().cpu().numpy() if isinstance(model, GaussianMixture) else shares,
            labels=self.prepared.labels,
            joint=counts.joint,
            entropies=counts.entropies,
            mean_entropy=counts.entropy_sum / max(counts.frames, 1),
            maps=self._maps(shares),
            excerpts=list(self._excerpts(typical.best())),
            durations=counts.mean_duration / self.frame_rate,
            clip_shares=counts.clips / max(counts.clip_count, 1),
            spectra=self._spectra(),
            facts=self._facts(counts),
        )

    def _posteriors(self, clip: Clip) -> np.ndarray:
        """Of the frames inside the recording, rows summing to one."""
        valid = int(np.ceil(min(clip.seconds, self.prepared.clip_seconds) * self.frame_rate - 1e-3))
        gamma = self.store[clip.id][: max(1, valid)].astype(np.float64)
        gamma[gamma <= _ZERO] = 0.0
        return gamma / np.maximum(gamma.sum(axis=1, keepdims=True), 1e-12)

    def _maps(self, shares: np.ndarray) -> dict[str, MeansMap]:
        means = self.prototypes.means.double().cpu().numpy()
        model = self.prototypes.model
        covariances = model.covariances_.cpu().numpy() if isinstance(model, GaussianMixture) else None
        maps = {} if covariances is None else {"Discriminant": discriminant_map(means, covariances, shares)}
        return {**maps, "Principal": principal_map(means, covariances, shares)}

    def _wave(self, name: str) -> np.ndarray:
        return read_clip(self.clips[name], SAMPLE_RATE, self.prepared.clip_seconds).numpy()

    def _excerpts(self, moments: list[list[Moment]]) -> Iterator[list[Excerpt]]:
        for done, group in enumerate(moments):
            yield [self._excerpt(moment, prototype=done) for moment in group]
            self.progress(f"{self.name}: excerpts", done + 1, len(moments))

    def _excerpt(self, moment: Moment, prototype: int) -> Excerpt:
        clip = self.clips[moment.clip]
        middle = (moment.frame + 0.5) / self.frame_rate
        start = float(np.clip(middle - EXCERPT_SECONDS / 2, 0.0, max(0.0, clip.seconds - EXCERPT_SECONDS)))
        length = round(EXCERPT_SECONDS * SAMPLE_RATE)
        wave = self.wave(clip.id)[round(start * SAMPLE_RATE) :][:length]
        frames = slice(round(start * self.frame_rate), round((start + EXCERPT_SECONDS) * self.frame_rate))
        return Excerpt(
            clip=clip.id,
            seconds=middle,
            wave=np.pad(wave, (0, length - len(wave))),
            labels=_labels_at(clip, middle),
            posterior=self._posteriors(clip)[frames, prototype],
        )

    def _spectra(self) -> np.ndarray:
        """Mean mel power of every prototype's frames in dB, ``(K, bands)``, over clips spread through the run."""
        names = list(self.clips)[:: max(1, len(self.clips) // _SPECTRUM_CLIPS)][:_SPECTRUM_CLIPS]
        power, mass = np.zeros((self.count, _SPECTRUM_BANDS)), np.zeros(self.count)
        for done, name in enumerate(names):
            gamma = self._posteriors(self.clips[name])
            columns = 10.0 ** (log_mel(self.wave(name), _SPECTRUM_BANDS).T.astype(np.float64) / 10.0)
            edges = (np.arange(len(gamma)) * 100.0 / self.frame_rate).astype(int)  # ten milliseconds a column
            gamma = gamma[edges < len(columns)]
            edges = edges[: len(gamma)]
            widths = np.diff(np.append(edges, len(columns)))
            frames = np.add.reduceat(columns, edges, axis=0) / np.maximum(widths, 1)[:, None]
            power += gamma.T @ frames
            mass += gamma.sum(axis=0)
            self.progress(f"{self.name}: spectra", done + 1, len(names))
        return 10.0 * np.log10(power / np.maximum(mass, 1e-9)[:, None] + 1e-10)

    def _facts(self, counts: PrototypeCounts) -> dict[str, Any]:
        record = self.folder / "record.json"
        model = self.prototypes.model
        facts = {
            "embeddings": read_json(record).get("notes", {}).get("embeddings") if record.exists() else None,
            "model": type(model).__name__,
            "covariance": getattr(model, "covariance_type", None),
            "dimensions": self.prototypes.means.shape[1],
            "frames": counts.frames,
            "frames with strong labels": counts.labelled,
            "clips": counts.clip_count,
        }
        return {key: value for key, value in facts.items() if value is not None}


def _labels_at(clip: Clip, seconds: float) -> list[str]:
    if clip.events is not None:
        return sorted({event.label for event in clip.events if event.onset <= seconds < event.offset})
    return [f"{label} (clip)" for label in clip.labels or ()]


def _data_folder(run: Path) -> Path:
    """Where the run's settings say the corpus is; nothing in that file is executed."""
    settings = run / "hyperparams.yaml"
    text = settings.read_text(encoding="utf-8") if settings.exists() else ""
    found = re.search(r"^data_folder:.*", text, re.M)
    # Composed, not constructed: a folder may be called 2024, and a reference to another setting is no folder.
    composed = yaml.compose(found[0]) if found else None
    node = None if composed is None else composed.value[0][1]
    if node is None or node.tag.startswith("!") or not node.value:
        raise InputError(f"{settings}: does not say where the data are; give --data-folder")
    return Path(node.value)
