"""Block-wise masking of frame embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pmam_plugin.config import configurable

STYLES = ("mask_token", "random_frame", "itself")


@dataclass
class MaskPlan:
    """Which frames are hidden, and what stands in their place.

    Attributes:
        mask: true where a frame is hidden and has to be predicted, ``(batch, frames)``.
        style: index into :data:`STYLES` for every frame (meaningless where not masked), ``(batch, frames)``.
        valid: true where a frame is not padding, ``(batch, frames)``.
        pick: for the style ``random_frame``, which of the valid frames stands in, from 0 (the first) to 1,
            ``(batch, frames)``.
    """

    mask: Tensor
    style: Tensor
    valid: Tensor
    pick: Tensor

    @property
    def source(self) -> Tensor:
        """For the style ``random_frame``, the frame of the flattened batch that stands in, ``(batch, frames)``."""
        candidates = self.valid.flatten().nonzero().squeeze(1)
        if not len(candidates):
            return torch.zeros_like(self.pick, dtype=torch.long)
        return candidates[(self.pick * len(candidates)).long().clamp(max=len(candidates) - 1)]

    def __getitem__(self, rows: Tensor | slice) -> MaskPlan:
        """The plan of some of the clips; frames that stand in are then of these clips, too."""
        return MaskPlan(self.mask[rows], self.style[rows], self.valid[rows], self.pick[rows])

    def to(self, device: torch.device | str) -> MaskPlan:
        """The same plan on another device."""
        return MaskPlan(*(value.to(device) for value in (self.mask, self.style, self.valid, self.pick)))


@configurable
class BlockMasking:
    """Hide blocks of consecutive frames (PMAM section II-C).

    The frames of a clip are cut into blocks; of those with any valid frame ``round(rate * blocks)`` are hidden, at
    least one. The last block is shorter where the length is not a multiple. Every hidden block is treated in one way:
    its frames become the mask token, random frames of the batch, or stay as they are; decided per block, since a single
    visible frame inside a hidden block is nearly a copy of its neighbours and gives the answer away.

    Args:
        rate: share of blocks hidden (the paper's value; the authors' configuration says 0.8).
        block_frames: length of a block in frames.
        replace_with: probability of each treatment, the paper's by default; must sum to one.
    """

    def __init__(
        self,
        rate: float = 0.75,
        block_frames: int = 10,
        replace_with: Mapping[str, float] | None = None,
    ) -> None:
        replace_with = (
            {"mask_token": 0.9, "random_frame": 0.05, "itself": 0.05} if replace_with is None else replace_with
        )
        unknown = set(replace_with) - set(STYLES)
        if unknown:
            raise ValueError(f"replace_with names {sorted(unknown)[0]!r}; choose from {', '.join(STYLES)}")
        self.probabilities = [float(replace_with.get(style, 0.0)) for style in STYLES]
        if min(self.probabilities) < 0 or not math.isclose(sum(self.probabilities), 1.0, abs_tol=1e-6):
            raise ValueError(f"the probabilities of replace_with must sum to one, got {replace_with}")
        if not 0 < rate <= 1 or block_frames < 1:
            raise ValueError(
                f"masking needs a rate in (0, 1] and blocks of a frame or more, got {rate}, {block_frames}; to learn "
                "from all frames without hiding any, set masking: none"
            )
        self.rate = rate
        self.block_frames = block_frames

    def plan(
        self, batch: int, frames: int, padding: Tensor | None = None, generator: torch.Generator | None = None
    ) -> MaskPlan:
        """Draw what to hide; on the CPU, so that a seed means the same masks on every device.

        Args:
            batch: number of clips.
            frames: number of frames of each.
            padding: true where a frame is padding, ``(batch, frames)``; never hidden nor shown elsewhere.
            generator: a CPU generator; torch's global one by default.
        """
        valid = torch.ones(batch, frames, dtype=torch.bool) if padding is None else ~padding.cpu()
        hidden = self._hidden_blocks(valid, generator)
        weights = torch.tensor(self.probabilities)
        style = torch.multinomial(weights, hidden.numel(), replacement=True, generator=generator).view_as(hidden)
        pick = torch.rand(batch, frames, generator=generator)
        return MaskPlan(self._to_frames(hidden, frames) & valid, self._to_frames(style, frames), valid, pick)

    def _hidden_blocks(self, valid: Tensor, generator: torch.Generator | None) -> Tensor:
        batch, frames = valid.shape
        blocks = math.ceil(frames / self.block_frames)
        padded = torch.nn.functional.pad(valid, (0, blocks * self.block_frames - frames))
        usable = padded.view(batch, blocks, self.block_frames).any(dim=2)
        # A short clip or a low rate shall not leave a clip that trains nothing.
        count = (usable.sum(dim=1, keepdim=True) * self.rate + 0.5).floor().clamp_min(1)
        order = torch.rand(batch, blocks, generator=generator).masked_fill(~usable, 2.0)
        return order.argsort(dim=1).argsort(dim=1) < count

    def _to_frames(self, blocks: Tensor, frames: int) -> Tensor:
        return blocks.repeat_interleave(self.block_frames, dim=1)[:, :frames]


@configurable
class NoMasking:
    """Nothing is hidden and every frame counts: the ablation of masking."""

    def plan(
        self, batch: int, frames: int, padding: Tensor | None = None, generator: torch.Generator | None = None
    ) -> MaskPlan:
        """All frames that are not padding, each in its own place; see :meth:`BlockMasking.plan`."""
        counted = torch.ones(batch, frames, dtype=torch.bool) if padding is None else ~padding.cpu()
        itself = torch.full((batch, frames), STYLES.index("itself"))
        return MaskPlan(counted, itself, counted, torch.zeros(batch, frames))


def apply_mask(frames: Tensor, token: Tensor, plan: MaskPlan) -> Tensor:
    """Put the replacements of ``plan`` in place of the hidden frames.

    Args:
        frames: ``(batch, frames, dim)``, contiguous or not.
        token: the mask token, ``(dim,)`` or broadcastable to ``frames``.
        plan: on the device of ``frames``.

    Returns:
        A new tensor; ``frames`` stays as it is.
    """
    token_here = (plan.mask & (plan.style == 0)).unsqueeze(-1)
    other_here = (plan.mask & (plan.style == 1)).unsqueeze(-1)
    others = frames.reshape(-1, frames.shape[-1])[plan.source]
    return torch.where(token_here, token.to(frames.dtype), torch.where(other_here, others, frames))
