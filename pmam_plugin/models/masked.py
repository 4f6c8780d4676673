"""Masked prototype modelling: hide frames, predict which prototypes they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.models.backbone import Backbone
from pmam_plugin.nn.heads import PredictionHead, TagHead
from pmam_plugin.nn.masking import BlockMasking, MaskPlan, NoMasking, apply_mask


@dataclass
class MaskedOutput:
    """What a masked model returns.

    Attributes:
        prediction: for every frame, in the space of the prototypes, ``(batch, frames, prototype_dim)``.
        mask: true where a frame was hidden, ``(batch, frames)``.
        tags: clip probabilities of the prototypes, ``(batch, prototypes)``, or None without a tag head.
    """

    prediction: Tensor
    mask: Tensor
    tags: Tensor | None = None


@configurable
class MaskedModel(nn.Module):
    """A backbone whose context network has to guess hidden frames (PMAM section II-C).

    Args:
        backbone: front ends, encoder, context network.
        masking: which frames are hidden and what replaces them; ``"none"`` hides nothing and predicts every frame.
        head: from context output into the prototypes' space.
        tag_head: clip-level branch on the encoder's tokens.
    """

    def __init__(
        self,
        backbone: Backbone,
        masking: BlockMasking | NoMasking | Literal["none"],
        head: PredictionHead,
        tag_head: TagHead | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.tag_head = backbone, head, tag_head
        self.masking = NoMasking() if masking == "none" else masking
        self.mask_token = nn.Parameter(torch.empty(1, 1, backbone.encoder.dim))
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self,
        features: Mapping[str, Tensor],
        mask: Tensor | MaskPlan | None = None,
        padding: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> MaskedOutput:
        """Hide frames and predict them.

        Args:
            features: name -> ``(batch, mel, frames)``.
            mask: frames to hide, all of them behind the mask token, ``(batch, frames)``, or a plan; drawn if None.
            padding: true where a frame is padding, ``(batch, frames)``; never hidden.
            generator: for the draw; torch's global one by default.
        """
        encoded = self.backbone.encoder(features, tokens=self.tag_head is not None)
        plan = self._plan(encoded.frames, mask, padding, generator)
        frames = self.backbone.context(apply_mask(encoded.frames, self.mask_token, plan))
        tags = None if self.tag_head is None else self.tag_head(encoded.tokens)
        return MaskedOutput(self.head(frames), plan.mask, tags)

    def _plan(
        self, frames: Tensor, mask: Tensor | MaskPlan | None, padding: Tensor | None, generator: torch.Generator | None
    ) -> MaskPlan:
        if mask is None:
            return self.masking.plan(frames.shape[0], frames.shape[1], padding, generator).to(frames.device)
        mask = mask.to(frames.device)
        if isinstance(mask, MaskPlan):
            return mask
        valid = torch.ones_like(mask) if padding is None else ~padding.to(mask.device)
        return MaskPlan(mask & valid, mask.long() * 0, valid, mask.float() * 0)
