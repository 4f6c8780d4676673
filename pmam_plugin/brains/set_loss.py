"""The set loss of SEDT as a loss term of the shared fine-tuning Brain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pmam_plugin.brains.objectives import StepState
from pmam_plugin.brains.schedules import Ramp
from pmam_plugin.config import configurable
from pmam_plugin.data import Batch
from pmam_plugin.losses.event_targets import EventTargets, EventTotal
from pmam_plugin.losses.matcher import OneToManyMatcher
from pmam_plugin.losses.semi_supervised import supervised_bce
from pmam_plugin.losses.set_criterion import SetCriterion
from pmam_plugin.models import Detection, SetDetection, SoundEventModel
from pmam_plugin.nn.pooling import linear_softmax_pool
from pmam_plugin.nn.set_output import SetOutput


@configurable
class SetLoss:
    """Match queries with events and compare them (:class:`~pmam_plugin.losses.set_criterion.SetCriterion`).

    Events are read off the frame labels, so that everything that moves or mixes labels (frame shift, mixup) moves and
    mixes events; a mixed clip's events weigh as much as their share. Clips with tags alone teach the audio query.

    Args:
        criterion: matcher, weights and kind of the loss.
        frame_weight: of the frame head's BCE on strong clips, and of its pooled scores' on weak ones; 0 without one.
    """

    uses_teacher = False

    def __init__(self, criterion: SetCriterion, frame_weight: float = 0.0) -> None:
        self.criterion, self.frame_weight = criterion, frame_weight

    def student_inputs(self, model: SoundEventModel, batch: Batch, targets: Mapping[str, Tensor]) -> dict[str, Any]:
        """What the student's forward takes besides features: the events, where it learns to mend noised ones."""
        if not getattr(model, "denoising", 0):
            return {}
        span = model.clip_seconds * model.frame_rate
        return {"targets": _events(targets, batch, span)}

    def __call__(self, state: StepState, step: int, steps_per_epoch: int) -> dict[str, Tensor]:
        """See :class:`~pmam_plugin.brains.objectives.Objective`: the last layer's terms, the other layers in one.

        Raises:
            TypeError: the model does not predict sets.
        """
        detection = _set_of(state.student)
        if isinstance(self.criterion.matcher, OneToManyMatcher):
            self.criterion.matcher.at(step / steps_per_epoch)
        events, rows = _events(state.targets, state.batch, detection.span_frames), state.rows
        terms = _terms(self.criterion, detection.output, events[rows], events.total())
        if self.frame_weight:
            if detection.followed is None:
                raise TypeError("frame_weight trains a frame head; give the model frame_head: true")
            strong = state.batch.has_strong.float().unsqueeze(1) * state.valid_frames
            weak = (state.batch.has_weak & ~state.batch.has_strong).float()
            for name, predicted, target, counted in (
                ("frame_bce", detection.followed, state.targets["strong"], strong),
                ("frame_clip_bce", linear_softmax_pool(detection.followed), state.targets["weak"], weak),
            ):
                terms[name] = self.frame_weight * supervised_bce(predicted, target[rows], counted, rows)
        return terms


@configurable
class PseudoEvents:
    """Hard pseudo-events of the mean teacher, for the clips that no label teaches (the authors' best SEDT).

    The teacher's events by the published protocol (its class probability and its tag at least ``threshold``) are
    matched with the student's queries like labels.

    Args:
        criterion: matcher, weights and kind of the loss.
        ramp: weight over time.
        threshold: least probability of a pseudo-event and of its tag.
    """

    def __init__(self, criterion: SetCriterion, ramp: Ramp, threshold: float = 0.5) -> None:
        self.criterion, self.ramp, self.threshold = criterion, ramp, threshold
        self.uses_teacher = ramp.maximum != 0

    def of_batch(self, teacher: Detection) -> dict[str, Tensor]:
        """See :class:`~pmam_plugin.brains.objectives.Objective`."""
        output = _set_of(teacher).output
        assert teacher.tags is not None
        return {"queries": output.probabilities(), "boxes": output.boxes.detach().float(), "tags": teacher.tags}

    def __call__(self, state: StepState, step: int, steps_per_epoch: int) -> dict[str, Tensor]:
        """See :class:`~pmam_plugin.brains.objectives.Objective`."""
        if not self.uses_teacher or state.teacher is None:
            return {}
        student, teacher = _set_of(state.student).output, state.answers_for(self)
        unlabelled = ~state.batch.has_weak
        boxes, tags = teacher["boxes"], teacher["tags"]
        score, label = (teacher["queries"] * (tags.unsqueeze(1) >= self.threshold)).max(dim=-1)
        sure = (score >= self.threshold) & unlabelled[:, None]
        events = [
            (label[clip][sure[clip]], boxes[clip][sure[clip]]) if known else None
            for clip, known in enumerate(unlabelled.tolist())
        ]
        targets = EventTargets.from_events(
            [None if item is None else (item[0].cpu(), item[1].cpu()) for item in events], tags.shape[1]
        ).to(boxes.device)
        # Noised queries belong to the labels' events, not to these.
        output = replace(student, denoising=None)
        terms = _terms(self.criterion, output, targets[state.rows], targets.total())
        return {"pseudo_events": self.ramp.value(step, steps_per_epoch) * torch.stack(list(terms.values())).sum()}


def _set_of(detection: Detection) -> SetDetection:
    if not isinstance(detection, SetDetection):
        raise TypeError("the set loss trains models that predict sets (SEDT); use Supervised for frame scores")
    return detection


def _events(targets: Mapping[str, Tensor], batch: Batch, span_frames: float) -> EventTargets:
    return EventTargets.from_frames(targets["strong"], span_frames, batch.has_strong, targets["weak"], batch.has_weak)


def _terms(criterion: SetCriterion, output: SetOutput, targets: EventTargets, whole: EventTotal) -> dict[str, Tensor]:
    losses = criterion(output, targets, whole)
    terms = {
        f"set_{name}": criterion.weights[name] * value
        for name, value in losses.parts.items()
        if name in criterion.weights
    }
    terms["set_auxiliary"] = losses.total - sum(terms.values())
    return terms
