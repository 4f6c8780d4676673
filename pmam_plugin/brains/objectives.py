"""Loss terms of semi-supervised fine-tuning, each a small object that YAML lists.

A term maps a :class:`StepState` to named losses, so that every part of the objective has its own curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from pmam_plugin.augment import MixPlan
from pmam_plugin.brains.parts import WHOLE, Rows
from pmam_plugin.brains.schedules import Ramp
from pmam_plugin.config import configurable
from pmam_plugin.data import Batch
from pmam_plugin.losses.contrast import embedding_contrast
from pmam_plugin.losses.semi_supervised import consistency, masked_mean, supervised_bce
from pmam_plugin.models import Detection
from pmam_plugin.nn.ema import EMATeacher


@dataclass
class StepState:
    """Everything a loss term may look at: what the networks say of some clips, and what is known of the whole batch.

    A term is the part's share of the loss of the whole batch: what it sums over these clips, divided by what there is
    in all (:func:`~pmam_plugin.losses.semi_supervised.masked_mean` with :attr:`rows`).

    Attributes:
        student: predictions on the student's view, of the clips ``rows``.
        teacher: predictions on the teacher's view of the same clips, without gradient; None without a teacher.
        targets: of the whole batch: mixed labels ``strong`` ``(batch, frames, classes)``, ``weak`` ``(batch,
            classes)``; ``padding``, true where a frame is padding, ``(batch, frames)``; of several corpora also
            ``annotated`` ``(batch, classes)``; of mixtures what :func:`~pmam_plugin.brains.views.partners_of` says.
        batch: the clips, with ``has_strong`` and ``has_weak``.
        plan: how clips were mixed; None where they were not.
        modules: trained modules by name, wrapped for distributed training.
        teacher_mixed: the teacher saw the mixture too, not the clean clips.
        answers: what the teacher says of the whole batch, as far as terms ask for it (:meth:`Objective.of_batch`); None
            where the part is the whole.
        rows: which clips of the batch the predictions are of.
    """

    student: Detection
    teacher: Detection | None
    targets: Mapping[str, Tensor]
    batch: Batch
    plan: MixPlan | None
    modules: Mapping[str, nn.Module]
    teacher_mixed: bool = False
    answers: Mapping[str, Tensor] | None = None
    rows: Rows = field(default_factory=lambda: WHOLE)

    @property
    def share(self) -> float:
        """The part's share of the clips."""
        return len(self.student.clips) / len(self.batch)

    def answers_for(self, objective: Objective) -> Mapping[str, Tensor]:
        """What a term asked for of the teacher's answers to the whole batch."""
        return objective.of_batch(_teacher_of(self)) if self.answers is None else self.answers

    def mixed(self, answers: Tensor) -> Tensor:
        """The teacher's answers to the whole batch, ``(batch, ...)``, mixed as the clips of the part are."""
        if self.plan is None:
            return answers[self.rows]
        plan = self.plan.part(self.rows)
        return plan.blend_targets(answers[self.rows], answers[plan.partners])

    @property
    def valid_frames(self) -> Tensor:
        """1 where a frame is sound, 0 where it is padding, ``(batch, frames)``, of the whole batch."""
        return (~self.targets["padding"]).float()


class Objective(Protocol):
    """A loss term (or a few that belong together).

    Attributes:
        uses_teacher: whether the term looks at the teacher; where none does, the teacher only averages weights.
    """

    uses_teacher: bool

    def of_batch(self, teacher: Detection) -> dict[str, Tensor]:
        """What of the teacher's answers is to be known of the whole batch, not of a part alone, ``(clips, ...)`` each.

        Terms that mix answers need those to other clips; names mean the same in all terms. May be absent.
        """

    def __call__(self, state: StepState, step: int, steps_per_epoch: int) -> dict[str, Tensor]:
        """Named, weighted losses; their sum is minimised."""


