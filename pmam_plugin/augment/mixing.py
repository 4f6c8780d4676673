"""Mixing clips: one plan, drawn once, says for inputs, labels, pseudo-labels and embeddings who is mixed with whom.

Conditional mixup (ATST-SEDv2, arXiv 2606.29901) draws the share ``w >= 0.5`` of the dominant clip. Up to a threshold
the mixture is a *composition* of both clips and every target is mixed in the same proportion; above it the other clip
is a *perturbation* and the target remains that of the dominant clip alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor

from pmam_plugin.augment.base import Features, Targets, check_probability, choose_clips

DrawPer = Literal["batch", "group", "clip"]


@dataclass(frozen=True)
class MixPlan:
    """Who is mixed with whom, and how much.

    Attributes:
        weights: share of the clip itself in its input, ``(batch,)``, in [0, 1]; 1 leaves the clip alone.
        target_weights: share of the clip itself in its target, ``(batch,)``.
        partners: index of the clip it is mixed with, ``(batch,)``; its own where the clip is left alone.
    """

    weights: Tensor
    target_weights: Tensor
    partners: Tensor

    @property
    def composition(self) -> Tensor:
        """True where the target names both clips, ``(batch,)``; elsewhere the partner is noise or there is none."""
        return self.target_weights < 1

    def mix_inputs(self, values: Tensor) -> Tensor:
        """Mix features, ``(batch, ...)``: ``w x_i + (1 - w) x_partner(i)``, exactly ``x_i`` where the weight is 1."""
        partners = values[self.partners.to(values.device)]
        return torch.lerp(partners, values, _per_clip(self.weights, values).to(values.dtype))

    @property
    def perturbation(self) -> Tensor:
        """True where the partner is in the input but not in the target, ``(batch,)``."""
        return (self.weights < 1) & ~self.composition

    def mix_targets(self, values: Tensor) -> Tensor:
        """Mix labels or pseudo-labels, ``(batch, ...)`` in [0, 1]; rounding never takes them out of it.

        Booleans are padding masks: where the target names both clips, a frame is padding only if it is in both. Whole
        numbers are about the clip and stay as they are.
        """
        if values.dtype == torch.bool:
            both = _per_clip(self.composition, values)
            return values & (values[self.partners.to(values.device)] | ~both)
        if not values.is_floating_point():
            return values
        return self.blend_targets(values, values[self.partners.to(values.device)])

    def blend_targets(self, values: Tensor, partners: Tensor) -> Tensor:
        """Mix pseudo-labels in [0, 1] of the clips with those of their partners, both ``(batch, ...)``."""
        return torch.lerp(partners, values, _per_clip(self.target_weights, values).to(values.dtype)).clamp(0.0, 1.0)

    def part(self, rows: Tensor | slice) -> MixPlan:
        """The plan of some of the clips; partners keep their place in the whole batch."""
        return MixPlan(self.weights[rows], self.target_weights[rows], self.partners[rows])


class Mixup:
    """Mixup with soft labels (PMAM section "data augmentation", ATST-SED).

    Clips are mixed within their group only (see :meth:`draw`), and none with itself: the references permute at random,
    which leaves one clip per group unmixed on average.

    Args:
        alpha, beta: the share of the clip itself is drawn from Beta(alpha, beta); ``beta`` defaults to ``alpha``. PMAM
            pre-trains with (0.2, 0.2) and fine-tunes with (10, 0.5), ATST-SED uses (0.2, 0.2).
        probability: of mixing; drawn for every clip where ``draw_per`` is "clip", else once for the batch.
        draw_per: whether one share serves the whole batch (PMAM's pre-training), a group (both fine-tunings) or a clip.
        fold: swap the roles where the partner would dominate, so that the share is at least 0.5.
    """

    def __init__(
        self,
        alpha: float = 0.2,
        beta: float | None = None,
        probability: float = 0.5,
        draw_per: DrawPer = "batch",
        fold: bool = False,
    ) -> None:
        check_probability(probability)
        if alpha <= 0 or (beta is not None and beta <= 0):
            raise ValueError(f"alpha and beta must be positive, not {alpha} and {beta}")
        if draw_per not in ("batch", "group", "clip"):
            raise ValueError(f"draw_per is batch, group or clip, not {draw_per!r}")
        self.alpha, self.beta = alpha, alpha if beta is None else beta
        self.probability, self.draw_per, self.fold = probability, draw_per, fold

    def draw(self, groups: Tensor, generator: Generator | None = None) -> MixPlan | None:
        """Draw a plan.

        Args:
            groups: group of every clip, whole numbers ``(batch,)``; clips are mixed within their group, and those of a
                negative group never.
            generator: torch's global CPU generator when None.

        Returns:
            The plan, on the device of ``groups``, or None where this time no clip is mixed.
        """
        device, groups = groups.device, groups.cpu()
        partners = draw_partners(groups, generator)
        coins = choose_clips(len(groups) if self.draw_per == "clip" else 1, self.probability, generator)
        weights = self._draw_weights(groups, generator)
        itself = torch.arange(len(groups))
        alone = (partners == itself) | ~coins
        if bool(alone.all()):
            return None
        weights = weights.masked_fill(alone, 1.0)
        partners = torch.where(alone, itself, partners)
        return MixPlan(weights.to(device), self.target_weights(weights).to(device), partners.to(device))

    def target_weights(self, weights: Tensor) -> Tensor:
        """Shares in the targets for the given shares in the inputs: the same."""
        return weights

    def __call__(
        self, features: Features, targets: Targets, generator: Generator | None = None
    ) -> tuple[Features, Targets]:
        """Mix features and targets; ``targets["group"]`` says which clips go together (all, where it is absent)."""
        batch = next(iter(features.values())).shape[0]
        plan = self.draw(targets.get("group", torch.zeros(batch, dtype=torch.long)), generator)
        if plan is None:
            return features, targets
        return (
            {name: plan.mix_inputs(value) for name, value in features.items()},
            {name: plan.mix_targets(value) for name, value in targets.items()},
        )

    def _draw_weights(self, groups: Tensor, generator: Generator | None) -> Tensor:
        shared = {
            "batch": torch.zeros_like(groups),
            "group": groups.unique(return_inverse=True)[1],
            "clip": torch.arange(len(groups)),
        }[self.draw_per]
        # Through numpy, because torch's Beta takes no generator.
        seed = int(torch.randint(2**62, (), generator=generator))
        drawn = np.random.default_rng(seed).beta(self.alpha, self.beta, size=len(groups))
        weights = torch.from_numpy(drawn).float()[shared]
        return torch.maximum(weights, 1 - weights) if self.fold else weights


class ConditionalMixup(Mixup):
    """Mixup that is composition up to a threshold and perturbation above it (ATST-SEDv2).

    With ``threshold`` 1 it is mixup with folded shares (the interpolation consistency of ATST-SED); below 0.5 every
    mixture is a perturbation and no label changes.

    Args:
        alpha: the share of the dominant clip is ``max(w, 1 - w)`` of ``w`` from Beta(alpha, alpha).
        threshold: largest share that still is a composition. The paper gives neither; with the defaults 41 % of the
            mixtures are compositions.
        probability: of mixing; drawn for every clip where ``draw_per`` is "clip", else once for the batch.
        draw_per: whether one share serves the whole batch, a group or a clip.
    """

    def __init__(
        self, alpha: float = 0.5, threshold: float = 0.8, probability: float = 1.0, draw_per: DrawPer = "clip"
    ) -> None:
        super().__init__(alpha, alpha, probability, draw_per, fold=True)
        if not 0 <= threshold <= 1:
            raise ValueError(f"the threshold lies in [0, 1], not {threshold}")
        self.threshold = threshold

    def target_weights(self, weights: Tensor) -> Tensor:
        """The same shares for compositions, 1 for perturbations; the threshold itself is a composition."""
        return weights.masked_fill(weights > self.threshold, 1.0)


def draw_partners(groups: Tensor, generator: Generator | None = None) -> Tensor:
    """A random permutation that keeps every clip within its group, and none in its place that is not alone there.

    Args:
        groups: whole numbers on the CPU, ``(batch,)``; clips of a negative group keep themselves.
        generator: torch's global CPU generator when None.

    Returns:
        Index of every clip's partner, ``(batch,)``.
    """
    shuffled = torch.randperm(len(groups), generator=generator)
    order = shuffled[groups[shuffled].argsort(stable=True)]  # by group, in random order inside each
    partners = torch.empty(len(groups), dtype=torch.long)
    partners[order] = _cycle_within(groups[order], order)
    return torch.where(groups < 0, torch.arange(len(groups)), partners)


def _cycle_within(sorted_groups: Tensor, order: Tensor) -> Tensor:
    """The next element of ``order`` in the same group, the first one after the last: one cycle through each group."""
    position = torch.arange(len(order))
    is_first = torch.ones(len(order), dtype=torch.bool)
    is_first[1:] = sorted_groups[1:] != sorted_groups[:-1]
    first = torch.where(is_first, position, 0).cummax(dim=0).values
    is_last = is_first.roll(-1)
    return order[torch.where(is_last, first, position + 1)]


def _per_clip(weights: Tensor, values: Tensor) -> Tensor:
    return weights.to(values.device).view(-1, *[1] * (values.ndim - 1))
