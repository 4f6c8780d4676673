"""Self-supervised pre-training, a stage for each method: PMAM's M-step, ATST-Frame's own, and SP-SEDT's two."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from speechbrain.utils.distributed import ddp_barrier
from torch import nn

from pmam_plugin.augment import Augmentation
from pmam_plugin.brains.base import StageBrain
from pmam_plugin.brains.byol import ATSTFrameBrain, ATSTFrameSettings
from pmam_plugin.brains.masked import MaskedBrain
from pmam_plugin.brains.plan import TrainingPlan
from pmam_plugin.brains.records import hand_on
from pmam_plugin.brains.sedt import PatchBrain, TaggerBrain
from pmam_plugin.config import configurable
from pmam_plugin.encoders import ATSTFrame
from pmam_plugin.errors import InputError
from pmam_plugin.losses.set_criterion import SetCriterion
from pmam_plugin.models import SEDT, SPSEDT, ATSTFrameMasking, ATSTFramePretraining, AudioTagger, Backbone, MaskedModel
from pmam_plugin.nn.heads import PredictionHead, TagHead
from pmam_plugin.nn.lora import add_lora, merge_lora
from pmam_plugin.nn.masking import BlockMasking, NoMasking
from pmam_plugin.prototypes import ArrayStore, PrototypeSet
from pmam_plugin.stages.context import RunContext, Stage, StageResult
from pmam_plugin.stages.loading import check_batch, training_batches, validation_batches
from pmam_plugin.stages.prepare import Pretrainable, copy_with_artifact, hand_on_model

_ITERATION = re.compile(r"pretrain_\d+")


class Pretraining(Stage):
    """A stage that trains the one model of a Brain; what it hands on, the next stages start from.

    Attributes:
        plan: budget and optimiser.
        stored: read a frozen encoder's stored embeddings instead of the sound.
    """

    plan: TrainingPlan
    stored = False

    def check(self, context: RunContext) -> None:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        check_batch(context, self.plan, self.name)

    def _train(
        self, context: RunContext, brain: StageBrain, reads: Pretrainable, metric: str = "", validate: bool = True
    ) -> dict[str, Any]:
        """Train, and leave the best weights in the model; notes are ``updates`` and the last point of ``metric``.

        Clips are loaded for ``reads``: the model, or its backbone. Without validation the last weights are the best.
        """
        clips = self.plan.batch_clips
        brain.train(
            training_batches(context, reads, self.plan, self.name, self.stored),
            validation_batches(context, reads, clips, whole=False, stored=self.stored) if validate else None,
        )
        ddp_barrier()
        brain.raw["model"].load_state_dict(brain.best.load("model"))
        points = brain.history.curves.get(metric)
        return {"updates": brain.optimizer_step, **({metric: points[-1][1]} if points else {})}


@configurable
class Pretrain(Pretraining):
    """The M-step: a masked model learns the pseudo-labels of the E-step before it.

    Args:
        iteration: 1, 2, ...
        backbone: front ends, encoder and context network.
        masking: which frames are hidden and what replaces them; ``none`` learns from all frames and hides none.
        loss: objective on the hidden frames.
        plan: budget and optimiser.
        augmentation: moves features and posteriors together.
        tag_weight: of the clip-level branch; 0 builds none.
        tag_heads: attention heads of that branch.
        minimum_share: see :class:`~pmam_plugin.brains.masked.MaskedBrain`.
        stored: read a frozen encoder's stored embeddings, which ``augmentation`` then acts on, instead of the sound.
        lora: arguments of :func:`pmam_plugin.nn.lora.add_lora`; None trains the weights themselves.
        restart: an iteration after the first starts where the first one did, published weights loaded and all else
            anew, and has its predecessor's prototypes only (the authors' published configuration, and HuBERT's way);
            False goes on from its predecessor's weights, as M-steps of EM do, and saves updates.
    """

    def __init__(
        self,
        iteration: int,
        backbone: Backbone,
        masking: BlockMasking | NoMasking | Literal["none"],
        loss: nn.Module,
        plan: TrainingPlan,
        augmentation: Augmentation | None = None,
        tag_weight: float = 0.1,
        tag_heads: int = 12,
        lora: Mapping[str, Any] | None = None,
        minimum_share: float = 0.02,
        stored: bool = False,
        restart: bool = True,
    ) -> None:
        self.backbone, self.masking, self.loss, self.plan = backbone, masking, loss, plan
        self.augmentation, self.tag_weight, self.tag_heads, self.lora = augmentation, tag_weight, tag_heads, lora
        self.minimum_share, self.stored, self.restart = minimum_share, stored, restart
        self.name = f"pretrain_{iteration}"

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        prototypes = PrototypeSet.load(context.artifacts["prototypes"])
        run = context.stage_run(self.name, self.plan, folder)
        model = self._build(context, prototypes)
        brain = MaskedBrain(
            model,
            self.loss,
            prototypes=torch.as_tensor(prototypes.means, dtype=torch.float32),
            posteriors=ArrayStore.open(context.artifacts["posteriors"]),
            augmentation=self.augmentation,
            run=run,
            tag_weight=self.tag_weight,
            minimum_share=self.minimum_share,
        )
        notes = self._train(context, brain, model.backbone)
        path = hand_on(folder / "backbone.safetensors", merge_lora(model.backbone))
        notes["best_validation_loss"] = -brain.best.scores["model"]
        return StageResult({"backbone": path}, notes, brain.history.curves)

    def _build(self, context: RunContext, prototypes: PrototypeSet) -> MaskedModel:
        backbone = copy_with_artifact(self.backbone, context, _ITERATION if self.restart else None)
        if self.lora is not None:
            add_lora(backbone, **self.lora)
        count, dim = prototypes.means.shape
        tag_head = None
        if self.tag_weight and backbone.encoder.token_dim is not None:
            tag_head = TagHead(backbone.encoder.token_dim, count, self.tag_heads)
        return MaskedModel(backbone, self.masking, PredictionHead(backbone.dim, dim), tag_head)


def expectation_maximisation(iterations: int, estep: Callable[..., Any], pretrain: Callable[..., Any]) -> list[Any]:
    """The stages of ``iterations`` rounds of E-step and masked pre-training.

    Args:
        iterations: rounds; the paper's is 2.
        estep: makes an :class:`pmam_plugin.stages.EStep`, called with ``iteration=``.
        pretrain: makes a :class:`Pretrain`, called with ``iteration=``.
    """
    return [stage(iteration=number) for number in range(1, iterations + 1) for stage in (estep, pretrain)]


@configurable
class PretrainATSTFrame(Pretraining):
    """Frame-level BYOL with masking; the teacher's encoder is kept, as the authors publish it.

    Leaves the whole backbone for the fine-tuning stages of the same run, and ``atst_frame.safetensors`` with the
    encoder alone, which ``--atst_checkpoint`` of another run takes.

    Args:
        backbone: holds the encoder, alone or beside a CNN.
        plan: budget and optimiser; the published rate is 8e-5 per 256 clips.
        masking: which tokens the student does not see.
        hidden, output_dim: of projector and predictor.
        settings: of :class:`~pmam_plugin.brains.byol.ATSTFrameSettings`.
    """

    name = "pretrain_atst"

    def __init__(
        self,
        backbone: Backbone,
        plan: TrainingPlan,
        masking: ATSTFrameMasking | None = None,
        hidden: int = 4096,
        output_dim: int = 256,
        **settings: Any,
    ) -> None:
        self.backbone, self.plan, self.masking = backbone, plan, masking
        self.hidden, self.output_dim = hidden, output_dim
        self.settings = ATSTFrameSettings(**settings)

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        run = context.stage_run(self.name, self.plan, folder)
        backbone = copy_with_artifact(self.backbone, context)
        encoder = next((part for part in backbone.encoder.modules() if isinstance(part, ATSTFrame)), None)
        if encoder is None:
            raise ValueError("the backbone holds no ATSTFrame to pre-train")
        model = ATSTFramePretraining(encoder, self.masking, self.hidden, self.output_dim)
        brain = ATSTFrameBrain(model, backbone.frontend, run, self.settings)
        notes = self._train(context, brain, backbone, "target_spread", validate=False)
        trained = model.teacher.encoder.state_dict()
        encoder.load_state_dict(trained)
        artifacts = {
            **hand_on_model(backbone, folder),
            "atst_frame": hand_on(folder / "atst_frame.safetensors", trained),
        }
        return StageResult(artifacts, notes, brain.history.curves)


@configurable
class PretrainTagger(Pretraining):
    """Teach the backbone to tag clips (SP-SEDT, section 3.2: 100 epochs on the weak subset).

    Args:
        model: the detector whose backbone learns.
        plan: budget, optimiser, and the subsets that are tagged.
        augmentation: moves features and tags together.
        hidden: width of the tagger's hidden layer.
        pooling: of the tagger, ``max`` or ``mean``.
    """

    name = "pretrain_tagger"

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
        notes = self._train(context, brain, model, "mean_average_precision")
        return StageResult(hand_on_model(model, folder), notes, brain.history.curves)


@configurable
class PretrainPatches(Pretraining):
    """Teach everything but the backbone to find patches of a clip in it (SP-SEDT).

    Args:
        model: the detector whose network learns; its number of queries is a multiple of the number of patches.
        criterion: set criterion of the pretext task.
        plan: budget and optimiser.
        stored: read a frozen encoder's stored embeddings instead of the sound; needs ``pooled_patches``.
        pretext: further arguments of :class:`~pmam_plugin.models.SPSEDT`.

    Raises:
        ValueError: stored embeddings, of which no patch can be cut and encoded by itself.
    """

    name = "pretrain_patches"

    def __init__(
        self,
        model: SEDT,
        criterion: SetCriterion,
        plan: TrainingPlan,
        stored: bool = False,
        **pretext: Any,
    ) -> None:
        if stored and not pretext.get("pooled_patches"):
            raise ValueError("stored embeddings hold no patch by itself; give pooled_patches: true with stored: true")
        inspect.signature(SPSEDT).bind_partial(**pretext)  # a wrong name is found here, not when the stage begins
        self.model, self.criterion, self.plan = model, criterion, plan
        self.stored, self.pretext = stored, pretext

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        run = context.stage_run(self.name, self.plan, folder)
        model = copy_with_artifact(self.model, context)
        pretext = SPSEDT(model.frontend, model.network, clip_seconds=model.clip_seconds, **self.pretext)
        brain = PatchBrain(pretext, self.criterion, run)
        notes = self._train(context, brain, model, "patch_iou")
        return StageResult(hand_on_model(model, folder), notes, brain.history.curves)