@configurable
class Supervised:
    """``BCE(frames) on strong clips + clip_weight BCE(clips) + tag_weight BCE(tags) on weak clips``.

    Of clips of several corpora each teaches the classes that its corpus annotates, and no others.

    Args:
        clip_weight: of the pooled clip scores.
        tag_weight: of the tag branch, where the model has one.
        ignore_partner: of a perturbed clip (conditional mixup), leave out the classes that sound in the added clip
            alone, where it is loud enough to be heard: their target says "absent" of a sound that is there. False is
            the plain arithmetic of the target.
        partner_decibels: how loud, beside the clip itself, an added clip must be for that, dB.
    """

    uses_teacher = False

    def __init__(
        self,
        clip_weight: float = 0.5,
        tag_weight: float = 0.0,
        ignore_partner: bool = True,
        partner_decibels: float = -20.0,
    ) -> None:
        self.clip_weight, self.tag_weight = clip_weight, tag_weight
        self.ignore_partner, self.partner_decibels = ignore_partner, partner_decibels

    def __call__(self, state: StepState, step: int, steps_per_epoch: int) -> dict[str, Tensor]:
        """See :class:`Objective`."""
        weak = state.batch.has_weak & ~state.batch.has_strong
        in_frames = (state.batch.has_strong.float().unsqueeze(1) * state.valid_frames).unsqueeze(2)
        in_clips = weak.float().unsqueeze(1)
        if self.ignore_partner:
            in_frames = in_frames * ~self._only_in_partner(state, "strong", "partner_level")
            in_clips = in_clips * ~self._only_in_partner(state, "weak", "partner_clip_level")
        if "annotated" in state.targets:
            in_frames = in_frames * state.targets["annotated"].unsqueeze(1)
            in_clips = in_clips * state.targets["annotated"]
        rows, strong, weak_targets = state.rows, state.targets["strong"], state.targets["weak"]
        in_frames, in_clips = in_frames.expand_as(strong), in_clips.expand_as(weak_targets)
        losses = {"strong_bce": supervised_bce(state.student.frames, strong[rows], in_frames, rows)}
        for name, predicted, weight in (
            ("clip_bce", state.student.clips, self.clip_weight),
            ("tag_bce", state.student.tags, self.tag_weight),
        ):
            if weight and predicted is not None:
                losses[name] = weight * supervised_bce(predicted, weak_targets[rows], in_clips, rows)
        return losses

    def _only_in_partner(self, state: StepState, name: str, level: str) -> Tensor:
        """Cells where a perturbing clip is heard with a class that the target leaves out, ``(batch, ..., classes)``."""
        target = state.targets[name]
        if state.plan is None or f"partner_{name}" not in state.targets:
            return torch.zeros_like(target, dtype=torch.bool)
        heard = state.targets[level].unsqueeze(-1) > self.partner_decibels
        perturbed = state.plan.perturbation.view(-1, *[1] * (target.ndim - 1))
        return perturbed & heard & (state.targets[f"partner_{name}"] > target)


@configurable
class Consistency:
    """Mean teacher: squared difference of student and teacher on all clips, both on the same mixture.

    ``ramp * (MSE(frames) + clip_weight MSE(clips, teacher's clip scores) + tag_weight MSE(tags))``. PMAM pulls the
    student's pooled clip score to the teacher's *tag branch*, which is the better tagger (``clip_target: tags``).

    Args:
        ramp: weight over time; with a maximum of 0 nothing is computed.
        clip_weight, tag_weight: of the clip-level terms.
        clip_target: teacher score that the pooled score follows, ``clips`` or ``tags``.
    """

    def __init__(
        self, ramp: Ramp, clip_weight: float = 0.5, tag_weight: float = 0.0, clip_target: str = "clips"
    ) -> None:
        _check_clip_target(clip_target)
        self.ramp, self.clip_weight, self.tag_weight, self.clip_target = ramp, clip_weight, tag_weight, clip_target
        self.uses_teacher = ramp.maximum != 0

    def __call__(self, state: StepState, step: int, steps_per_epoch: int) -> dict[str, Tensor]:
        """See :class:`Objective`."""
        if not self.uses_teacher:
            return {}
        student, teacher = state.student, _teacher_of(state)
        weight = self.ramp.value(step, steps_per_epoch)
        loss = consistency(student.frames, teacher.frames, state.valid_frames, state.rows)
        followed = teacher.clips if self.clip_target == "clips" or teacher.tags is None else teacher.tags
        clips = self.clip_weight * consistency(student.clips, followed)
        if self.tag_weight and student.tags is not None and teacher.tags is not None:
            clips = clips + self.tag_weight * consistency(student.tags, teacher.tags)
        return {"consistency": weight * (loss + state.share * clips)}


