"""Semi-supervised fine-tuning of a detector, from what pre-training left or, where that is better, without it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from speechbrain.utils.distributed import ddp_barrier
from torch import Tensor

from pmam_plugin.brains.mean_teacher import MeanTeacherBrain
from pmam_plugin.brains.objectives import Objective
from pmam_plugin.brains.plan import TrainingPlan
from pmam_plugin.brains.records import hand_on
from pmam_plugin.brains.set_loss import SetLoss
from pmam_plugin.brains.views import Views
from pmam_plugin.config import configurable
from pmam_plugin.encoders import Windows
from pmam_plugin.errors import InputError
from pmam_plugin.inference.scoring import ScoredClip
from pmam_plugin.models import SoundEventModel
from pmam_plugin.nn.ema import EMATeacher
from pmam_plugin.postprocessing import Scoring
from pmam_plugin.stages.context import RunContext, Stage, StageResult
from pmam_plugin.stages.figures import ScoredSubset, selection_figures
from pmam_plugin.stages.loading import check_batch, training_batches, validation_batches
from pmam_plugin.stages.prepare import copy_with_artifact

logger = logging.getLogger(__name__)


@configurable
class FineTune(Stage):
    """Train a detector on labelled and unlabelled clips, with or without a mean teacher.

    The first fine-tuning stage of a run starts from the last pre-trained backbone (from the model's own weights where
    there is none), a later one from the student and teacher of the stage before it; the teacher's step count is
    carried over, so it keeps averaging slowly.

    Args:
        name: of the stage.
        model: the detector.
        plan: budget and optimiser.
        views: what student and teacher see.
        objectives: loss terms.
        scoring: how selection clips are scored, and by which of their figures the epoch is chosen.
        teacher_decay: of the moving average; None trains without a teacher.
        teacher_windows: sliding windows of the teacher in training.
        recalibrate, validate_first: see :class:`~pmam_plugin.brains.mean_teacher.MeanTeacherBrain`.
    """

    def __init__(
        self,
        name: str,
        model: SoundEventModel,
        plan: TrainingPlan,
        views: Views,
        objectives: Sequence[Objective],
        scoring: Scoring,
        teacher_decay: float | None = 0.999,
        teacher_windows: Windows | None = None,
        recalibrate: int = 0,
        validate_first: bool = False,
    ) -> None:
        self.name, self.model, self.plan = name, model, plan
        self.views, self.objectives = views, list(objectives)
        self.scoring, self.teacher_decay, self.teacher_windows = scoring, teacher_decay, teacher_windows
        self.recalibrate, self.validate_first = recalibrate, validate_first

    @property
    def decisive(self) -> dict[str, Any]:
        """See :func:`pmam_plugin.stages.settings.describe`: other thresholds are no reason to learn anew."""
        return {**self._arguments, "scoring": self.scoring.decides}

    def check(self, context: RunContext) -> None:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        clips = [clip for name in check_batch(context, self.plan, self.name) for clip in context.data.manifests[name]]
        subsets = ", ".join(name for name, count in self.plan.batch.items() if count)
        if not any(clip.labels is not None for clip in clips):
            raise InputError(f"{self.name}: no clip of {subsets} has labels; label some, or change the batch")
        sets = any(isinstance(term, SetLoss) for term in self.objectives)
        if sets and (context.data.annotated or any(event.soft < 1 for clip in clips for event in clip.events or ())):
            raise InputError(
                f"{self.name}: a set of events cannot be learned from soft labels, nor from several corpora that know "
                "different classes; train a model of frames on them, such as crnn.yaml's"
            )
        if not any(clip.events for clip in clips) and sets:
            raise InputError(
                f"{self.name}: no clip of {subsets} has events with onset and offset, without which no set of events "
                "is learned; add some, or name another subset in the batch"
            )
        if not context.data.has_events("selection"):
            logger.warning("%s: no clips with events to select on; the last weights will be kept", self.name)

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        run = context.stage_run(self.name, self.plan, folder)
        student, stored = copy_with_artifact(self.model, context), self.views.domain == "embeddings"
        if "student" in context.artifacts:
            state = load_file(context.artifacts["student"])
            if stored and _thawed(state, student.pretrained_state()):
                raise ValueError(f"{self.name}: the encoder has learned since its embeddings were stored; read sound")
            student.load_state_dict(state)

        def score(clips: Mapping[str, ScoredClip], scoring: Scoring) -> dict[str, float]:
            return selection_figures(ScoredSubset(clips, student.labels, context.data, "selection"), scoring)

        brain = MeanTeacherBrain(
            student,
            self._teacher(context, student),
            self.views,
            copy.deepcopy(self.objectives),
            run,
            scoring=self.scoring,
            score=score,
            teacher_windows=self.teacher_windows,
            encoded=context.encoded,
            recalibrate=self.recalibrate,
            validate_first=self.validate_first,
        )
        if "heads" in context.artifacts:
            brain.load_heads(load_file(context.artifacts["heads"]))
        selects = context.data.has_events("selection")
        brain.train(
            training_batches(context, student, self.plan, self.name, stored),
            validation_batches(context, student, self.plan.batch_clips) if selects else None,
        )
        ddp_barrier()
        return self._finish(brain, folder)

    def _teacher(self, context: RunContext, student: SoundEventModel) -> EMATeacher | None:
        if self.teacher_decay is None:
            return None
        teacher = EMATeacher(student, decay=self.teacher_decay)
        if "teacher" in context.artifacts:
            teacher.load_state_dict(load_file(context.artifacts["teacher"]))
        return teacher

    def _finish(self, brain: MeanTeacherBrain, folder: Path) -> StageResult:
        artifacts = {"student": brain.best.path("student")}
        if brain.teacher is not None:
            # The teacher's step travels with its best weights, so that the next stage does not restart its average.
            brain.teacher.model.load_state_dict(brain.best.load("teacher"))
            artifacts["teacher"] = hand_on(folder / "teacher.safetensors", brain.teacher.state_dict())
        if heads := brain.heads():
            artifacts["heads"] = hand_on(folder / "heads.safetensors", heads)
        notes = {"updates": brain.optimizer_step, "selection": dict(brain.best.scores)}
        return StageResult(artifacts, notes, brain.history.curves)


def _thawed(student: Mapping[str, Tensor], embedded: Mapping[str, Tensor]) -> bool:
    """Whether a student's frozen encoder is no longer that of the backbone whose embeddings were stored."""
    frozen = [name for name in embedded if name.startswith("encoder.encoder.")]
    return any(not torch.equal(student[f"backbone.{name}"], embedded[name]) for name in frozen)


