"""Evaluation: everything that is chosen is chosen on the selection set, everything reported comes from the test set."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from safetensors.torch import load_file
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from pmam_plugin import processes
from pmam_plugin.checkpoints import save_model
from pmam_plugin.config import configurable, rebuilt
from pmam_plugin.errors import InputError
from pmam_plugin.evaluation import evaluate_events, tune_segments, tune_thresholds, write_scores
from pmam_plugin.files import write_json
from pmam_plugin.inference.scoring import ScoredClip, Scorer
from pmam_plugin.models import SEDT, SoundEventModel
from pmam_plugin.postprocessing import Scoring
from pmam_plugin.postprocessing.per_class import PerClass
from pmam_plugin.stages.context import RunContext, Stage, StageResult
from pmam_plugin.stages.figures import ScoredSubset, figures_of, selection_score
from pmam_plugin.stages.loading import clip_batches
from pmam_plugin.stages.provenance import run_provenance

logger = logging.getLogger(__name__)


GROUPS = {"filters": "test", "segments": "segments"}
"""Post-processing -> where metrics.json has its figures on the test set."""


Choice = tuple[str, str]
"""Candidate and post-processing."""

SELECTION_RESAMPLES = 200
"""Bootstrap resamples of the selection clips, by which candidates are told apart."""


def best_of(scores: Mapping[Choice, float], draws: Mapping[Choice, np.ndarray]) -> tuple[Choice, dict[Choice, float]]:
    """The best on the selection set; boxes, which were fitted to it, only where that is more than chance.

    Boxes have to be better than the best with filters by more than one standard error of the difference: its standard
    deviation over resamples of the clips, in which both are scored on the same draws. Of equals the teacher is taken.

    Args:
        scores: on the selection set.
        draws: the same score in every resample, ``(resamples,)``; NaN where nothing can be measured.

    Returns:
        The choice, and of every candidate the standard error of its difference from the best.
    """
    best = max(scores, key=lambda choice: (scores[choice], choice[1] == "filters", choice[0]))
    gaps = {choice: draws[best] - draws[choice] for choice in scores}
    errors = {choice: float(np.nanstd(gap)) if np.isfinite(gap).any() else 0.0 for choice, gap in gaps.items()}
    filters = [choice for choice in scores if choice[1] == "filters"]
    filtered = max(filters, key=lambda choice: (scores[choice], choice[0]))
    return (filtered if scores[best] - scores[filtered] <= errors[filtered] else best), errors


@configurable
class Evaluate(Stage):
    """Score student and teacher on the test set and write what the run is for.

    Boxes and thresholds are tuned on the selection set. What scores best there, student or teacher, with filters or
    (where that is more than chance: :func:`best_of`) with bounding boxes, becomes the model of the run. Writes
    ``metrics.json`` (figures on the test set: ``test`` with filters, ``segments`` with boxes, ``events`` of the model's
    own list; the deciding scores: ``selection``, and ``selection_error``, the standard errors of their differences from
    the best; the choice: ``selected``, ``selected_processing``), ``scores/`` and ``model/`` in the output folder.

    Data without a test set give a model without figures. Without a selection set nothing is tuned, and the model is the
    teacher, if there is one.

    Args:
        model: the detector the last fine-tuning stage trained.
        scoring: how clips are scored, and what is chosen and tuned by.
        batch_clips: clips scored at a time.
        bootstrap: resamples of the test clips behind the 95 % intervals.
        events: ``model``: besides, F1 of the events that the model itself lists, at 0.5 (SEDT; the published quantity,
            by sed_eval's rules); ``scores``: of what its scores exceed their thresholds in alone.
        half: store the model's weights as float16.
        provenance: what the run cannot know of itself, for the model folder and its card: ``license`` of the weights,
            ``measured_on`` (a name for the test set), ``note`` (a warning to stand first).
    """

    reports = True
    name = "evaluate"

    def __init__(
        self,
        model: SoundEventModel,
        scoring: Scoring,
        batch_clips: int = 16,
        bootstrap: int = 1000,
        half: bool = False,
        provenance: Mapping[str, Any] | None = None,
        events: Literal["scores", "model"] = "scores",
    ) -> None:
        if events not in ("scores", "model"):
            raise ValueError(f"events come from scores or model, not {events!r}")
        if events == "model" and not isinstance(model, SEDT):
            raise ValueError("events: model is for models that list events themselves (SEDT); leave it out")
        self.model, self.scoring, self.events = model, scoring, events
        self.batch_clips, self.bootstrap, self.half = batch_clips, bootstrap, half
        self.provenance = dict(provenance or {})

    def check(self, context: RunContext) -> None:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        if not context.data.has_events("test"):
            logger.warning("%s: no test clips with events; the model will have no figures", self.name)
        elif self.events == "model":
            name, seconds = max(context.data.durations("test").items(), key=lambda item: item[1])
            if seconds > self.model.clip_seconds + 1e-3:
                raise InputError(
                    f"{name}: is {seconds:g} s long, and the model lists the events of {self.model.clip_seconds:g} s "
                    "at most; set events: scores"
                )

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        candidates = self._candidates(context)
        result, tried, choice = self._try(context, candidates, self.bootstrap)
        names = ("metrics.json", "model", *(["scores"] if context.data.has_events("test") else []))
        notes = {}
        if if_main_process():
            notes = {"selected": choice[0], "selected_processing": choice[1]}
            scoring, test = tried[choice]
            self._write(context, candidates[choice[0]], test, scoring, {**result, **notes})
        ddp_barrier()
        return StageResult({name: context.folder / name for name in names}, notes)

    def figures(self, context: RunContext) -> dict[str, Any]:
        """Figures on the test set of what would become the model, without intervals; nothing is written.

        Empty without anything to choose on or to measure, and in processes but the first.
        """
        result, _, (name, processing) = self._try(context, self._candidates(context), bootstrap=0)
        if not (result["selection"] and result["test"]):
            return {}
        figures: dict[str, Any] = result[GROUPS[processing]][name]
        return figures

    def _try(
        self, context: RunContext, candidates: Mapping[str, SoundEventModel], bootstrap: int
    ) -> tuple[dict[str, Any], dict[Choice, tuple[Scoring, ScoredSubset | None]], Choice]:
        """Figures of all candidates under all post-processings, as in metrics.json; scoring and scores; the choice."""
        chosen_on, reported = context.data.has_events("selection"), context.data.has_events("test")
        result: dict[str, Any] = {"test": {}, "segments": {}, "selection": {}, "selection_error": {}}
        if self.events == "model":
            result["events"] = {}
        tried: dict[Choice, tuple[Scoring, ScoredSubset | None]] = {}
        decisive: dict[Choice, float] = {}
        draws: dict[Choice, np.ndarray] = {}
        for name, model in candidates.items():
            selection = self._score(context, model, "selection") if chosen_on else None
            test = self._score(context, model, "test") if reported else None
            if not if_main_process():
                continue
            clip_threshold = self._clip_threshold(selection)
            rules = {"filters": self.scoring}
            if self.scoring.segments and selection is not None:
                rules["segments"] = self._with_boxes(selection)
            for processing, untuned in rules.items():
                scoring = self._with_thresholds(untuned, selection)
                tried[name, processing] = scoring, test
                if selection is not None:
                    found = figures_of(selection, scoring, clip_threshold, SELECTION_RESAMPLES, context.seed)
                    score = float(selection_score(found, scoring))
                    decisive[name, processing] = result["selection"].setdefault(name, {})[processing] = score
                    draws[name, processing] = selection_score(found, scoring, "_draws")
                if test is not None:
                    result[GROUPS[processing]][name] = figures_of(
                        test, scoring, clip_threshold, bootstrap, context.seed
                    )
            if test is not None and self.events == "model":
                result["events"][name] = self._own_events(test, context.seed)
        # Without anything to choose on, the teacher's average is the safer of the two.
        choice = max(candidates), "filters"
        if decisive:
            choice, errors = best_of(decisive, draws)
            for (name, processing), error in errors.items():
                result["selection_error"].setdefault(name, {})[processing] = error
        return result, tried, choice

    def _candidates(self, context: RunContext) -> dict[str, SoundEventModel]:
        models: dict[str, SoundEventModel] = {}
        for name in ("student", "teacher"):
            if name in context.artifacts:
                model = copy.deepcopy(self.model)
                state = load_file(context.artifacts[name])
                if name == "teacher":
                    state = {key[6:]: value for key, value in state.items() if key.startswith("model.")}
                model.load_state_dict(state)
                if self.half:  # figures are those of the model that is written
                    for parameter in model.parameters():
                        parameter.data = parameter.data.half().float()
                models[name] = model.to(context.device).eval()
        return models

    def _score(self, context: RunContext, model: SoundEventModel, subset: str) -> ScoredSubset:
        events = self.events == "model"
        scorer = Scorer(model, self.scoring, self.batch_clips, events=events, encoded=context.encoded)
        scored: list[tuple[str, ScoredClip]] = []
        for batch in clip_batches(context, model, [subset], self.batch_clips, share=processes.share(), whole=True):
            scored += zip(batch.ids, scorer.waves(batch.sounds()), strict=True)
        clips = dict(processes.gather_dealt(scored))
        return ScoredSubset(clips, self.model.labels, context.data, subset)

    def _own_events(self, scored: ScoredSubset, seed: int) -> dict[str, Any]:
        """F1 of the events the model lists."""
        listed = [clip.events.assign(filename=name) for name, clip in scored.clips.items() if clip.events is not None]
        events = pd.concat(listed, ignore_index=True)
        return evaluate_events(events, *scored.truth, scored.labels, bootstrap=self.bootstrap, seed=seed, sed_eval=True)

    def _with_thresholds(self, scoring: Scoring, selection: ScoredSubset | None) -> Scoring:
        if scoring.thresholds == "fixed" or selection is None:
            return scoring
        tables = selection.tables(scoring.postprocessing)
        tuned = tune_thresholds(tables, *selection.truth, selection.labels, beta=scoring.beta)
        return rebuilt(scoring, postprocessing=rebuilt(scoring.postprocessing, threshold=tuned))

    def _clip_threshold(self, selection: ScoredSubset | None) -> PerClass:
        if self.scoring.thresholds == "fixed" or selection is None:
            return 0.5
        return tune_thresholds(selection.clip_tables(), *selection.truth, selection.labels, measure="clip")

    def _with_boxes(self, selection: ScoredSubset) -> Scoring:
        weak_masked = rebuilt(self.scoring.postprocessing, median_seconds=0.0)
        boxes = tune_segments(selection.tables(weak_masked), *selection.truth, selection.labels)
        return rebuilt(self.scoring, postprocessing=rebuilt(weak_masked, segments=boxes))

    def _write(
        self,
        context: RunContext,
        model: SoundEventModel,
        scored: ScoredSubset | None,
        scoring: Scoring,
        result: dict[str, Any],
    ) -> None:
        if scored is not None:
            write_scores(context.folder / "scores", scored.tables(scoring.postprocessing))
        stages = {record.stage: {"seconds": record.seconds, **record.notes} for record in context.records}
        write_json(context.folder / "metrics.json", {**result, "stages": stages})
        figures = result[GROUPS[result["selected_processing"]]].get(result["selected"], {})
        save_model(context.folder / "model", model, scoring, self._provenance(context, figures), half=self.half)

    def _provenance(self, context: RunContext, metrics: Mapping[str, Any]) -> dict[str, Any]:
        measured_on = {}
        if metrics:
            where = context.data.report["subsets"].get("test", {}).get("folder", "the test set")
            clips = len(context.data.durations("test"))
            measured_on = {"measured_on": f"{where} of the run's data, {clips} clips"}
        return {
            **run_provenance(context.folder, context.seed, context.device, str(context.precision)),
            "fingerprint": context.records[-1].fingerprint if context.records else "",
            "data": context.data.description,
            **measured_on,
            **self.provenance,
            "metrics": json.loads(json.dumps(metrics)),
        }