@configurable
class MixedPseudoLabels:
    """The student on a mixture against the mixture of the teacher's answers to the clean clips.

    ``q = w* T(x_i) + (1 - w*) T(x_j)`` with the target weights of the mixing plan. Perturbed clips (w* = 1) give the
    mean-teacher loss, composed ones interpolation consistency (ATST-SED stage 2; ATST-SEDv2's pseudo-label losses).
    Both are averages over all clips of the batch, so how often a mode occurs is part of its weight.

    Args:
        mean_teacher: ramp of the perturbation part (ATST-SED: 70).
        interpolation: ramp of the composition part (ATST-SED: 8.75). With both maxima 0 nothing is computed.
        clip_weight, tag_weight, clip_target: of the clip-level scores, as for :class:`Consistency`.
    """

    def __init__(
        self,
        mean_teacher: Ramp,
        interpolation: Ramp,
        clip_weight: float = 0.5,
        tag_weight: float = 0.0,
        clip_target: str = "clips",
    ) -> None:
        _check_clip_target(clip_target)
        self.mean_teacher, self.interpolation, self.clip_weight = mean_teacher, interpolation, clip_weight
        self.tag_weight, self.clip_target = tag_weight, clip_target
        self.uses_teacher = mean_teacher.maximum != 0 or interpolation.maximum != 0

    def of_batch(self, teacher: Detection) -> dict[str, Tensor]:
        """See :class:`Objective`."""
        answers = {"frames": teacher.frames, "clips": teacher.clips, "tags": teacher.tags}
        return {name: value.detach() for name, value in answers.items() if value is not None}

    def __call__(self, state: StepState, step: int, steps_per_epoch: int) -> dict[str, Tensor]:
        """See :class:`Objective`."""
        if not self.uses_teacher:
            return {}
        if state.plan is not None and state.teacher_mixed:
            raise ValueError("the teacher saw mixtures, whose answers cannot be mixed again; set mix_teacher: false")
        student, answers, mixed = state.student, state.answers_for(self), state.mixed
        frames, valid = mixed(answers["frames"]), state.valid_frames[state.rows]
        composed = frames.new_zeros(len(frames))
        if state.plan is not None:
            composed = state.plan.composition[state.rows].to(frames.dtype)
        per_clip = ((student.frames.float() - frames).square().mean(-1) * valid).sum(1)
        per_clip = per_clip / valid.sum(1).clamp_min(1)
        followed = mixed(answers[self.clip_target if self.clip_target in answers else "clips"])
        per_clip = per_clip + self.clip_weight * (student.clips.float() - followed).square().mean(-1)
        if self.tag_weight and student.tags is not None and "tags" in answers:
            tags = mixed(answers["tags"])
            per_clip = per_clip + self.tag_weight * (student.tags.float() - tags).square().mean(-1)
        of_mode = {"perturbation": 1 - composed, "composition": composed}
        ramps = {"perturbation": self.mean_teacher, "composition": self.interpolation}
        return {
            name: ramps[name].value(step, steps_per_epoch) * state.share * (per_clip * chosen).mean()
            for name, chosen in of_mode.items()
        }


