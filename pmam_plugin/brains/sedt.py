"""SEDT's pre-training: audio tagging for the backbone (stage 1), patches to find for the rest (stage 2, SP-SEDT)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from torch import Tensor, nn
from torch.nn import functional

from pmam_plugin.brains.base import StageBrain, TrainingPlan
from pmam_plugin.data import Batch
from pmam_plugin.losses.intervals import box_edges, interval_iou
from pmam_plugin.losses.set_criterion import SetCriterion
from pmam_plugin.models import SPSEDT, AudioTagger
from pmam_plugin.models.sp_sedt import PretextOutput

Augmentation = Callable[[dict[str, Tensor], dict[str, Tensor]], tuple[dict[str, Tensor], dict[str, Tensor]]]


class TaggerBrain(StageBrain):
    """Trains a backbone to tag clips: BCE over the clips whose tags are known.

    Args:
        model: backbone and tagging head.
        augmentation: moves features and tags together.
        plan, folder, seed, name, run_opts: see :class:`StageBrain`.
    """

    def __init__(
        self,
        model: AudioTagger,
        augmentation: Augmentation | None,
        plan: TrainingPlan,
        folder: Path,
        seed: int,
        name: str,
        run_opts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__({"model": model}, plan, folder, seed, name, run_opts)
        self.model, self.augmentation = model, augmentation
        self._seen: list[tuple[Tensor, Tensor]] = []

    def candidates(self) -> dict[str, nn.Module]:
        """The tagger."""
        return {"model": self.model}

    def compute_forward(self, batch: Batch, stage: sb.Stage) -> tuple[Tensor, Tensor, Tensor]:
        """Tag logits and targets, each ``(batch, classes)``, and which clips are labelled, ``(batch,)``."""
        batch = batch.to(self.device)
        features, targets = self.model.frontend(batch.waves), {"weak": batch.weak}
        if stage == sb.Stage.TRAIN and self.augmentation is not None:
            # Labelled and unlabelled clips must not be mixed with each other.
            groups = batch.has_weak.long().cpu() - 1
            features, targets = self.augmentation(features, targets | {"group": groups})
        return self.modules.model(features), targets["weak"], batch.has_weak

    def compute_objectives(self, predictions: tuple[Tensor, Tensor, Tensor], batch: Batch, stage: sb.Stage) -> Tensor:
        """Mean BCE of the labelled clips."""
        logits, tags, labelled = predictions
        losses = functional.binary_cross_entropy_with_logits(logits.float(), tags, reduction="none").mean(dim=1)
        loss = (losses * labelled).sum() / labelled.sum().clamp_min(1)
        if stage == sb.Stage.TRAIN:
            self.log_losses({"tag_bce": loss})
        else:
            self._seen.append((logits[labelled].float().cpu(), tags[labelled].cpu()))
        return loss

    def validation_scores(self, loss: float) -> dict[str, float]:
        """Loss and mean average precision on the selection clips; the best precision, if there is one, is kept."""
        from sklearn.metrics import average_precision_score

        logits, tags = (torch.cat(parts).numpy() for parts in zip(*self._seen, strict=True))
        self._seen = []
        present = tags.any(axis=0)
        precisions = [average_precision_score(tags[:, index], logits[:, index]) for index in np.flatnonzero(present)]
        precision = float(np.mean(precisions)) if precisions else 0.0
        if precisions:
            self.best.offer("model", precision, self.model.state_dict())
        return {"validation_loss": loss, "mean_average_precision": precision}


class PatchBrain(StageBrain):
    """Trains a set network to say where in a clip its patches are (SP-SEDT, section 2).

    Args:
        model: the pretext task around the network.
        criterion: set criterion; class 0 is "patch".
        augmentation: of the features, before patches are cut.
        plan, folder, seed, name, run_opts: see :class:`StageBrain`.
    """

    def __init__(
        self,
        model: SPSEDT,
        criterion: SetCriterion,
        augmentation: Augmentation | None,
        plan: TrainingPlan,
        folder: Path,
        seed: int,
        name: str,
        run_opts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__({"model": model}, plan, folder, seed, name, run_opts)
        self.model, self.criterion, self.augmentation = model, criterion, augmentation
        self._overlaps: list[float] = []

    def candidates(self) -> dict[str, nn.Module]:
        """The pretext model."""
        return {"model": self.model}

    def compute_forward(self, batch: Batch, stage: sb.Stage) -> PretextOutput:
        """Cut patches and look for them; those of a validation are the same every time."""
        batch = batch.to(self.device)
        features = self.model.frontend(batch.waves)
        if stage == sb.Stage.TRAIN and self.augmentation is not None:
            features, _ = self.augmentation(features, {})
        return self.modules.model(features, padding=batch.padding(features["mel"].shape[-1]))

    def compute_objectives(self, predictions: PretextOutput, batch: Batch, stage: sb.Stage) -> Tensor:
        """The set criterion over patches."""
        with torch.autocast(self.device_type, enabled=False):
            losses = self.criterion(predictions.output, predictions.targets)
        if stage == sb.Stage.TRAIN:
            self.log_losses({f"patch_{name}": value for name, value in losses.parts.items() if "_" not in name})
        else:
            self._overlaps.append(float(patch_overlap(predictions).mean()))
        return losses.total

    def validation_scores(self, loss: float) -> dict[str, float]:
        """Loss, and how well patches are found, on the selection clips; the lowest loss is kept."""
        overlap = sum(self._overlaps) / len(self._overlaps)
        self._overlaps = []
        self.best.offer("model", -loss, self.model.state_dict())
        return {"validation_loss": loss, "patch_iou": overlap}


def patch_overlap(prediction: PretextOutput) -> Tensor:
    """IoU of each patch with the most confident query of its own group, ``(batch, patches)``."""
    edges, patches = box_edges(prediction.output.boxes), prediction.bounds.shape[1]
    confidence = prediction.output.probabilities()[..., 0].unflatten(1, (patches, -1))
    edges = edges.unflatten(1, (patches, -1))
    chosen = confidence.argmax(dim=-1)[..., None, None].expand(-1, -1, 1, 2)
    return interval_iou(edges.gather(2, chosen).squeeze(2), box_edges(prediction.targets.boxes))
