"""Masked pre-training, alternated with the E-step."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from speechbrain.utils.distributed import ddp_barrier
from torch import nn

from pmam_plugin.augment import Augmentation
from pmam_plugin.brains.masked import MaskedBrain
from pmam_plugin.brains.plan import TrainingPlan
from pmam_plugin.brains.records import hand_on
from pmam_plugin.config import configurable
from pmam_plugin.models import Backbone, MaskedModel
from pmam_plugin.nn.heads import PredictionHead, TagHead
from pmam_plugin.nn.lora import add_lora, merge_lora
from pmam_plugin.nn.masking import BlockMasking, NoMasking
from pmam_plugin.prototypes import ArrayStore, PrototypeSet
from pmam_plugin.stages.context import RunContext, StageResult
from pmam_plugin.stages.loading import check_batch, training_batches, validation_batches
from pmam_plugin.stages.prepare import copy_with_artifact

_ITERATION = re.compile(r"pretrain_\d+")


@configurable
class Pretrain:
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

    always = False

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
        self.folder = f"stages/{self.name}"

    def check(self, context: RunContext) -> None:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        check_batch(context, self.plan, self.name)

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        prototypes = PrototypeSet.load(context.artifacts["prototypes"])
        run = context.stage_run(self.name, self.plan, folder)
        model = self._build(context, prototypes)
        brain = MaskedBrain(
            model,
            self.loss,
            torch.as_tensor(prototypes.means, dtype=torch.float32),
            ArrayStore.open(context.artifacts["posteriors"]),
            self.augmentation,
            run,
            self.tag_weight,
            self.minimum_share,
        )
        brain.train(
            training_batches(context, model.backbone, self.plan, self.name, self.stored),
            validation_batches(context, model.backbone, run.batch_clips, whole=False, stored=self.stored),
        )
        ddp_barrier()
        model.load_state_dict(brain.best.load("model"))
        path = hand_on(folder / "backbone.safetensors", merge_lora(model.backbone))
        notes = {"updates": brain.optimizer_step, "best_validation_loss": -brain.best.scores["model"]}
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
