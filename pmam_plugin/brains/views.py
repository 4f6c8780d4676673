"""From a batch of waveforms to what student and teacher see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from pmam_plugin.augment import MixPlan
from pmam_plugin.config import configurable
from pmam_plugin.data import Batch
from pmam_plugin.features import FrontEnds

Features = dict[str, Tensor]
Targets = dict[str, Tensor]
Augmentation = Callable[[Features, Targets], tuple[Features, Targets]]


class Mixing(Protocol):
    """Draws who is mixed with whom."""

    def draw(self, groups: Tensor) -> MixPlan | None:
        """A plan for clips of these groups ``(batch,)`` (negative: never mixed), or None for no mixing this time."""


@configurable
class Views:
    """The order in which a batch is mixed and augmented.

    waveform -> [waveform mix] -> power mel -> [power mix] -> log mel -> shared augmentation -> [log mix]
    -> an independent augmentation for each of the two.

    Args:
        shared: applied once, before the views part, to features and labels alike (frame shift).
        mixing: who is mixed with whom; None mixes nothing.
        domain: where mixing happens: ``waveform``, ``power`` or ``features`` (log-mel, the PMAM reference).
        mix_teacher: the teacher sees the mixture too (PMAM); otherwise it sees the clean clips (ATST-SED) and the
            loss mixes its answers.
        mix_unlabelled: unlabelled clips take part (ATST-SED) or stay as they are (PMAM).
        student, teacher: what is drawn for each view on its own.
    """

    def __init__(
        self,
        shared: Augmentation | None = None,
        mixing: Mixing | None = None,
        domain: str = "features",
        mix_teacher: bool = True,
        mix_unlabelled: bool = False,
        student: Augmentation | None = None,
        teacher: Augmentation | None = None,
    ) -> None:
        if domain not in ("waveform", "power", "features"):
            raise ValueError(f"domain is waveform, power or features, not {domain!r}")
        self.shared, self.mixing, self.domain = shared, mixing, domain
        self.mix_teacher, self.mix_unlabelled = mix_teacher, mix_unlabelled
        self.student, self.teacher = student, teacher

    def __call__(self, frontend: FrontEnds, batch: Batch) -> tuple[Features, Features, Targets, MixPlan | None]:
        """Student features, teacher features, targets of the student's view, and the mixing plan.

        The targets are ``strong``, ``weak`` and ``padding``, which is moved and mixed with the rest.
        """
        plan = None if self.mixing is None else self.mixing.draw(self._groups(batch))
        targets = {"strong": batch.strong, "weak": batch.weak, "padding": batch.padding(batch.strong.shape[1])}
        clean = self._features(frontend, batch.waves, None)
        student, teacher = clean, clean
        if plan is not None and self.domain != "features":
            student = self._features(frontend, batch.waves, plan)
            teacher = student if self.mix_teacher else clean
        if self.shared is not None:
            # One draw for both views: replay it from the same generator state.
            state = torch.get_rng_state()
            moved, moved_targets = self.shared(dict(student), dict(targets))
            if teacher is not student:
                torch.set_rng_state(state)
                teacher, _ = self.shared(dict(teacher), dict(targets))
            else:
                teacher = moved
            student, targets = moved, moved_targets
        if plan is not None:
            if self.domain == "features":
                mixed = {name: plan.mix_inputs(value) for name, value in student.items()}
                student, teacher = mixed, mixed if self.mix_teacher else teacher
            targets = {name: plan.mix_targets(value) for name, value in targets.items()}
        if self.student is not None:
            student, _ = self.student(dict(student), {})
        if self.teacher is not None:
            teacher, _ = self.teacher(dict(teacher), {})
        return student, teacher, targets, plan

    def _features(self, frontend: FrontEnds, waves: Tensor, plan: MixPlan | None) -> Features:
        if plan is None:
            return frontend(waves)
        if self.domain == "waveform":
            return frontend(plan.mix_inputs(waves, power=True))
        mixed = {name: plan.mix_inputs(value) for name, value in frontend.power(waves).items()}
        return frontend.scale(mixed)

    def _groups(self, batch: Batch) -> Tensor:
        """0 for strongly labelled clips, 1 for weakly labelled, 2 for unlabelled (or -1: not mixed)."""
        groups = torch.full_like(batch.group, 2 if self.mix_unlabelled else -1)
        groups[batch.has_weak] = 1
        groups[batch.has_strong] = 0
        return groups
