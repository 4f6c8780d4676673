"""Figures of scored clips, the same in validation and in evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pmam_plugin.data import Prepared
from pmam_plugin.evaluation import evaluate_scores
from pmam_plugin.evaluation.figures import SEGMENT_SCORES
from pmam_plugin.inference.scoring import ScoredClip
from pmam_plugin.postprocessing import PostProcessing, Scoring
from pmam_plugin.postprocessing.per_class import PerClass


@dataclass(frozen=True)
class ScoredSubset:
    """A model's scores of a set of clips, and what they are held against.

    Attributes:
        clips: by clip; SpeechBrain's debug mode scores some of a set.
        labels: the model's classes.
        data: with the events.
        subset: ``selection`` or ``test``.
    """

    clips: Mapping[str, ScoredClip]
    labels: Sequence[str]
    data: Prepared
    subset: str

    @property
    def truth(self) -> tuple[pd.DataFrame, dict[str, float]]:
        """Events and seconds of the clips."""
        events, seconds = self.data.events(self.subset), self.data.durations(self.subset)
        return events[events.filename.isin(list(self.clips))], {clip: seconds[clip] for clip in self.clips}

    def tables(self, postprocessing: PostProcessing) -> dict[str, pd.DataFrame]:
        """Post-processed tables of the classes that are judged in each clip; the weak mask is in the scores already."""
        return {name: self.data.judged(name, postprocessing.filtered(clip.table)) for name, clip in self.clips.items()}

    def clip_tables(self) -> dict[str, pd.DataFrame]:
        """Clip-level scores as tables of one row, with the classes that are judged in the clip."""
        columns, tables = ["onset", "offset", *self.labels], {}
        for name, clip in self.clips.items():
            row = [0.0, float(clip.table["offset"].iloc[-1]), *clip.clips]
            tables[name] = self.data.judged(name, pd.DataFrame([row], columns=columns))
        return tables


def figures_of(
    scored: ScoredSubset, scoring: Scoring, clip_threshold: PerClass = 0.5, bootstrap: int = 0, seed: int = 0
) -> dict[str, Any]:
    """All figures of :func:`~pmam_plugin.evaluation.evaluate_scores`, those of every resample where they decide.

    Args:
        scored: clips of the selection set or of the test set.
        scoring: with the post-processing to apply, and the figures that decide on the selection set: of those that
            take long, no others are counted there.
        clip_threshold, bootstrap, seed: see there.
    """
    decides = scored.subset == "selection"
    return evaluate_scores(
        scored.tables(scoring.postprocessing),
        *scored.truth,
        list(scored.labels),
        clip_scores={name: clip.clips.tolist() for name, clip in scored.clips.items()},
        threshold=scoring.postprocessing.threshold,
        clip_threshold=clip_threshold,
        bootstrap=bootstrap,
        seed=seed,
        segment_scores=not decides or not SEGMENT_SCORES.isdisjoint(scoring.selection_metrics),
        draws=decides and bootstrap > 0,
    )


def selection_score(figures: Mapping[str, Any], scoring: Scoring, of: str = "") -> Any:
    """The mean of the figures that decide; with ``_draws`` in every resample, ``(resamples,)``."""
    return np.mean([figures[f"{metric}{of}"] for metric in scoring.selection_metrics], axis=0)


def selection_figures(scored: ScoredSubset, scoring: Scoring) -> dict[str, float]:
    """What a validation notes of a model: ``selection``, by which weights are kept, and some figures to look at."""
    found = figures_of(scored, scoring)
    shown = dict.fromkeys(("psds1_mean", "psds1", "psds2", "event_f1_macro", *scoring.selection_metrics))
    return {"selection": float(selection_score(found, scoring)), **{name: float(found[name]) for name in shown}}
