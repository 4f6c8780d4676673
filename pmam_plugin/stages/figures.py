"""Figures of scored clips, the same in validation and in evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pmam_plugin.data import Prepared
from pmam_plugin.evaluation import evaluate_scores
from pmam_plugin.evaluation.figures import SEGMENT_SCORES
from pmam_plugin.inference.scoring import ScoredClip
from pmam_plugin.postprocessing import PostProcessing, Scoring
from pmam_plugin.postprocessing.per_class import PerClass

Scored = Mapping[str, ScoredClip]
"""A model's scores of a set of clips, by clip."""


def processed(scored: Scored, postprocessing: PostProcessing, data: Prepared) -> dict[str, pd.DataFrame]:
    """Post-processed tables of the classes that are judged in each clip; the weak mask is in the scores already."""
    return {name: data.judged(name, postprocessing.filtered(clip.table)) for name, clip in scored.items()}


def clip_tables(scored: Scored, labels: Sequence[str], data: Prepared) -> dict[str, pd.DataFrame]:
    """Clip-level scores as tables of one row, with the classes that are judged in the clip."""
    ends = {name: float(clip.table["offset"].iloc[-1]) for name, clip in scored.items()}
    return {
        name: data.judged(name, pd.DataFrame([[0.0, ends[name], *clip.clips]], columns=["onset", "offset", *labels]))
        for name, clip in scored.items()
    }


def truth(scored: Scored, data: Prepared, subset: str) -> tuple[pd.DataFrame, dict[str, float]]:
    """What scores are held against: events and seconds of the clips; SpeechBrain's debug mode scores some of a set."""
    events, seconds = data.events(subset), data.durations(subset)
    return events[events.filename.isin(list(scored))], {clip: seconds[clip] for clip in scored}


def figures_of(
    scored: Scored,
    scoring: Scoring,
    labels: Sequence[str],
    data: Prepared,
    subset: str,
    clip_threshold: PerClass = 0.5,
    bootstrap: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures of :func:`~pmam_plugin.evaluation.evaluate_scores`, those of every resample where they decide.

    Args:
        scored: clips of ``subset``.
        scoring: with the post-processing to apply, and the figures that decide on the selection set: of those that
            take long, no others are counted there.
        labels: the model's classes.
        data: with the events.
        subset: ``selection`` or ``test``.
        clip_threshold, bootstrap, seed: see there.
    """
    decides = subset == "selection"
    return evaluate_scores(
        processed(scored, scoring.postprocessing, data),
        *truth(scored, data, subset),
        list(labels),
        clip_scores={name: clip.clips.tolist() for name, clip in scored.items()},
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


def selection_figures(scored: Scored, scoring: Scoring, labels: Sequence[str], data: Prepared) -> dict[str, float]:
    """What a validation notes of a model: ``selection``, by which weights are kept, and some figures to look at."""
    found = figures_of(scored, scoring, labels, data, "selection")
    shown = dict.fromkeys(("psds1_mean", "psds1", "psds2", "event_f1_macro", *scoring.selection_metrics))
    return {"selection": float(selection_score(found, scoring)), **{name: float(found[name]) for name in shown}}
