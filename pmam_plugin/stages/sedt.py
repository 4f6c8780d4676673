"""SEDT's pre-training stages: tagging teaches the backbone, finding patches teaches the rest (SP-SEDT)."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import ddp_barrier

from pmam_plugin.augment import Augmentation
from pmam_plugin.brains.base import StageBrain
from pmam_plugin.brains.plan import TrainingPlan
from pmam_plugin.brains.records import hand_on
from pmam_plugin.brains.sedt import PatchBrain, TaggerBrain
from pmam_plugin.config import configurable
from pmam_plugin.errors import InputError
from pmam_plugin.losses.set_criterion import SetCriterion
from pmam_plugin.models import SEDT, SPSEDT, AudioTagger
from pmam_plugin.stages.context import RunContext, StageResult
from pmam_plugin.stages.loading import check_batch, training_batches, validation_batches
from pmam_plugin.stages.prepare import copy_with_artifact


@configurable
class PretrainTagger:
    """Teach the backbone to tag clips (SP-SEDT, section 3.2: 100 epochs on the weak subset).

    Args:
        model: the detector whose backbone learns.
        plan: budget, optimiser, and the subsets that are tagged.
        augmentation: moves features and tags together.
        hidden: width of the tagger's hidden layer.
        pooling: of the tagger, ``max`` or ``mean``.
    """

    always = False
    name, folder = "pretrain_tagger", "stages/pretrain_tagger"

    def __init__(
        self,
        model: SEDT,
        plan: TrainingPlan,
        augmentation: Augmentation | None = None,
        hidden: int = 1000,
        pooling: str = "max",
    ) -> None:
        self.model, self.plan, self.augmentation = model, plan, augmentation
        self.hidden, self.pooling = hidden, pooling

    def check(self, context: RunContext) -> None:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        present = check_batch(context, self.plan, self.name)
        if not any(clip.labels for subset in present for clip in context.data.manifests[subset]):
            raise InputError(
                f"{self.name}: no clip of {', '.join(present)} has labels to tag it by; name other subsets"
            )

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        run = context.stage_run(self.name, self.plan, folder)
        model = copy_with_artifact(self.model, context)
        model.network.backbone.thaw()
        tagger = AudioTagger(model.frontend, model.network.backbone, model.labels, self.hidden, self.pooling)
        brain = TaggerBrain(tagger, self.augmentation, run)
        return _train(brain, model, context, folder, "mean_average_precision")


@configurable
class PretrainPatches:
    """Teach everything but the backbone to find patches of a clip in it (SP-SEDT).

    Args:
        model: the detector whose network learns; its number of queries is a multiple of the number of patches.
        criterion: set criterion of the pretext task.
        plan: budget and optimiser.
        augmentation: of the features, before patches are cut.
        stored: read a frozen encoder's stored embeddings instead of the sound; needs ``pooled_patches``.
        pretext: further arguments of :class:`~pmam_plugin.models.SPSEDT`.

    Raises:
        ValueError: stored embeddings, of which no patch can be cut and encoded by itself.
    """

    always = False
    name, folder = "pretrain_patches", "stages/pretrain_patches"

    def __init__(
        self,
        model: SEDT,
        criterion: SetCriterion,
        plan: TrainingPlan,
        augmentation: Augmentation | None = None,
        stored: bool = False,
        **pretext: Any,
    ) -> None:
        if stored and not pretext.get("pooled_patches"):
            raise ValueError("stored embeddings hold no patch by itself; give pooled_patches: true with stored: true")
        inspect.signature(SPSEDT).bind_partial(**pretext)  # a wrong name is found here, not when the stage begins
        self.model, self.criterion, self.plan = model, criterion, plan
        self.augmentation, self.stored, self.pretext = augmentation, stored, pretext

    def check(self, context: RunContext) -> None:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        check_batch(context, self.plan, self.name)

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        run = context.stage_run(self.name, self.plan, folder)
        model = copy_with_artifact(self.model, context)
        pretext = SPSEDT(model.frontend, model.network, clip_seconds=model.clip_seconds, **self.pretext)
        brain = PatchBrain(pretext, self.criterion, self.augmentation, run)
        return _train(brain, model, context, folder, "patch_iou", self.stored)


def _train(
    brain: StageBrain, model: SEDT, context: RunContext, folder: Path, metric: str, stored: bool = False
) -> StageResult:
    """Train a wrapper around parts of ``model``, put its best weights back, hand them on."""
    clips = sum(brain.plan.batch.values())
    brain.train(
        training_batches(context, model, brain.plan, brain.name, stored),
        validation_batches(context, model, clips, whole=False, stored=stored),
    )
    ddp_barrier()
    brain.raw["model"].load_state_dict(brain.best.load("model"))
    path = hand_on(folder / "backbone.safetensors", model.pretrained_state())
    notes: dict[str, Any] = {"updates": brain.optimizer_step}
    points = brain.history.curves.get(metric)
    return StageResult({"backbone": path}, notes | ({metric: points[-1][1]} if points else {}), brain.history.curves)
