"""From a batch of waveforms to what student and teacher see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from pmam_plugin.augment import Augmentation, Features, MixPlan, Targets
from pmam_plugin.config import configurable
from pmam_plugin.data import Batch
from pmam_plugin.features import FrontEnds


class Mixing(Protocol):
    """Draws who is mixed with whom."""

    def draw(self, groups: Tensor) -> MixPlan | None:
        """A plan for clips of these groups ``(batch,)`` (negative: never mixed), or None for no mixing this time."""


@configurable
class Views:
    """The order in which a batch is shifted, mixed and augmented.

    waveform -> linear mel -> shift -> [power mix] -> scale (logarithm, norm) -> [feature mix] -> one augmentation for
    each view. Shifting comes before mixing, so that clips and partners have moved, sound and labels alike, when they
    meet; it may act on the linear mel, since every scale treats all frames of a clip alike.

    Args:
        shift: moves sound and labels of every clip together (:class:`~pmam_plugin.augment.FrameShift`).
        mixing: who is mixed with whom; None mixes nothing.
        domain: where mixing happens: ``power``, the linear mel before the logarithm, or ``features``, after it (the
            PMAM reference); ``embeddings``: there is no sound, a frozen encoder's stored embeddings are shifted, mixed
            and augmented. What is heard of a partner is then not known.
        mix_teacher: the teacher sees the mixture too (PMAM); otherwise it sees the clean clips (ATST-SED) and the
            loss mixes its answers.
        mix_unlabelled: unlabelled clips take part (ATST-SED) or stay as they are (PMAM).
        both: augments both views at once: one coin per clip (or batch) says for both whether, each view draws its own
            how (ATST-SED's frequency warp).
        student, teacher: what is drawn for each view on its own.
    """

    def __init__(
        self,
        shift: Augmentation | None = None,
        mixing: Mixing | None = None,
        domain: str = "features",
        mix_teacher: bool = True,
        mix_unlabelled: bool = False,
        student: Augmentation | None = None,
        teacher: Augmentation | None = None,
        both: Augmentation | None = None,
    ) -> None:
        if domain not in ("power", "features", "embeddings"):
            raise ValueError(f"domain is power, features or embeddings, not {domain!r}")
        self.shift, self.mixing, self.domain = shift, mixing, domain
        self.mix_teacher, self.mix_unlabelled = mix_teacher, mix_unlabelled
        self.student, self.teacher, self.both = student, teacher, both

    def __call__(self, frontend: FrontEnds, batch: Batch) -> tuple[Features, Features, Targets, MixPlan | None]:
        """Student features, teacher features, targets of the student's view, and the mixing plan.

        The targets are ``strong``, ``weak`` and ``padding``, moved and mixed as the sound is; of clips of several
        corpora also ``annotated``, the classes that their labels speak of, which for a composition are those that both
        corpora annotate; and, where clips are mixed, what :func:`partners_of` says of the partners.
        """
        stored = batch.embeddings is not None
        if stored != (self.domain == "embeddings"):
            raise ValueError("domain: embeddings is for stored embeddings, and they for nothing else; see stages.Embed")
        mels = batch.features(frontend.power)
        scale: Callable[[Features], Features] = dict if stored else frontend.scale
        targets = {"strong": batch.strong, "weak": batch.weak, "padding": batch.padding(batch.strong.shape[1])}
        if self.shift is not None:
            mels, targets = self.shift(mels, targets)
        if batch.annotated is not None:  # after the shift, which would take it for padding
            targets["annotated"] = batch.annotated
        plan = None if self.mixing is None else self.mixing.draw(self._groups(batch))
        student = teacher = scale(mels)
        if plan is not None:
            linear = self.domain == "power"
            student = {name: plan.mix_inputs(value) for name, value in (mels if linear else student).items()}
            student = frontend.scale(student) if linear else student
            teacher = student if self.mix_teacher else teacher
            partners = {} if stored else partners_of(plan, frontend, mels, targets)
            targets = {name: plan.mix_targets(value) for name, value in targets.items()} | partners
        if self.both is not None:
            pair = {f"student/{name}": mel for name, mel in student.items()}
            pair |= {f"teacher/{name}": mel for name, mel in teacher.items()}
            pair, _ = self.both(pair, {})
            student, teacher = ({name: pair[f"{view}/{name}"] for name in student} for view in ("student", "teacher"))
        if self.student is not None:
            student, _ = self.student(dict(student), {})
        if self.teacher is not None:
            teacher, _ = self.teacher(dict(teacher), {})
        return student, teacher, targets, plan

    def _groups(self, batch: Batch) -> Tensor:
        """0 for strongly labelled clips, 1 for weakly labelled, 2 for unlabelled (or -1: not mixed)."""
        groups = torch.full_like(batch.group, 2 if self.mix_unlabelled else -1)
        groups[batch.has_weak] = 1
        groups[batch.has_strong] = 0
        return groups


def partners_of(plan: MixPlan, frontend: FrontEnds, mels: Mapping[str, Tensor], targets: Targets) -> Targets:
    """What of the partners is in the mixture, whether the target names it or not.

    Args:
        plan: of the mixture.
        frontend: made ``mels``; the level is read off its first stream.
        mels: linear mel spectrograms of the clips, unmixed, ``(batch, mel, frames)`` each.
        targets: ``strong`` and ``weak`` of the same clips, and ``annotated`` where they come from several corpora.

    Returns:
        ``partner_strong`` and ``partner_weak``: labels of each clip's partner, 1 for a class that its corpus does not
        annotate, since it may sound; ``partner_level``: how loud the partner is in the mixture beside the clip itself,
        dB, ``(batch, frames of the labels)``; ``partner_clip_level``: the same over the whole clip, ``(batch,)``.
    """
    name, front_end = next(iter(frontend.named().items()))
    energy = mels[name].abs().pow(2 / front_end.exponent).sum(dim=1)
    frames = functional.adaptive_avg_pool1d(energy, targets["strong"].shape[1])
    partners, weights = plan.partners.to(energy.device), plan.weights.to(energy.device)
    share = ((1 - weights) / weights).pow(2 / front_end.exponent).clamp(1e-10, 1e10)

    def level(values: Tensor) -> Tensor:
        silence = 1e-10
        ratio = (values[partners] + silence) / (values + silence)
        return 10 * (ratio * share.view(-1, *[1] * (values.ndim - 1))).log10()

    known = targets.get("annotated", torch.ones_like(targets["weak"], dtype=torch.bool))[partners]
    return {
        "partner_strong": torch.where(known.unsqueeze(1), targets["strong"][partners], 1.0),
        "partner_weak": torch.where(known, targets["weak"][partners], 1.0),
        "partner_level": level(frames),
        "partner_clip_level": level(energy.mean(dim=1)),
    }
