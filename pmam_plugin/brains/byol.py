"""ATST-Frame's own pre-training: frame-level BYOL with masking, on unlabelled recordings."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import speechbrain as sb
import torch
from torch import Tensor

from pmam_plugin.augment import Augmentation, draw_partners
from pmam_plugin.brains.base import StageBrain
from pmam_plugin.brains.parts import Division, Rows
from pmam_plugin.brains.plan import StageRun
from pmam_plugin.brains.schedules import cosine_fall
from pmam_plugin.data import Batch
from pmam_plugin.features import FrontEnds
from pmam_plugin.models import ATSTFramePretraining
from pmam_plugin.models.byol import BYOLOutput

logger = logging.getLogger(__name__)


@dataclass
class TwoViews:
    """A batch, or some of its clips, in training."""

    first: Tensor  # view 1, (clips, mel, frames)
    second: Tensor  # view 2
    padding: Tensor  # (clips, tokens)
    mask: Tensor  # what the student does not see, (clips, tokens)
    predicted: Tensor  # tokens that are predicted in the whole batch
    share: float = 1.0  # of the clips of the whole batch

    def __getitem__(self, rows: Rows) -> TwoViews:
        """Some of the clips."""
        clips = (self.first[rows], self.second[rows], self.padding[rows], self.mask[rows])
        return TwoViews(*clips, self.predicted, len(clips[0]) / len(self.first))


@dataclass(frozen=True)
class ATSTFrameSettings:
    """Of the pre-training, beside its budget.

    Args:
        momentum: share the teacher keeps of itself at the first update; rises to 1 along a cosine (0.9996; 0.997 for
            the small model).
        noise_share: largest share of the added clip in view 2; uniform from 0. As the authors do, the normalised
            decibels are mixed in that proportion, ``ln(w e^x + (1 - w) e^y)``, which a soft clip lifts little.
        augmentation: of view 2, after the mixing.
        final_weight_decay: weight decay at the end, reached along a cosine from that of each group; None keeps it.
    """

    momentum: float = 0.9996
    noise_share: float = 0.4
    augmentation: Augmentation | None = None
    final_weight_decay: float | None = None


class ATSTFrameBrain(StageBrain):
    """Trains an encoder to say of its hidden tokens what an averaged teacher makes of them in another view.

    View 1 is the clip, view 2 the clip with a little of another one added and then augmented; both cover the same
    time, and the added clip is noise: no target names it. The reference takes that other clip from a queue of 2000,
    here it comes from the same batch, so that a resumed run makes the same views. Nothing is validated, and the last
    weights are kept, since the loss is lowest where all embeddings are alike.

    Args:
        model: student and teacher.
        frontend: front ends, one of which the encoder reads.
        run: see :class:`StageBrain`.
        settings: of views, teacher and weight decay.
    """

    averaged = ("teacher.",)  # it takes its own batch statistics

    def __init__(
        self, model: ATSTFramePretraining, frontend: FrontEnds, run: StageRun, settings: ATSTFrameSettings
    ) -> None:
        super().__init__({"model": model}, run)
        self.model = model
        self.front_end = frontend.named()[model.encoder.feature].to(self.device)
        self._initial_decays = [group["weight_decay"] for group in self.groups]
        self.settings = settings

    def on_fit_batch_start(self, batch: Any, should_step: bool) -> None:
        """Also set the weight decay of this step."""
        super().on_fit_batch_start(batch, should_step)
        final = self.settings.final_weight_decay
        if final is not None:
            remaining = cosine_fall(self._progress())
            for group, initial in zip(self.optimizer.param_groups, self._initial_decays, strict=True):
                if initial:
                    group["weight_decay"] = final + (initial - final) * remaining

    def prepare(self, batch: Batch, division: Division) -> TwoViews:
        """Both views of the whole batch, and what the student does not see of them."""
        batch = batch.to(self.device)
        name = self.model.encoder.feature
        first, second = self.views(batch.features(lambda waves: {name: self.front_end.power(waves)})[name])
        padding = batch.padding(self.model.encoder.output_frames({name: first.shape[-1]}))
        mask = self.model.masking(*padding.shape).to(self.device)
        return TwoViews(first, second, padding, mask, (mask & ~padding).sum())

    def compute_forward(self, batch: TwoViews, stage: sb.Stage) -> BYOLOutput:
        """Both networks on both views."""
        name = self.model.encoder.feature
        first, second = {name: batch.first}, {name: batch.second}
        return self.modules.model(first, second, batch.padding, mask=batch.mask, predicted=batch.predicted)

    def views(self, power: Tensor) -> tuple[Tensor, Tensor]:
        """Features of view 1 and of view 2 of linear mel spectrograms, each ``(batch, mel, frames)``."""
        first = self.front_end.scale(power)
        weights = (1 - self.settings.noise_share * torch.rand(len(power)))[:, None, None].to(first)
        partners = draw_partners(torch.zeros(len(power), dtype=torch.long)).to(first.device)
        name = self.model.encoder.feature
        second = {name: torch.logaddexp(first + weights.log(), first[partners] + (1 - weights).log())}
        if self.settings.augmentation is not None:
            second, _ = self.settings.augmentation(second, {})
        return first, second[name]

    def compute_objectives(self, predictions: BYOLOutput, batch: TwoViews, stage: sb.Stage) -> Tensor:
        """The loss; the spread of the embeddings is recorded beside it, as the watch against collapse."""
        spreads = {"prediction_spread": predictions.prediction_spread, "target_spread": predictions.target_spread}
        shares = {name: torch.tensor(batch.share * spread) for name, spread in spreads.items()}
        self.log_losses({"byol_loss": predictions.loss, **shares})
        return predictions.loss

    def after_update(self) -> None:
        """The teacher follows, ever more slowly."""
        self.model.update_teacher(1 - (1 - self.settings.momentum) * cosine_fall(self._progress()))

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Also warn where the embeddings have collapsed."""
        super().on_stage_end(stage, stage_loss, epoch)
        self.warn_of_collapse()

    def warn_of_collapse(self) -> None:
        """Say so where the targets' spread is a tenth of what directions that fill the sphere have."""
        points = self.history.curves.get("target_spread")
        healthy = 1 / math.sqrt(self.model.output_dim)
        if points and points[-1][1] < 0.1 * healthy:
            logger.warning(
                "%s: embeddings collapse (spread %.4f, healthy %.4f); lower the learning rate or raise the momentum",
                self.name,
                points[-1][1],
                healthy,
            )

    def _progress(self) -> float:
        return self.optimizer_step / max(1, self.steps_per_epoch * self.plan.epochs)
