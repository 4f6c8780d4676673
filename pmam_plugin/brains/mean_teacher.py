"""Semi-supervised fine-tuning with a mean teacher: PMAM's two stages, ATST-SED's two stages and ATST-SEDv2.

One Brain serves all: what differs between the methods are the views (what augmentation student and teacher see), the
mixing plan, and the list of loss terms, which YAML composes.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import speechbrain as sb
import torch
from torch import Tensor, nn

from pmam_plugin import processes
from pmam_plugin.augment import Features, MixPlan, Targets
from pmam_plugin.brains.base import StageBrain
from pmam_plugin.brains.frozen import frozen_parts, rest
from pmam_plugin.brains.objectives import Objective, StepState
from pmam_plugin.brains.parts import Division, Rows
from pmam_plugin.brains.plan import StageRun, fold_seed
from pmam_plugin.brains.views import Views
from pmam_plugin.data import Batch, collate
from pmam_plugin.encoders import Windows
from pmam_plugin.inference.encoded import EncodedWindows
from pmam_plugin.inference.scoring import ScoredClip, Scorer
from pmam_plugin.models import Detection, SoundEventModel
from pmam_plugin.nn.ema import EMATeacher
from pmam_plugin.postprocessing import Scoring

# (scored clips, by clip; how they were scored) -> figures, among them "selection": higher is better
SelectionScore = Callable[[Mapping[str, ScoredClip], Scoring], Mapping[str, float]]

_MODELS = ("student", "teacher")


@dataclass
class PreparedBatch:
    """A whole batch in training."""

    batch: Batch  # the clips, with their labels
    features: Features  # of the student's view
    targets: Targets  # of the same
    plan: MixPlan | None  # who is mixed with whom; None where nobody is
    teacher: list[Detection] = field(default_factory=list)  # its answers by pass; empty where nothing looks at them
    answers: Mapping[str, Tensor] | None = None  # see StepState


Part = tuple[PreparedBatch, Rows, Detection | None]
"""What one pass takes of it: some rows, and the teacher's answers to them."""


