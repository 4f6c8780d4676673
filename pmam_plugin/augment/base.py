"""What an augmentation is.

``augmentation(features, targets) -> (features, targets)``; what it is given stays as it was.

* ``features``: name -> ``(batch, mel, frames)``.
* ``targets``: name -> tensor. Its axes and type say what it is, whatever its name:

  * floating, three axes ``(batch, frames, classes)``: moves with the frames (strong labels, prototypes);
  * floating, two axes ``(batch, classes)``: belongs to the whole clip (weak labels);
  * boolean ``(batch, frames)``: true where a frame is padding; moves with the frames;
  * integer ``(batch,)``: about the clip, never changed; ``"group"`` says which clips may be mixed with each other.

Streams differ in frame rate; all of them and all frame-wise targets span the same clip.

What is random is drawn from torch's CPU generator (or the one given), wherever the tensors are, so that a seed means
the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor

Features = dict[str, Tensor]
Targets = dict[str, Tensor]


class Augmentation(Protocol):
    """Changes a batch of features, and its targets where it has to."""

    def __call__(
        self, features: Features, targets: Targets, generator: Generator | None = None
    ) -> tuple[Features, Targets]:
        """Return new features and targets; see the module's text for what they hold."""


class Compose:
    """Several augmentations, one after the other.

    Args:
        augmentations: in the order in which they are applied.
    """

    def __init__(self, augmentations: Sequence[Augmentation]) -> None:
        self.augmentations = list(augmentations)

    def __call__(
        self, features: Features, targets: Targets, generator: Generator | None = None
    ) -> tuple[Features, Targets]:
        """Apply all of them."""
        for augmentation in self.augmentations:
            features, targets = augmentation(features, targets, generator)
        return features, targets


class FeatureAugmentation:
    """Base of augmentations that leave times, and with them all targets, alone.

    Args:
        probability: that a clip is changed, drawn for every clip.
        streams: names of the features to change; all of them when None. Every stream draws its own parameters, but
            the choice of clips is common to all. What stands before a slash in a feature's name is not looked at, so
            that the streams of two views (``student/atst``, ``teacher/atst``) can be augmented in one call.
    """

    def __init__(self, probability: float, streams: Sequence[str] | None = None) -> None:
        check_probability(probability)
        self.probability = probability
        self.streams = None if streams is None else tuple(streams)

    def __call__(
        self, features: Features, targets: Targets, generator: Generator | None = None
    ) -> tuple[Features, Targets]:
        """Change the chosen clips of the chosen streams."""
        names = [name for name in features if self.streams is None or name.rpartition("/")[2] in self.streams]
        if not names:
            raise ValueError(f"{type(self).__name__} changes {self.streams}, but the features are {list(features)}")
        chosen = self.choose(features[names[0]].shape[0], generator)
        if not bool(chosen.any()):
            return features, targets
        changed = dict(features)
        for name in names:
            mel = features[name]
            after = self.apply(mel, generator)
            if not bool(chosen.all()):
                after = torch.where(chosen.to(mel.device)[:, None, None], after, mel)
            changed[name] = after
        return changed, targets

    def choose(self, batch: int, generator: Generator | None) -> Tensor:
        """Which clips are changed, booleans ``(batch,)``."""
        return choose_clips(batch, self.probability, generator)

    def apply(self, mel: Tensor, generator: Generator | None) -> Tensor:
        """Change all clips of one stream, ``(batch, mel, frames)``."""
        raise NotImplementedError


def is_frame_wise(target: Tensor) -> bool:
    """Whether the second axis of a target is time."""
    return target.ndim == 3 or (target.ndim == 2 and target.dtype == torch.bool)


def choose_clips(batch: int, probability: float, generator: Generator | None) -> Tensor:
    """Booleans ``(batch,)``, each true with the given probability."""
    if probability >= 1:
        return torch.ones(batch, dtype=torch.bool)
    return torch.rand(batch, generator=generator) < probability


def uniform(shape: int | tuple[int, ...], low: float, high: float, generator: Generator | None) -> Tensor:
    """Uniform draws on the CPU."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def check_probability(probability: float) -> None:
    """Raise ValueError for what is no probability."""
    if not 0 <= probability <= 1:
        raise ValueError(f"a probability lies in [0, 1], not {probability}")


def check_range(name: str, low: float, high: float, minimum: float, maximum: float) -> None:
    """Raise ValueError for a range that is turned round or leaves its domain."""
    if not minimum <= low <= high <= maximum:
        raise ValueError(f"{name} must satisfy {minimum:g} <= low <= high <= {maximum:g}, not ({low}, {high})")