@configurable
class EmbeddingContrast:
    """ATST-SEDv2's embedding-level loss between the student's mixture and the teacher's clean clips.

    ``ramp * mean over clips of [w* d(p, z_i) + (1 - w*) d(p, z_j)]``, ``d = 2 - 2 cos``, ``p`` the predictor of the
    projector of the student's frame embeddings, ``z`` the averaged projector of the teacher's; where the teacher sees
    the mixture too, it is ``d(p, z_i)``. Projector and predictor serve training only; the exported model does not hold
    them. Their batch norm never sees padded frames. With a ramp to 0 there are no heads. The paper says neither which
    embedding nor which clips: arguments.

    Args:
        projector: ``(frames, dim) -> (frames, projected)``.
        predictor: on top of it, student only.
        ramp: weight over time.
        target: how compositions pull, ``sum`` or ``interp``.
        momentum: of the teacher's projector.
        layer: embeddings that are compared: ``context``, what the head sees, the only level that both systems of the
            paper share; or ``encoder``, what the context network reads, closest to ATST-Frame's pre-training.
        clips: ``all`` or ``unlabelled``, those that no label teaches.
        warm_up: only the heads learn, the model does not: for a first stage on a frozen encoder, after which the
            second stage's contrast has heads that mean something. They are handed on.
    """

    def __init__(
        self,
        projector: nn.Module,
        predictor: nn.Module,
        ramp: Ramp,
        target: Literal["sum", "interp"] = "sum",
        momentum: float = 0.999,
        layer: Literal["context", "encoder"] = "context",
        clips: Literal["all", "unlabelled"] = "all",
        warm_up: bool = False,
    ) -> None:
        for name, value, known in (("layer", layer, ("context", "encoder")), ("clips", clips, ("all", "unlabelled"))):
            if value not in known:
                raise ValueError(f"{name} is {' or '.join(known)}, not {value!r}")
        self.projector, self.predictor, self.ramp, self.target = projector, predictor, ramp, target
        self.layer, self.clips, self.warm_up = layer, clips, warm_up
        self.teacher = EMATeacher(projector, decay=momentum)
        self.uses_teacher = ramp.maximum != 0

    def of_batch(self, teacher: Detection) -> dict[str, Tensor]:
        """See :class:`Objective`."""
        return {self.layer: self._embeddings(teacher)}

    def trainables(self) -> dict[str, nn.Module]:
        """Heads the optimiser updates."""
        return {"projector": self.projector, "predictor": self.predictor} if self.uses_teacher else {}

    def recoverables(self) -> dict[str, Any]:
        """What a checkpoint holds beside the heads."""
        return {"teacher_projector": self.teacher} if self.uses_teacher else {}

    def after_update(self) -> None:
        """The teacher's projector follows."""
        self.teacher.update(self.projector)

    def __call__(self, state: StepState, step: int, steps_per_epoch: int) -> dict[str, Tensor]:
        """See :class:`Objective`."""
        weight = self.ramp.value(step, steps_per_epoch)
        if not weight:
            return {}
        student, teacher = self._embeddings(state.student), state.answers_for(self)[self.layer]
        if self.warm_up:
            student = student.detach()
        # The teacher's projector sees the whole batch: its batch norm, and clips that others are mixed with.
        sound = ~state.targets["padding"]
        plan = None if state.plan is None or state.teacher_mixed else state.plan.part(state.rows)
        valid = sound[state.rows]
        predicted = state.modules["predictor"](state.modules["projector"](student[valid].float()))
        target = self.teacher.model(teacher[sound].float()).detach()
        per_clip = embedding_contrast(
            predicted.new_zeros(*valid.shape, predicted.shape[-1]).masked_scatter(valid.unsqueeze(-1), predicted),
            target.new_zeros(*sound.shape, target.shape[-1]).masked_scatter(sound.unsqueeze(-1), target),
            weights=None if plan is None else plan.target_weights,
            partners=None if plan is None else plan.partners,
            composition=self.target,
            padding=~valid,
            rows=state.rows,
        )
        counted = torch.ones_like(state.batch.has_weak) if self.clips == "all" else ~state.batch.has_weak
        return {"contrast": weight * masked_mean(per_clip, counted, state.rows)}

    def _embeddings(self, detection: Detection) -> Tensor:
        embedding = detection.embedding if self.layer == "context" else detection.encoded
        if embedding is None:
            raise ValueError(f"the embedding contrast needs a model that returns the embeddings of its {self.layer}")
        return embedding


def _teacher_of(state: StepState) -> Detection:
    if state.teacher is None:
        raise ValueError("this loss term needs a teacher; give the stage one or remove the term")
    return state.teacher


def _check_clip_target(clip_target: str) -> None:
    if clip_target not in ("clips", "tags"):
        raise ValueError(f"clip_target is clips or tags, not {clip_target!r}")
