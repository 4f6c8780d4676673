"""The set loss of SEDT as a loss term of the shared fine-tuning Brain."""

from __future__ import annotations

from torch import Tensor

from pmam_plugin.brains.objectives import StepState
from pmam_plugin.config import configurable
from pmam_plugin.losses.event_targets import EventTargets
from pmam_plugin.losses.set_criterion import SetCriterion
from pmam_plugin.models import SetDetection


@configurable
class SetLoss:
    """Match queries with events and compare them (:class:`~pmam_plugin.losses.set_criterion.SetCriterion`).

    Events are read off the frame labels, so that everything that moves or mixes labels (frame shift, mixup) moves and
    mixes events; a mixed clip's events weigh as much as their share. Clips with tags alone teach the audio query.

    Args:
        criterion: matcher, weights and kind of the loss.
    """

    uses_teacher = False

    def __init__(self, criterion: SetCriterion) -> None:
        self.criterion = criterion

    def __call__(self, state: StepState, step: int, steps_per_epoch: int) -> dict[str, Tensor]:
        """See :class:`~pmam_plugin.brains.objectives.Objective`: the last layer's terms, the other layers in one.

        Raises:
            TypeError: the model does not predict sets.
        """
        detection = state.student
        if not isinstance(detection, SetDetection) or detection.output is None:
            raise TypeError("the set loss trains models that predict sets (SEDT); use Supervised for frame scores")
        targets = EventTargets.from_frames(
            state.targets["strong"],
            detection.span_frames,
            state.batch.has_strong,
            state.targets["weak"],
            state.batch.has_weak,
        )
        losses = self.criterion(detection.output, targets)
        terms = {
            f"set_{name}": self.criterion.weights[name] * value
            for name, value in losses.parts.items()
            if name in self.criterion.weights
        }
        terms["set_auxiliary"] = losses.total - sum(terms.values())
        return terms
