"""The set criterion: class, interval, clip-tag and feature losses of matched queries, for every decoder layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmam_plugin.config import configurable
from pmam_plugin.losses.event_targets import PADDING, EventTargets, EventTotal
from pmam_plugin.losses.matcher import HungarianMatcher, Match, OneToManyMatcher
from pmam_plugin.nn.intervals import box_edges, interval_iou
from pmam_plugin.nn.set_output import SetOutput


@dataclass
class SetLosses:
    """What the criterion returns.

    Attributes:
        total: weighted sum over all terms and layers, scalar.
        parts: the terms before weighting: ``class, l1, iou, feature, clip`` of the last layer and ``class_0`` ... of
            the auxiliary ones.
    """

    total: Tensor
    parts: dict[str, Tensor]


def feature_distance(predicted: Tensor, true: Tensor) -> Tensor:
    """Squared distance of L2-normalised features (UP-DETR, eq. 2), ``(..., dim) -> (...)``, in [0, 4]."""
    difference = functional.normalize(predicted.float(), dim=-1) - functional.normalize(true.float(), dim=-1)
    return difference.square().sum(dim=-1)


@configurable
class SetCriterion(nn.Module):
    """Loss of a set prediction (SEDT, section 3.3; SP-SEDT, section 2.2).

    The total is ``sum over layers of (class, l1, iou, feature, each times its weight) + clip_weight * clip``. Terms
    of matched pairs are sums divided by the number of pairs (their shares summed, and at least 1, so that a batch
    without events has a finite loss). A clip whose events are unknown adds to the clip loss alone.

    Args:
        matcher: assigns queries to events.
        class_weight: weight of the class loss.
        l1_weight: weight of ``|onset error| + |offset error|``.
        iou_weight: weight of ``1 - IoU``, the generalised one.
        clip_weight: weight of the clip-level BCE of the audio query (DESED recipe 0.25).
        feature_weight: weight of the feature reconstruction (pre-training only).
        no_object_weight: weight of unmatched queries in the cross-entropy.
        normalise_by: what divides the cross-entropy: ``"weights"``, the weights of its queries, as in DETR, or
            ``"matches"``, the number of pairs, as published for SEDT; then its scale depends on how many events
            the batch holds (about 1.6 times larger at three events for twenty queries).

    Raises:
        ValueError: an unknown ``normalise_by``.
    """

    def __init__(
        self,
        matcher: HungarianMatcher | OneToManyMatcher | None = None,
        class_weight: float = 1.0,
        l1_weight: float = 5.0,
        iou_weight: float = 2.0,
        clip_weight: float = 1.0,
        feature_weight: float = 1.0,
        no_object_weight: float = 0.1,
        normalise_by: str = "weights",
    ) -> None:
        super().__init__()
        if normalise_by not in ("weights", "matches"):
            raise ValueError(f"normalise_by is weights or matches, not {normalise_by!r}")
        self.matcher = matcher or HungarianMatcher()
        self.weights = {
            "class": class_weight,
            "l1": l1_weight,
            "iou": iou_weight,
            "feature": feature_weight,
            "clip": clip_weight,
        }
        self.no_object_weight = no_object_weight
        self.normalise_by = normalise_by

    def forward(self, output: SetOutput, targets: EventTargets, whole: EventTotal | None = None) -> SetLosses:
        """Match and compare.

        Args:
            output: predictions.
            targets: events and tags of the same clips, on the same device.
            whole: what the whole batch holds, where these clips are a part of it; the losses are then the part's shares
                of the batch's. How many pairs the batch has is told from how many this part has of its events, which
                is exact where every event is matched once.
        """
        matches, whole = self.matcher(output, targets), whole or targets.total()
        last = len(matches) - 1
        parts: dict[str, Tensor] = {}
        for layer, match in enumerate(matches):
            suffix = "" if layer == last else f"_{layer}"
            for name, value in self._layer(output, targets, whole, match, layer).items():
                parts[name + suffix] = value
        if output.denoising is not None:
            match = _denoised(output.denoising, targets)
            for layer in range(len(output.denoising.layer_boxes)):
                terms = self._layer(output.denoising, targets, whole, match, layer, only_matched=True)
                for name, value in terms.items():
                    parts[f"{name}_noised{layer}"] = value
        if output.tag_logits is not None:
            parts["clip"] = self._clip(output, targets, whole)
        weighted = [self.weights[name.partition("_")[0]] * value for name, value in parts.items()]
        return SetLosses(torch.stack(weighted).sum(), parts)

    def _layer(
        self,
        output: SetOutput,
        targets: EventTargets,
        whole: EventTotal,
        match: Match,
        layer: int,
        only_matched: bool = False,
    ) -> dict[str, Tensor]:
        elsewhere = _elsewhere(whole, targets, match)
        pairs = (match.weight.sum() + elsewhere.shares).clamp_min(1.0)
        chosen, wanted = (layer, match.clip, match.query), (match.clip, match.target)
        predicted = box_edges(output.layer_boxes[chosen].float())
        true = box_edges(targets.boxes[wanted].float())
        distance = (predicted - true).abs().sum(dim=-1)
        overlap = interval_iou(predicted, true, generalised=True)
        parts = {
            "class": self._class(output.layer_logits[layer], targets, match, pairs, elsewhere, only_matched),
            "l1": (distance * match.weight).sum() / pairs,
            "iou": ((1 - overlap) * match.weight).sum() / pairs,
        }
        if output.layer_features is not None and targets.features is not None:
            distances = feature_distance(output.layer_features[chosen], targets.features[wanted])
            parts["feature"] = (distances * match.weight).sum() / pairs
        return parts

    def _class(
        self,
        logits: Tensor,
        targets: EventTargets,
        match: Match,
        pairs: Tensor,
        elsewhere: EventTotal,
        only_matched: bool,
    ) -> Tensor:
        """Cross-entropy over classes and no-object (the last column), which is the common case and counts less."""
        queries, unmatched_weight = logits.shape[1], 0.0 if only_matched else self.no_object_weight
        matched = (match.clip, match.query)
        weights = (targets.strong.float() * unmatched_weight)[:, None].repeat(1, queries)
        weights[matched] = match.weight.float()
        classes = torch.full_like(weights, logits.shape[-1] - 1, dtype=torch.long)
        classes[matched] = targets.labels[match.clip, match.target]
        losses = functional.cross_entropy(logits.flatten(0, 1).float(), classes.flatten(), reduction="none")
        total = (losses * weights.flatten()).sum()
        if self.normalise_by == "matches":
            return total / pairs
        unmatched = elsewhere.clips * queries - elsewhere.events
        return total / (weights.sum() + (elsewhere.shares + unmatched_weight * unmatched)).clamp_min(1e-6)

    def _clip(self, output: SetOutput, targets: EventTargets, whole: EventTotal) -> Tensor:
        assert output.tag_logits is not None
        logits, tags = output.tag_logits.float(), targets.tags.float()
        losses = functional.binary_cross_entropy_with_logits(logits, tags, reduction="none").mean(dim=-1)
        tagged = targets.tagged.float()
        return (losses * tagged).sum() / whole.tagged.clamp_min(1.0)


def _denoised(output: SetOutput, targets: EventTargets) -> Match:
    """Queries that start from noised events, group by group in the order of the slots, belong to those events."""
    slots = targets.labels.shape[1]
    groups = output.boxes.shape[1] // max(1, slots)
    real = ((targets.labels != PADDING) & targets.strong[:, None]).repeat(1, groups)
    clip, query = real.nonzero(as_tuple=True)
    return Match(clip, query, query % slots, targets.weights[clip, query % slots])


def _elsewhere(whole: EventTotal, targets: EventTargets, match: Match) -> EventTotal:
    """Clips, pairs and shares of pairs in the rest of the batch, whose events are matched as often as these are."""
    here = targets.total()
    clips, events, shares = whole.clips - here.clips, whole.events - here.events, whole.shares - here.shares
    pairs = torch.where(here.events > 0, len(match.clip) * events / here.events.clamp_min(1), events)
    ratio = torch.where(here.shares > 0, match.weight.sum() / here.shares.clamp_min(1e-6), 1.0)
    return EventTotal(clips, whole.tagged - here.tagged, pairs, ratio * shares)
