"""Learning-rate schedules and loss-weight ramps as functions of the optimiser step.

All are stateless: the value depends on the step alone, so a resumed run continues exactly. Steps count from 0,
and the value applies to the update that the step makes, so warm-up covers the first update too (the PMAM
reference skips it). Lengths are given in epochs, as papers give them; the trainer passes the steps of an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pmam_plugin.config import configurable


class Schedule(Protocol):
    """A factor on every group's learning rate."""

    def scale(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Factor for the update made at ``step`` (from 0) of a run of ``epochs`` epochs."""


@configurable
@dataclass(frozen=True)
class Constant:
    """The same learning rate throughout."""

    def scale(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """See :class:`Schedule`."""
        return 1.0


@configurable
@dataclass(frozen=True)
class ExponentialDown:
    """Linear warm-up, plateau, then a Gaussian-shaped fall (PMAM's and MAT-SED's schedule).

    ``exp(exponent * ((s - cut) / (end - cut))^2)`` after ``cut``: at the end exp(exponent), 0.22 for -1.5.

    Args:
        cut_epochs: where the fall begins.
        exponent: negative; its size sets the final factor.
        warmup_epochs: length of the linear warm-up.
        warmup_start: factor at the first step of the warm-up.
    """

    cut_epochs: float
    exponent: float = -1.5
    warmup_epochs: float = 0.0
    warmup_start: float = 0.1

    def scale(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """See :class:`Schedule`."""
        warmup, cut, end = (round(length * steps_per_epoch) for length in (self.warmup_epochs, self.cut_epochs, epochs))
        if step < warmup:
            return self.warmup_start + (1 - self.warmup_start) * step / warmup
        if step > cut:
            return math.exp(self.exponent * ((step - cut) / max(1, end - cut)) ** 2)
        return 1.0


@configurable
@dataclass(frozen=True)
class ExponentialWarmup:
    """ATST-SED's schedule: warm-up ``exp(-5 (1 - s/warmup)^2)``, then constant or cosine to ``final``.

    Args:
        warmup_epochs: length of the warm-up.
        final: factor at the end of the cosine; 1 keeps the rate constant (stage 1), 0.1 is stage 2.
    """

    warmup_epochs: float
    final: float = 1.0

    def scale(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """See :class:`Schedule`."""
        # The reference counts steps from 1.
        step, warmup, end = step + 1, round(self.warmup_epochs * steps_per_epoch), steps_per_epoch * epochs
        if step <= warmup:
            return math.exp(-5 * (1 - step / warmup) ** 2)
        progress = (step - warmup) / max(1, end - warmup)
        return self.final + (1 - self.final) * cosine_fall(progress)


@configurable
@dataclass(frozen=True)
class CosineDown:
    """Linear warm-up from zero, then a cosine to ``final`` (ATST-Frame's pre-training).

    Args:
        warmup_epochs: length of the warm-up.
        final: factor at the end.
    """

    warmup_epochs: float
    final: float = 0.0

    def scale(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """See :class:`Schedule`."""
        warmup, end = round(self.warmup_epochs * steps_per_epoch), steps_per_epoch * epochs
        if step < warmup:
            return (step + 1) / warmup
        return self.final + (1 - self.final) * cosine_fall((step - warmup) / max(1, end - warmup))


@configurable
@dataclass(frozen=True)
class StepDown:
    """DETR's schedule: a tenth of the rate after every ``every_epochs`` (SEDT: 200)."""

    every_epochs: float

    def scale(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """See :class:`Schedule`."""
        return 0.1 ** int(step / max(1, round(self.every_epochs * steps_per_epoch)))


_RAMPS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "sigmoid": lambda x: 1 / (1 + math.exp(-10 * (x - 0.5))),
    "exponential": lambda x: math.exp(-5 * (1 - x) ** 2),
    "none": lambda x: 1.0,
}


@configurable
@dataclass(frozen=True)
class Ramp:
    """Weight of a loss term that grows with training and then stays.

    It is 0 for ``start`` epochs, then ``maximum`` times, with ``x = step / length``: ``linear`` x, ``sigmoid``
    1 / (1 + exp(-10 (x - 1/2))), ``exponential`` exp(-5 (1 - x)^2), ``none`` 1.

    Args:
        maximum: value after the ramp.
        epochs: its length.
        shape: linear, sigmoid, exponential or none.
        start: epochs before it.
    """

    maximum: float
    epochs: float = 0.0
    shape: str = "linear"
    start: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in _RAMPS:
            raise ValueError(f"shape is {', '.join(_RAMPS)}, not {self.shape!r}")

    def value(self, step: int, steps_per_epoch: int) -> float:
        """Weight at ``step``, counted from 0."""
        length = self.epochs * steps_per_epoch
        step -= round(self.start * steps_per_epoch)
        if step < 0:
            return 0.0
        if length <= 0 or step >= length:
            return self.maximum
        return self.maximum * _RAMPS[self.shape](step / length)


def cosine_fall(progress: float) -> float:
    """From 1 at progress 0 to 0 at progress 1 along half a cosine; stays there."""
    return (1 + math.cos(math.pi * min(1.0, progress))) / 2
