"""Which query is to predict which event: one-to-one (Hungarian) and one-to-many assignment."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pmam_plugin.config import configurable
from pmam_plugin.losses.event_targets import PADDING, EventTargets
from pmam_plugin.nn.intervals import box_edges, interval_iou
from pmam_plugin.nn.set_output import SetOutput

logger = logging.getLogger(__name__)


@dataclass
class Match:
    """Pairs of queries and events of a whole batch, ordered by clip and query.

    Attributes:
        clip: clip of each pair, ``(pairs,)``.
        query: its query.
        target: its slot in :class:`EventTargets`.
        weight: its share in the loss: the event's weight.
    """

    clip: Tensor
    query: Tensor
    target: Tensor
    weight: Tensor


@configurable
class HungarianMatcher:
    """The cheapest one-to-one assignment of events to queries (Carion et al., ECCV 2020, eq. 1, in one dimension).

    Cost of a pair: ``l1 * (|onset error| + |offset error|) - class * p(class) - iou * IoU``. The L1 distance is
    taken on the edges, as the SEDT implementation does, and not on (centre, length) as its paper writes.
    The costs of all decoder layers go to the CPU in one transfer.

    Args:
        class_cost: weight of the class term.
        l1_cost: weight of the L1 term.
        iou_cost: weight of the term of the generalised IoU.
    """

    def __init__(self, class_cost: float = 1.0, l1_cost: float = 5.0, iou_cost: float = 2.0) -> None:
        self.class_cost, self.l1_cost, self.iou_cost = class_cost, l1_cost, iou_cost

    @torch.no_grad()
    def __call__(self, output: SetOutput, targets: EventTargets) -> list[Match]:
        """Match every decoder layer.

        Args:
            output: predictions of ``layers`` decoder layers.
            targets: events; clips that are not strong match nothing. Events beyond the number of queries of a clip
                stay unmatched (the cheapest ones are kept), with a warning.

        Returns:
            One :class:`Match` per layer, on the device of the predictions.
        """
        cost = self.location_cost(output.layer_boxes, targets) + self.label_cost(output, targets)
        if targets.eligible is not None:
            cost = cost.masked_fill(~targets.eligible, 1e6)
        # A diverged model shall fail as a loss that is not finite, not as an assignment that is infeasible.
        costs = cost.nan_to_num(nan=1e6, posinf=1e6, neginf=-1e6).cpu().numpy()
        counts = (targets.counts * targets.strong).tolist()
        queries = costs.shape[2]
        if counts and max(counts) > queries:
            logger.warning("a clip has %d events for %d queries; some stay unmatched", max(counts), queries)
        matches = []
        for layer in costs:
            pairs = [
                (clip, query, event)
                for clip, count in enumerate(counts)
                for query, event in zip(*linear_sum_assignment(layer[clip, :, :count]))
            ]
            clip_of, query_of, target_of = torch.tensor(pairs, dtype=torch.long).view(-1, 3).T.to(targets.labels.device)
            matches.append(Match(clip_of, query_of, target_of, targets.weights[clip_of, target_of]))
        return matches

    def location_cost(self, boxes: Tensor, targets: EventTargets) -> Tensor:
        """Cost of where an event is, ``(..., batch, queries, slots)``, for boxes ``(..., batch, queries, 2)``."""
        predicted = box_edges(boxes.float()).unsqueeze(-2)
        true = box_edges(targets.boxes.float()).unsqueeze(-3)
        distance = (predicted - true).abs().sum(dim=-1)
        return self.l1_cost * distance - self.iou_cost * interval_iou(predicted, true, generalised=True)

    def label_cost(self, output: SetOutput, targets: EventTargets) -> Tensor:
        """Cost of what an event is, ``(layers, batch, queries, slots)``."""
        cost = -output.layer_logits.float().softmax(dim=-1)
        index = targets.labels.clamp_min(0)[None, :, None, :].expand(*cost.shape[:3], -1)
        return self.class_cost * cost.gather(-1, index)


@configurable
class OneToManyMatcher:
    """Several queries per event in the last layer: a late training stage against missed events (SEDT, section 3.4).

    Every one-to-one pair stays. A free query joins the event that is cheapest for it in place and class if it lies
    near that event (location cost below ``near``), with probability ``min(1, keep * events / queries)``.

    Args:
        matcher: of the one-to-one pairs; its costs are those of joining.
        near: largest location cost (L1 and IoU terms) of a joining query.
        keep: scales the probability of joining.
        anneal_epochs: in that many epochs ``keep`` falls to 0 along a line, so that training ends one-to-one, as scores
            are read; 0 keeps it.
        published: assign as the reference implementation does: by place alone, whatever the query's class, and
            dropping one-to-one pairs that are not near any event. For reproducing published training only.
    """

    def __init__(
        self,
        matcher: HungarianMatcher | None = None,
        near: float = 1.0,
        keep: float = 1.0,
        published: bool = False,
        anneal_epochs: float = 0.0,
    ) -> None:
        self.base = matcher or HungarianMatcher()
        self.near, self.keep, self.published, self.anneal_epochs = near, keep, published, anneal_epochs
        self.remaining = 1.0

    def at(self, epochs: float) -> None:
        """Set how far training is, in epochs, for ``anneal_epochs``."""
        self.remaining = max(0.0, 1.0 - epochs / self.anneal_epochs) if self.anneal_epochs else 1.0

    @torch.no_grad()
    def __call__(self, output: SetOutput, targets: EventTargets) -> list[Match]:
        """Match every decoder layer, the last one with several queries per event.

        Draws from torch's global CPU generator. Clips without events get no pairs.
        """
        matches = self.base(output, targets)
        if targets.labels.shape[1]:
            matches[-1] = self._join(output, targets, matches[-1])
        return matches

    def _join(self, output: SetOutput, targets: EventTargets, one_to_one: Match) -> Match:
        unusable = ((targets.labels == PADDING) | ~targets.strong[:, None])[:, None]
        if targets.eligible is not None:
            unusable = unusable | ~targets.eligible
        location = self.base.location_cost(output.boxes, targets).masked_fill(unusable, torch.inf)
        cost = location if self.published else location + self.base.label_cost(output, targets)[-1]
        nearest = cost.argmin(dim=-1)
        near = location.gather(-1, nearest.unsqueeze(-1)).squeeze(-1) < self.near
        chance = self.keep * self.remaining * targets.counts.to(location.dtype) / location.shape[1]
        joins = near & (torch.rand(near.shape).to(near.device) < chance[:, None])
        assigned = torch.where(joins, nearest, PADDING)
        pairs = (one_to_one.clip, one_to_one.query)
        assigned[pairs] = one_to_one.target
        if self.published:
            assigned[pairs] = torch.where(near[pairs], one_to_one.target, PADDING)
        clip, query = (assigned != PADDING).nonzero(as_tuple=True)
        target = assigned[clip, query]
        return Match(clip, query, target, targets.weights[clip, target])