@configurable
class BestStart(Stage):
    """Run a fine-tuning from the last backbone and from the first, and go on with the one that selects better.

    Where no stage between has changed the backbone there is one start, and this is the fine-tuning itself.

    Args:
        finetune: the stage that is run.
    """

    def __init__(self, finetune: FineTune) -> None:
        self.finetune, self.name = finetune, finetune.name

    def check(self, context: RunContext) -> None:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        self.finetune.check(context)

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        pretrained = any(record.stage.startswith("pretrain") for record in context.records)
        artifact = self.finetune.model.pretrained_name
        before = [
            context.folder / record.artifacts[artifact]
            for record in context.records
            if artifact in record.artifacts and not record.stage.startswith("pretrain")
        ]
        if not pretrained or not before:
            return self.finetune.run(context, folder)
        results: dict[str, StageResult] = {}
        starts = {"pretrained": context.artifacts[artifact], "not_pretrained": before[-1]}
        for name, start in starts.items():
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            results[name] = self.finetune.run(
                replace(context, artifacts={**context.artifacts, artifact: start}, records=[]), place
            )
        scores = {name: max(result.notes["selection"].values()) for name, result in results.items()}
        best = max(scores, key=lambda name: scores[name])
        logger.info("%s: from %s, selection scores %s", self.name, best.replace("_", " "), scores)
        chosen = results[best]
        notes = {
            **chosen.notes,
            "start": best.replace("_", " "),
            **{f"selection_{name}": v for name, v in scores.items()},
        }
        return StageResult({**chosen.artifacts, artifact: starts[best]}, notes, chosen.curves)
