"""Masked pre-training (PMAM, "post-pretraining")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import speechbrain as sb
import torch
from torch import Tensor, nn
from torch.nn import functional

from pmam_plugin import processes
from pmam_plugin.augment import Augmentation
from pmam_plugin.brains.base import StageBrain
from pmam_plugin.brains.parts import Division, Rows
from pmam_plugin.brains.plan import StageRun, fold_seed
from pmam_plugin.data import Batch
from pmam_plugin.losses.prototype import prototype_presence
from pmam_plugin.models import MaskedModel, MaskedOutput
from pmam_plugin.nn.masking import MaskPlan
from pmam_plugin.prototypes import ArrayStore


@dataclass
class MaskedClips:
    """A batch, or some of its clips, ready for the masked model."""

    features: dict[str, Tensor]  # name -> (clips, mel, frames)
    posteriors: Tensor  # (clips, frames, prototypes)
    presence: Tensor  # (clips, prototypes)
    padding: Tensor  # (clips, frames)
    plan: MaskPlan  # what is hidden
    share: float = 1.0  # of the clips of the whole batch
    hidden: float = 1.0  # share of its hidden frames

    def __getitem__(self, rows: Rows) -> MaskedClips:
        """Some of the clips."""
        features, plan = {name: value[rows] for name, value in self.features.items()}, self.plan[rows]
        share, hidden = len(plan.mask) / len(self.plan.mask), int(plan.mask.sum()) / max(1, int(self.plan.mask.sum()))
        labels = (self.posteriors[rows], self.presence[rows], self.padding[rows])
        return MaskedClips(features, *labels, plan, share, hidden)


class MaskedBrain(StageBrain):
    """Trains a :class:`MaskedModel` to tell hidden frames' prototypes.

    ``loss = prototype loss on masked frames + tag_weight * BCE(tags, prototype presence)`` (PMAM; weight 0.1).

    Args:
        model: the masked model.
        loss: called as ``loss(prediction, mask, posteriors=, prototypes=)``.
        prototypes: component means in the space of the model's prediction, ``(prototypes, dim)``.
        posteriors: pseudo-labels of every clip that is trained or validated on.
        augmentation: moves features and posteriors together.
        run: see :class:`StageBrain`.
        tag_weight: of the clip-level branch.
        minimum_share: a prototype is present in a clip from this share of its frames on; 0 is the reference's one
            frame.
    """

    def __init__(
        self,
        model: MaskedModel,
        loss: nn.Module,
        prototypes: Tensor,
        posteriors: ArrayStore,
        augmentation: Augmentation | None,
        run: StageRun,
        tag_weight: float,
        minimum_share: float,
    ) -> None:
        super().__init__({"model": model}, run)
        self.model, self.loss, self.posteriors = model, loss, posteriors
        self.prototypes = prototypes.to(self.device)
        self.augmentation, self.tag_weight, self.minimum_share = augmentation, tag_weight, minimum_share

    def prepare(self, batch: Batch, division: Division) -> MaskedClips:
        """The whole batch, augmented, with its masks."""
        return self._clips(batch, None, self.augmentation)

    def compute_forward(self, batch: Any, stage: sb.Stage) -> tuple[MaskedOutput, MaskedClips]:
        """Predict the hidden frames."""
        clips = batch
        if stage != sb.Stage.TRAIN:
            # The masks of validation are the same in every epoch: the loss that selects a model must not be luck.
            seed = fold_seed(self.seed, "validation masks", self.validation_number)
            clips = self._clips(batch, torch.Generator().manual_seed(seed), None)
        return self.modules.model(clips.features, clips.plan.to(self.device), clips.padding), clips

    def _clips(self, batch: Batch, generator: torch.Generator | None, augmentation: Augmentation | None) -> MaskedClips:
        batch = batch.to(self.device)
        features = batch.features(self.model.backbone.frontend)
        posteriors = self._posteriors(batch).to(self.device)
        targets = {"prototypes": posteriors, "padding": batch.padding(posteriors.shape[1])}
        targets["presence"] = prototype_presence(posteriors, targets["padding"], self.minimum_share)
        if augmentation is not None:
            features, targets = augmentation(features, targets)
        padding = targets["padding"]
        plan = self.model.masking.plan(len(padding), padding.shape[1], padding, generator)
        return MaskedClips(features, targets["prototypes"], targets["presence"], padding, plan)

    def _posteriors(self, batch: Batch) -> Tensor:
        """Pseudo-labels of the clips, zero on padding, ``(batch, frames, prototypes)``."""
        stacked = torch.zeros(len(batch), self.posteriors.frames, self.posteriors.width)
        for index, clip in enumerate(batch.ids):
            values = torch.from_numpy(self.posteriors[clip])
            stacked[index, : len(values)] = values
        return stacked

    def compute_objectives(self, predictions: tuple[MaskedOutput, MaskedClips], batch: Any, stage: sb.Stage) -> Tensor:
        """The weighted sum of the frame and the clip term: a mean over hidden frames, and one over clips."""
        output, clips = predictions
        with torch.autocast(self.device_type, enabled=False):
            loss = self.loss(output.prediction, output.mask, posteriors=clips.posteriors, prototypes=self.prototypes)
            terms = {"masked_loss": clips.hidden * loss}
            if output.tags is not None and self.tag_weight:
                tags = functional.binary_cross_entropy(output.tags.float(), clips.presence)
                terms["tag_loss"] = self.tag_weight * clips.share * tags
        if stage == sb.Stage.TRAIN:
            self.log_losses(terms)
        else:
            terms = {"masked_loss": terms["masked_loss"]}
            self._observe_validation(output, clips.posteriors)
        return torch.stack(list(terms.values())).sum()

    def _observe_validation(self, output: MaskedOutput, posteriors: Tensor) -> None:
        """How often the most similar prototype of a hidden frame is its most probable one."""
        if not bool(output.mask.any()):
            return
        similarity = output.prediction[output.mask].float() @ functional.normalize(self.prototypes, dim=-1).T
        hits = similarity.argmax(dim=-1) == posteriors[output.mask].argmax(dim=-1)
        self.observed.append(float(hits.float().mean()))

    def validation_scores(self, loss: float) -> dict[str, float]:
        """Loss and prototype accuracy on the selection clips; the lowest loss is kept."""
        scores = {"validation_loss": loss}
        accuracies = processes.gather_dealt(self.observed)
        if accuracies:
            scores["masked_accuracy"] = sum(accuracies) / len(accuracies)
        self.best.offer("model", -loss, self.model.state_dict())
        return scores