class MeanTeacherBrain(StageBrain):
    """Student learns from labels and from its own moving average.

    Args:
        student: the model that is trained.
        teacher: its exponential moving average; None trains without a teacher.
        views: how a batch becomes what student and teacher see.
        objectives: loss terms, summed.
        run: see :class:`StageBrain`.
        scoring: of both in validation, the one that the run is evaluated with.
        score: figures of the scored selection clips, among them ``selection``.
        teacher_windows: sliding windows for the teacher in training.
        encoded: keeps what a frozen encoder says of the selection clips, for all validations.
        recalibrate: training clips, spread evenly over all, on whose unmixed sound the student's batch norm measures
            its statistics before each validation; what it sees in training are mixtures, whose spread is smaller (10 %
            at conditional mixup's defaults). 0 leaves the running averages of training, as published.
        validate_first: validate before the first epoch too, so that what the stage before has left may prove the best.
    """

    def __init__(
        self,
        student: SoundEventModel,
        teacher: EMATeacher | None,
        views: Views,
        objectives: Sequence[Objective],
        run: StageRun,
        *,
        scoring: Scoring,
        score: SelectionScore,
        teacher_windows: Windows | None = None,
        encoded: EncodedWindows | None = None,
        recalibrate: int = 0,
        validate_first: bool = False,
    ) -> None:
        # Heads that only a loss term uses (projectors) are trained here and never reach the exported model.
        modules: dict[str, nn.Module] = {"student": student}
        recoverables: dict[str, Any] = {} if teacher is None else {"teacher": teacher}
        for objective in objectives:
            modules |= getattr(objective, "trainables", dict)()
            recoverables |= getattr(objective, "recoverables", dict)()
        super().__init__(modules, run, recoverables)
        self.student, self.teacher = student, teacher
        self._heads = nn.ModuleDict(
            {name: part for name, part in (modules | recoverables).items() if name not in _MODELS}
        )
        for moved in recoverables.values():
            moved.to(self.device)
        self.views, self.objectives, self.scoring, self.score = views, objectives, scoring, score
        self.teacher_windows, self.encoded = teacher_windows, encoded
        self.recalibrate, self.validate_first = recalibrate, validate_first
        self._scored: dict[str, dict[str, ScoredClip]] = {}

    def heads(self) -> dict[str, Tensor]:
        """State of what only loss terms use (projectors), for the next stage."""
        return self._heads.state_dict()

    def load_heads(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the heads of the stage before; what this stage's terms do without stays behind."""
        own = self._heads.state_dict()
        self._heads.load_state_dict(own | {name: value for name, value in state.items() if name in own})

    def compute_forward(self, batch: Any, stage: sb.Stage) -> StepState | None:
        """The student on its view of a part; in validation all models' scores of a batch are kept instead."""
        if stage != sb.Stage.TRAIN:
            self._score_clips(batch)
            return None
        whole, rows, teacher = batch
        inputs: dict[str, Any] = {}
        for objective in self.objectives:
            given: Mapping[str, Any] = getattr(objective, "student_inputs", lambda *_: {})(
                self.student, whole.batch, whole.targets
            )
            inputs |= {name: value[rows] for name, value in given.items()}
        features = {name: value[rows] for name, value in whole.features.items()}
        return StepState(
            student=self.modules.student(features, padding=whole.targets["padding"][rows], **inputs),
            teacher=teacher,
            targets=whole.targets,
            batch=whole.batch,
            plan=whole.plan,
            modules=self.modules,
            teacher_mixed=self.views.mix_teacher,
            answers=whole.answers,
            rows=rows,
        )

    def prepare(self, batch: Batch, division: Division) -> PreparedBatch:
        """Both views of the whole batch, and what the teacher says of its view, pass by pass."""
        batch = batch.to(self.device)
        student, view, targets, plan = self.views(self.student.frontend, batch)
        prepared = PreparedBatch(batch, student, targets, plan)
        if self.teacher is None or not any(objective.uses_teacher for objective in self.objectives):
            return prepared
        options = {} if self.teacher_windows is None else {"windows": self.teacher_windows}
        with torch.no_grad():
            for rows in division.passes:
                features = {name: value[rows] for name, value in view.items()}
                prepared.teacher.append(self.teacher.model(features, padding=targets["padding"][rows], **options))
            if division.divided:
                wanted = [self._of_batch(answers) for answers in prepared.teacher]
                prepared.answers = {
                    name: division.gather(torch.cat([part[name] for part in wanted])) for name in wanted[0]
                }
        return prepared

    def _of_batch(self, teacher: Detection) -> dict[str, Tensor]:
        """All that terms want to know of the whole batch."""
        wanted: dict[str, Tensor] = {}
        for objective in self.objectives:
            wanted |= getattr(objective, "of_batch", lambda _: {})(teacher)
        return wanted

    def part(self, whole: PreparedBatch, number: int, rows: Rows) -> Part:
        """See :meth:`StageBrain.part`."""
        return whole, rows, whole.teacher[number] if whole.teacher else None

    def compute_objectives(self, predictions: StepState | None, batch: Any, stage: sb.Stage) -> Tensor:
        """Sum of the terms, each recorded under its name; zero in validation, where scores decide."""
        if predictions is None:
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

    def train(self, train_loader: Any, valid_loader: Any = None) -> None:
        """See :meth:`StageBrain.train`."""
        self._training_clips, self._selection_clips = train_loader.dataset, valid_loader
        super().train(train_loader, valid_loader)

    def on_fit_start(self) -> None:
        """See :class:`StageBrain`; before the first update of all, validate what was handed on, if wanted."""
        super().on_fit_start()
        begun = self.epoch_counter.current or self.step
        if not self.validate_first or begun or self._selection_clips is None:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fold_seed(self.seed, self.name, "validation"))
            self.on_stage_start(sb.Stage.VALID)
            self.modules.eval()
            for batch in self._selection_clips:
                self.evaluate_batch(batch, sb.Stage.VALID)
            for name, value in self.validation_scores(0.0).items():
                self.history.record(name, 0, value)

    @torch.no_grad()
    def measure_norms(self) -> None:
        """Take the statistics of the student's batch norms anew, on clips as they are."""
        norms = [part for part in self.student.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        norms = [part for part in norms if part.track_running_stats and part.weight.requires_grad]
        if not norms or not self.recalibrate:
            return
        momenta = [norm.momentum for norm in norms]
        self.student.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over all batches
            norm.train()
        clips, size = self._training_clips, self.plan.batch_clips
        chosen = torch.linspace(0, len(clips) - 1, min(self.recalibrate, len(clips))).long().tolist()
        for start in range(0, len(chosen), size):
            batch = collate([clips[index] for index in chosen[start : start + size]]).to(self.device)
            self.student(batch.features(self.student.frontend), padding=batch.padding(batch.strong.shape[1]))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Forget the scores of the last validation; the teacher has dropout where the student has (published)."""
        self._scored = {}
        if stage == sb.Stage.VALID:
            self.measure_norms()
        # A validation leaves the teacher in evaluation mode, a resumed run starts in training mode: both must agree.
        if stage == sb.Stage.TRAIN and self.teacher is not None:
            rest(self.teacher.model.train(), frozen_parts(self.student))

    def candidates(self) -> dict[str, Any]:
        """The models a validation scores: student, and teacher where there is one."""
        models: dict[str, Any] = {"student": self.student}
        if self.teacher is not None:
            models["teacher"] = self.teacher.model
        return models

    def _score_clips(self, batch: Batch) -> None:
        waves = batch.sounds()
        for name, model in self.candidates().items():
            scores = Scorer(model.eval(), self.scoring, len(batch), encoded=self.encoded).waves(waves)
            self._scored.setdefault(name, {}).update(zip(batch.ids, scores, strict=True))

    def validation_scores(self, loss: float) -> dict[str, float]:
        """Selection scores of every candidate; the best weights of each are kept on their own."""
        scores: dict[str, float] = {}
        for name, model in self.candidates().items():
            clips = dict(ChainMap(*processes.gather_objects(self._scored.get(name, {}))))
            result = self.score(clips, self.scoring)
            scores |= {f"{name}_{metric}": value for metric, value in result.items()}
            self.best.offer(name, result["selection"], model.state_dict())
        return scores
