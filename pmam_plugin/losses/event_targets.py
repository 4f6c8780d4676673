"""What a batch of clips holds, as a set loss needs it: events of each clip, padded to the fullest one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pmam_plugin.nn.intervals import edge_boxes

PADDING = -1  # label of a slot without an event


@dataclass
class EventTotal:
    """How much there is to learn in a batch, scalars.

    Attributes:
        clips: whose events are known.
        tagged: clips whose tags are known.
        events: their number.
        shares: of these events, summed.
    """

    clips: Tensor
    tagged: Tensor
    events: Tensor
    shares: Tensor


@dataclass
class EventTargets:
    """Events and tags of a batch.

    Attributes:
        labels: class index of each event, ``(batch, slots)``, :data:`PADDING` in unused slots.
        boxes: centre and length of each event as fractions of the model's span, ``(batch, slots, 2)``.
        weights: share of each event in a mixed clip, ``(batch, slots)``; 1 for an ordinary clip.
        strong: clips whose events are known (perhaps to be none), ``(batch,)`` bool.
        tags: clip-level targets in [0, 1], ``(batch, classes)``.
        tagged: clips whose tags are known, ``(batch,)`` bool.
        features: what a feature-reconstruction head should say of each event, ``(batch, slots, dim)``, or None.
        eligible: which queries may predict which event, ``(batch, queries, slots)`` bool, or None where all may.
    """

    labels: Tensor
    boxes: Tensor
    weights: Tensor
    strong: Tensor
    tags: Tensor
    tagged: Tensor
    features: Tensor | None = None
    eligible: Tensor | None = None

    @property
    def counts(self) -> Tensor:
        """Number of events of each clip, ``(batch,)``."""
        return (self.labels != PADDING).sum(dim=1)

    def __getitem__(self, rows: Tensor | slice) -> EventTargets:
        """The targets of some clips."""
        return self._with(lambda value: value[rows])

    def total(self) -> EventTotal:
        """How much there is to learn."""
        real = (self.labels != PADDING) & self.strong[:, None]
        return EventTotal(
            clips=self.strong.sum(), tagged=self.tagged.sum(), events=real.sum(), shares=(self.weights * real).sum()
        )

    def to(self, device: torch.device | str) -> EventTargets:
        """The same targets on another device."""
        return self._with(lambda value: value.to(device))

    def _with(self, change: Callable[[Tensor], Tensor]) -> EventTargets:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if value is not None})

    @classmethod
    def from_events(
        cls,
        events: Sequence[tuple[Sequence[int] | Tensor, Sequence[Sequence[float]] | Tensor] | None],
        classes: int,
        tags: Sequence[Sequence[int] | None] | None = None,
        weights: Sequence[Sequence[float] | Tensor] | None = None,
    ) -> EventTargets:
        """Collect per-clip events.

        Args:
            events: per clip ``(class indices, boxes)``, both empty for a silent clip, or None where only tags (or
                nothing) are known.
            classes: number of classes.
            tags: per clip the class indices of a weakly labelled clip, or None; a clip with events is tagged by them.
            weights: per clip the share of each event (mix-up); default 1.
        """
        strong = torch.tensor([item is not None for item in events], dtype=torch.bool)
        filled = [([], []) if item is None else item for item in events]
        labels = [torch.as_tensor(item[0], dtype=torch.long).reshape(-1) for item in filled]
        boxes = [torch.as_tensor(item[1], dtype=torch.float32).reshape(-1, 2) for item in filled]
        if weights is None:
            shares = [torch.ones(len(item)) for item in labels]
        else:
            shares = [torch.as_tensor(item, dtype=torch.float32).reshape(-1) for item in weights]
        clip_tags, tagged = torch.zeros(len(events), classes), strong.clone()
        for clip, clip_labels in enumerate(labels):
            clip_tags[clip].index_add_(0, clip_labels, shares[clip])
            if not strong[clip] and tags is not None and tags[clip] is not None:
                clip_tags[clip, torch.as_tensor(tags[clip], dtype=torch.long)] = 1.0
                tagged[clip] = True
        return cls(
            pad_sequence(labels, batch_first=True, padding_value=PADDING),
            pad_sequence(boxes, batch_first=True),
            pad_sequence(shares, batch_first=True),
            strong,
            clip_tags.clamp(max=1.0),
            tagged,
        )

    @classmethod
    def from_frames(
        cls,
        frames: Tensor,
        span_frames: float,
        strong: Tensor,
        tags: Tensor | None = None,
        tagged: Tensor | None = None,
    ) -> EventTargets:
        """Read the events off frame labels, so that augmentation of frame labels serves set losses too.

        Every run of non-zero frames of one class is an event; its weight is the largest value in the run, which is
        the mix-up share. Edges are as fine as the label grid. Two events of one class that touch become one.

        Args:
            frames: frame labels in [0, 1], ``(batch, frames, classes)``; rows of clips that are not strong are ignored.
            span_frames: label frames in the model's span (frame rate times span in seconds).
            strong: clips with known events, ``(batch,)`` bool.
            tags: clip-level labels, ``(batch, classes)``; default and for strong clips: the maximum over frames.
            tagged: clips with known tags, ``(batch,)`` bool; default the strong ones.
        """
        by_class = (frames * strong[:, None, None]).transpose(1, 2)
        active = by_class > 0
        change = torch.nn.functional.pad(active.int(), (1, 1)).diff(dim=-1)
        clip, label, start = (change == 1).nonzero(as_tuple=True)
        end = (change == -1).nonzero(as_tuple=True)[2]
        boxes = edge_boxes(torch.stack((start, end), dim=-1).to(frames.dtype) / span_frames)
        event_of_frame = (change[..., :-1] == 1).flatten().cumsum(0).view_as(by_class) - 1
        weights = frames.new_zeros(len(boxes)).scatter_reduce(0, event_of_frame[active], by_class[active], "amax")
        counts = torch.bincount(clip, minlength=len(frames)).tolist()
        from_events = frames.amax(dim=1)
        return cls(
            pad_sequence(label.split(counts), batch_first=True, padding_value=PADDING),
            pad_sequence(boxes.split(counts), batch_first=True),
            pad_sequence(weights.split(counts), batch_first=True),
            strong,
            from_events if tags is None else torch.where(strong[:, None], from_events, tags),
            strong if tagged is None else tagged,
        )
