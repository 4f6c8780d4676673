"""SEDT's pre-training: audio tagging for the backbone (stage 1), patches to find for the rest (stage 2, SP-SEDT)."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import speechbrain as sb
import torch
from torch import Tensor
from torch.nn import functional

from pmam_plugin import processes
from pmam_plugin.augment import Augmentation
from pmam_plugin.brains.base import StageBrain
from pmam_plugin.brains.parts import WHOLE, Division, Rows
from pmam_plugin.brains.plan import StageRun
from pmam_plugin.data import Batch
from pmam_plugin.losses.event_targets import EventTotal
from pmam_plugin.losses.semi_supervised import masked_mean
from pmam_plugin.losses.set_criterion import SetCriterion
from pmam_plugin.models import SPSEDT, AudioTagger
from pmam_plugin.models.sedt import feature_frames
from pmam_plugin.models.sp_sedt import PretextOutput
from pmam_plugin.nn.intervals import box_edges, interval_iou


@dataclass
class TaggedClips:
    """A batch for the tagger."""

    features: dict[str, Tensor]  # name -> (batch, mel, frames)
    tags: Tensor  # (batch, classes)
    labelled: Tensor  # which clips' tags are known, (batch,)


class TaggerBrain(StageBrain):
    """Trains a backbone to tag clips: BCE over the clips whose tags are known; tags are augmented with the features."""

    def __init__(self, model: AudioTagger, augmentation: Augmentation | None, run: StageRun) -> None:
        super().__init__({"model": model}, run)
        self.model, self.augmentation = model, augmentation

    def prepare(self, batch: Batch, division: Division) -> TaggedClips:
        """The whole batch, augmented."""
        return self._clips(batch, self.augmentation)

    def part(self, whole: TaggedClips, number: int, rows: Rows) -> tuple[TaggedClips, Rows]:
        """See :meth:`StageBrain.part`."""
        return whole, rows

    def compute_forward(self, batch: Any, stage: sb.Stage) -> tuple[Tensor, TaggedClips, Rows]:
        """Tag logits ``(clips, classes)``, the batch, and which clips of it the logits are of."""
        clips, rows = batch if stage == sb.Stage.TRAIN else (self._clips(batch, None), WHOLE)
        return self.modules.model({name: value[rows] for name, value in clips.features.items()}), clips, rows

    def _clips(self, batch: Batch, augmentation: Augmentation | None) -> TaggedClips:
        batch = batch.to(self.device)
        features, targets = batch.features(self.model.frontend), {"weak": batch.weak}
        if augmentation is not None:
            # Labelled and unlabelled clips must not be mixed with each other.
            groups = batch.has_weak.long().cpu() - 1
            features, targets = augmentation(features, targets | {"group": groups})
        return TaggedClips(features, targets["weak"], batch.has_weak)

    def compute_objectives(self, predictions: tuple[Tensor, TaggedClips, Rows], batch: Any, stage: sb.Stage) -> Tensor:
        """Mean BCE of the labelled clips."""
        logits, clips, rows = predictions
        tags, labelled = clips.tags[rows], clips.labelled[rows]
        losses = functional.binary_cross_entropy_with_logits(logits.float(), tags, reduction="none").mean(dim=1)
        loss = masked_mean(losses, clips.labelled, rows)
        if stage == sb.Stage.TRAIN:
            self.log_losses({"tag_bce": loss})
        else:
            self.observed.append((logits[labelled].float().cpu(), tags[labelled].cpu()))
        return loss

    def validation_scores(self, loss: float) -> dict[str, float]:
        """Loss and mean average precision on the selection clips; the best precision, if there is one, is kept."""
        from sklearn.metrics import average_precision_score

        seen = processes.gather_dealt(self.observed)
        logits, tags = (torch.cat(parts).numpy() for parts in zip(*seen, strict=True))
        present, precision = tags.any(axis=0), 0.0
        if present.any():
            precision = float(average_precision_score(tags[:, present], logits[:, present]))
            self.best.offer("model", precision, self.model.state_dict())
        return {"validation_loss": loss, "mean_average_precision": precision}


@dataclass
class PatchedClips:
    """A batch, or some of its clips, for the search for patches."""

    features: dict[str, Tensor]  # name -> (clips, mel, frames), or stored embeddings, (clips, their dim, cells)
    padding: Tensor  # (clips, frames)
    bounds: Tensor  # of the patches, (clips, patches, 2)
    share: float = 1.0  # of the clips of the whole batch

    def __getitem__(self, rows: Rows) -> PatchedClips:
        """Some of the clips."""
        features, bounds = {name: value[rows] for name, value in self.features.items()}, self.bounds[rows]
        return PatchedClips(features, self.padding[rows], bounds, len(bounds) / len(self.bounds))


class PatchBrain(StageBrain):
    """Trains a set network to say where in a clip its patches are (SP-SEDT, section 2); class 0 is "patch"."""

    def __init__(self, model: SPSEDT, criterion: SetCriterion, run: StageRun) -> None:
        super().__init__({"model": model}, run)
        self.model, self.criterion = model, criterion

    def prepare(self, batch: Batch, division: Division) -> PatchedClips:
        """The whole batch with the bounds of its patches."""
        return self._clips(batch)

    def compute_forward(self, batch: Any, stage: sb.Stage) -> tuple[PretextOutput, float]:
        """Look for patches, those of a validation the same every time; also the share of the batch in these clips."""
        clips = batch if stage == sb.Stage.TRAIN else self._clips(batch)
        return self.modules.model(clips.features, clips.padding, clips.bounds), clips.share

    def _clips(self, batch: Batch) -> PatchedClips:
        batch = batch.to(self.device)
        features = batch.features(self.model.frontend)
        padding = batch.padding(feature_frames(self.model.network, features, self.model.span_frames))
        return PatchedClips(features, padding, self.model.sampler((~padding).sum(dim=1)))

    def compute_objectives(self, predictions: tuple[PretextOutput, float], batch: Any, stage: sb.Stage) -> Tensor:
        """The set criterion over patches."""
        found, share = predictions
        # All clips have as many patches.
        whole = EventTotal(*(value / share for value in astuple(found.targets.total())))
        with torch.autocast(self.device_type, enabled=False):
            losses = self.criterion(found.output, found.targets, whole)
        if stage == sb.Stage.TRAIN:
            self.log_losses({f"patch_{name}": value for name, value in losses.parts.items() if "_" not in name})
        else:
            self.observed.append(float(patch_overlap(found).mean()))
        return losses.total

    def validation_scores(self, loss: float) -> dict[str, float]:
        """Loss, and how well patches are found, on the selection clips; the lowest loss is kept."""
        overlaps = processes.gather_dealt(self.observed)
        self.best.offer("model", -loss, self.model.state_dict())
        return {"validation_loss": loss, "patch_iou": sum(overlaps) / len(overlaps)}


def patch_overlap(prediction: PretextOutput) -> Tensor:
    """IoU of each patch with the most confident query of its own group, ``(batch, patches)``."""
    edges, patches = box_edges(prediction.output.boxes), prediction.bounds.shape[1]
    confidence = prediction.output.probabilities()[..., 0].unflatten(1, (patches, -1))
    edges = edges.unflatten(1, (patches, -1))
    chosen = confidence.argmax(dim=-1)[..., None, None].expand(-1, -1, 1, 2)
    return interval_iou(edges.gather(2, chosen).squeeze(2), box_edges(prediction.targets.boxes))
