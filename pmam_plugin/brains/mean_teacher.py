"""Semi-supervised fine-tuning with a mean teacher: PMAM's two stages, ATST-SED's two stages and ATST-SEDv2.

One Brain serves all: what differs between the methods are the views (what augmentation student and teacher see), the
mixing plan, and the list of loss terms, which YAML composes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import speechbrain as sb
import torch
from torch import Tensor, nn

from pmam_plugin.brains.base import StageBrain, TrainingPlan
from pmam_plugin.brains.frozen import frozen_parts, rest
from pmam_plugin.brains.objectives import Objective, StepState
from pmam_plugin.brains.views import Views
from pmam_plugin.data import Batch
from pmam_plugin.encoders import Windows
from pmam_plugin.models import Detection, SoundEventModel
from pmam_plugin.nn.ema import EMATeacher

# (tables by clip, clip scores by clip, clip names) -> selection score, higher is better
SelectionScore = Callable[[Mapping[str, pd.DataFrame], Mapping[str, Any]], Mapping[str, float]]


class MeanTeacherBrain(StageBrain):
    """Student learns from labels and from its own moving average.

    Args:
        student: the model that is trained.
        teacher: its exponential moving average; None trains without a teacher.
        views: how a batch becomes what student and teacher see.
        objectives: loss terms, summed.
        score: selection metric from the scores tables of the selection clips.
        plan, folder, seed, name, run_opts: see :class:`StageBrain`.
        teacher_windows, validation_windows: sliding windows for the teacher in training and for both in validation.
        temperature: of both in validation.
    """

    def __init__(
        self,
        student: SoundEventModel,
        teacher: EMATeacher | None,
        views: Views,
        objectives: Sequence[Objective],
        score: SelectionScore,
        plan: TrainingPlan,
        folder: Path,
        seed: int,
        name: str,
        run_opts: Mapping[str, Any] | None = None,
        teacher_windows: Windows | None = None,
        validation_windows: Windows | None = None,
        temperature: float = 1.0,
    ) -> None:
        # Heads that only a loss term uses (projectors) are trained here and never reach the exported model.
        modules: dict[str, nn.Module] = {"student": student}
        recoverables: dict[str, Any] = {} if teacher is None else {"teacher": teacher}
        for objective in objectives:
            modules |= getattr(objective, "trainables", dict)()
            recoverables |= getattr(objective, "recoverables", dict)()
        super().__init__(modules, plan, folder, seed, name, run_opts, recoverables)
        self.student, self.teacher = student, teacher
        for moved in recoverables.values():
            moved.to(self.device)
        self.views, self.objectives, self.score = views, objectives, score
        self.teacher_windows, self.validation_windows = teacher_windows, validation_windows
        self.temperature = temperature
        self._tables: dict[str, dict[str, Any]] = {}

    def compute_forward(self, batch: Batch, stage: sb.Stage) -> StepState | dict[str, Detection]:
        """Student and teacher on their views of the batch."""
        batch = batch.to(self.device)
        if stage != sb.Stage.TRAIN:
            return self._detect(batch)
        student_features, teacher_features, targets, plan = self.views(self.student.frontend, batch)
        padding = targets["padding"]
        student = self.modules.student(student_features, padding=padding)
        teacher = None
        if self.teacher is not None and any(objective.uses_teacher for objective in self.objectives):
            with torch.no_grad():
                options = {} if self.teacher_windows is None else {"windows": self.teacher_windows}
                teacher = self.teacher.model(teacher_features, padding=padding, **options)
        return StepState(student, teacher, targets, batch, padding, plan, self.modules)

    def compute_objectives(
        self, predictions: StepState | dict[str, Detection], batch: Batch, stage: sb.Stage
    ) -> Tensor:
        """Sum of the terms, each recorded under its name; zero in validation, where scores decide."""
        if not isinstance(predictions, StepState):
            return torch.zeros(())
        terms: dict[str, Tensor] = {}
        with torch.autocast(self.device_type, enabled=False):
            for objective in self.objectives:
                terms |= objective(predictions, self.optimizer_step, self.steps_per_epoch)
        self.log_losses(terms)
        return torch.stack(list(terms.values())).sum()

    def after_update(self) -> None:
        """Move the teacher towards the student."""
        if self.teacher is not None:
            self.teacher.update(self.student)
        for objective in self.objectives:
            getattr(objective, "after_update", lambda: None)()

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Forget the tables of the last validation; the teacher has dropout where the student has (published)."""
        self._tables = {}
        # A validation leaves the teacher in evaluation mode, a resumed run starts in training mode: both must agree.
        if stage == sb.Stage.TRAIN and self.teacher is not None:
            rest(self.teacher.model.train(), frozen_parts(self.student))

    def candidates(self) -> dict[str, Any]:
        """The models a validation scores: student, and teacher where there is one."""
        models: dict[str, Any] = {"student": self.student}
        if self.teacher is not None:
            models["teacher"] = self.teacher.model
        return models

    def _detect(self, batch: Batch) -> dict[str, Detection]:
        features = self.student.frontend(batch.waves)
        options: dict[str, Any] = {} if self.validation_windows is None else {"windows": self.validation_windows}
        if self.temperature != 1.0:
            options["temperature"] = self.temperature
        detections = {}
        for name, model in self.candidates().items():
            model.eval()
            padding = batch.padding(self.student.output_frames(batch.waves.shape[1]))
            detection = model(features, padding=padding, **options)
            tables = model.score_tables(detection, batch.seconds.tolist())
            clips = model.clip_scores(detection).float().cpu()
            for index, clip in enumerate(batch.ids):
                self._tables.setdefault(name, {})[clip] = (tables[index], clips[index])
            detections[name] = detection
        return detections

    def validation_scores(self, loss: float) -> dict[str, float]:
        """Selection scores of every candidate; the best weights of each are kept on their own."""
        scores: dict[str, float] = {}
        for name, model in self.candidates().items():
            tables = {clip: table for clip, (table, _) in self._tables[name].items()}
            clips = {clip: values for clip, (_, values) in self._tables[name].items()}
            result = self.score(tables, clips)
            scores |= {f"{name}_{metric}": value for metric, value in result.items()}
            self.best.offer(name, result["selection"], model.state_dict())
        return scores
