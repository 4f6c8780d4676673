"""One training or evaluation batch, and how clips become one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pmam_plugin.audio import fit_length


@dataclass
class Item:
    """One clip as a dataset returns it.

    Attributes:
        id: of the clip.
        wave: ``(samples,)`` float32, zero-padded to the length of a clip.
        seconds: how much of it is recording.
        strong: activity, ``(frames, classes)``.
        weak: presence, ``(classes,)``.
        has_strong: whether ``strong`` is known.
        has_weak: whether ``weak`` is known; so it is wherever ``strong`` is.
        group: position of the clip's subset in :data:`pmam_plugin.data.SUBSETS`.
        sample_rate: of ``wave``, in Hz.
        embeddings: stored ones, ``(dim, frames)``; ``wave`` is then silent. None where the sound itself is there.
        annotated: the classes that its corpus annotates, ``(classes,)`` bool; None where there is one corpus.
    """

    id: str
    wave: Tensor
    seconds: float
    strong: Tensor
    weak: Tensor
    has_strong: bool
    has_weak: bool
    group: int
    sample_rate: int
    embeddings: Tensor | None = None
    annotated: Tensor | None = None


@dataclass
class Batch:
    """Clips stacked.

    Attributes:
        ids: of the clips.
        waves: ``(batch, samples)`` float32, zero-padded at the end.
        seconds: length of each recording, ``(batch,)`` float64; it stays on the CPU.
        strong: activity in 0..1, ``(batch, frames, classes)``; zeros where unknown, no frames without a label encoder.
        weak: presence in 0..1, ``(batch, classes)``; zeros where unknown.
        has_strong: whether ``strong`` is known, ``(batch,)`` bool.
        has_weak: whether ``weak`` is known, ``(batch,)`` bool; true for strongly labelled clips too.
        group: position of each clip's subset in :data:`pmam_plugin.data.SUBSETS`, ``(batch,)`` int64.
        sample_rate: of ``waves``, in Hz.
        embeddings: what stands in place of the sound, ``(batch, dim, frames)``, or None.
        annotated: the classes that each clip's corpus annotates, ``(batch, classes)`` bool: of the others its labels
            say nothing. None where all clips come from one corpus.
    """

    ids: list[str]
    waves: Tensor
    seconds: Tensor
    strong: Tensor
    weak: Tensor
    has_strong: Tensor
    has_weak: Tensor
    group: Tensor
    sample_rate: int
    embeddings: Tensor | None = None
    annotated: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return self._with(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; ``DataLoader(pin_memory=True)`` calls this."""
        return self._with(Tensor.pin_memory)

    def features(self, frontend: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What a model reads: ``frontend(waves)``, or the stored embeddings under that name."""
        return frontend(self.waves) if self.embeddings is None else {"embeddings": self.embeddings}

    def sounds(self) -> list[Tensor]:
        """The waveforms without their padding, ``(samples,)`` each, at least one sample."""
        samples = (self.seconds * self.sample_rate).round().int().clamp_min(1).tolist()
        return [wave[:count] for wave, count in zip(self.waves, samples, strict=True)]

    def padding(self, frames: int) -> Tensor:
        """Which frames lie beyond the end of their recording.

        Args:
            frames: length of the grid that spans ``waves``.

        Returns:
            True where padding, ``(batch, frames)``. A frame that begins within the recording is none, and the first
            never is.
        """
        whole = self.waves.shape[-1] / self.sample_rate
        # Seconds times frames per second is rarely whole in binary: what is this close to a border lies on it.
        valid = [max(1, math.ceil(seconds / whole * frames - 1e-6)) for seconds in self.seconds.tolist()]
        position = torch.arange(frames, device=self.waves.device)
        return position >= torch.tensor(valid, device=self.waves.device).unsqueeze(1)

    def _with(self, move: Callable[[Tensor], Tensor]) -> Batch:
        names = ("waves", "strong", "weak", "has_strong", "has_weak", "group", "embeddings", "annotated")
        moved: dict[str, Any] = {name: move(getattr(self, name)) for name in names if getattr(self, name) is not None}
        return replace(self, **moved)


def collate(items: Sequence[Item]) -> Batch:
    """Stack clips; longer ones (whole recordings in evaluation) set the length for all."""
    samples = max(item.wave.shape[0] for item in items)
    return Batch(
        ids=[item.id for item in items],
        waves=torch.stack([fit_length(item.wave, samples) for item in items]),
        seconds=torch.tensor([item.seconds for item in items], dtype=torch.float64),
        strong=torch.stack([item.strong for item in items]),
        weak=torch.stack([item.weak for item in items]),
        has_strong=torch.tensor([item.has_strong for item in items]),
        has_weak=torch.tensor([item.has_weak for item in items]),
        group=torch.tensor([item.group for item in items]),
        sample_rate=items[0].sample_rate,
        embeddings=_stacked([item.embeddings for item in items]),
        annotated=_stacked([item.annotated for item in items]),
    )


def _stacked(values: Sequence[Tensor | None]) -> Tensor | None:
    """All or none of the items have it."""
    there = [value for value in values if value is not None]
    return torch.stack(there) if there else None
