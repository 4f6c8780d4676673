"""ATST-Frame's self-supervised pre-training: frame-level BYOL with masking (Li et al., TASLP 2024).

A student sees a masked view of a clip and predicts, at the hidden tokens, what a slowly averaged teacher makes of the
other view unmasked. There are no negatives. Projector and predictor serve training only; ATST-SEDv2's embedding
contrast uses the same heads.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.encoders.atst import ATSTFrame
from pmam_plugin.encoders.base import Wanted
from pmam_plugin.losses.contrast import cosine_distance, embedding_spread


class _BottleneckHead(nn.Sequential):
    """Linear, batch norm, ReLU, linear; no biases and no final norm, over the last axis of any shape."""

    def __init__(self, dim: int, hidden: int, output_dim: int) -> None:
        super().__init__(
            nn.Linear(dim, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, output_dim, bias=False),
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        """``(..., dim)`` -> ``(..., output_dim)``; the batch statistics are taken over all leading axes."""
        return super().forward(embeddings.flatten(0, -2)).unflatten(0, embeddings.shape[:-1])


@configurable
class Projector(_BottleneckHead):
    """Embeddings into the space where student and teacher are compared.

    Args:
        dim: width of the embeddings.
        hidden: width in between: 4096 for ATST-Frame's 768, 2048 for the 256 of a BiGRU (ATST-SEDv2).
        output_dim: width of that space.
    """

    def __init__(self, dim: int = 768, hidden: int = 4096, output_dim: int = 256) -> None:
        super().__init__(dim, hidden, output_dim)


@configurable
class Predictor(_BottleneckHead):
    """The student's guess of the teacher's projection.

    Args:
        dim: width of the projections, in and out.
        hidden: width in between.
    """

    def __init__(self, dim: int = 256, hidden: int = 4096) -> None:
        super().__init__(dim, hidden, dim)


@configurable
class ATSTFrameMasking:
    """Hide spans of tokens whose starts are drawn at random and may overlap.

    Of ``T`` tokens ``T * rate / span`` spans are hidden, rounded up or down at random (once for a whole batch), at
    least ``minimum``; overlaps leave about half of the tokens hidden at the defaults.

    Args:
        rate: share of tokens hidden if no spans overlapped.
        span: tokens per span.
        minimum: spans hidden at the least.
    """

    def __init__(self, rate: float = 0.65, span: int = 5, minimum: int = 2) -> None:
        if not 0 < rate <= 1 or span < 1 or minimum < 1:
            raise ValueError(f"masking needs 0 < rate <= 1, span >= 1 and minimum >= 1, not {rate}, {span}, {minimum}")
        self.rate, self.span, self.minimum = rate, span, minimum

    def __call__(self, batch: int, tokens: int, generator: torch.Generator | None = None) -> Tensor:
        """Masks, true where a token is hidden, ``(batch, tokens)``, on the CPU.

        Args:
            batch: number of clips.
            tokens: tokens per clip.
            generator: source of randomness; None is torch's global one.
        """
        span = min(self.span, tokens)
        starts = tokens - span + 1
        jitter = float(torch.rand((), generator=generator))
        count = min(max(self.minimum, int(tokens * self.rate / self.span + jitter)), starts)
        first = torch.rand(batch, starts, generator=generator).argsort(dim=1)[:, :count]
        hidden = (first.unsqueeze(-1) + torch.arange(span)).flatten(1)
        return torch.zeros(batch, tokens, dtype=torch.bool).scatter_(1, hidden, True)


@dataclass
class BYOLOutput:
    """Result of one pre-training step.

    Attributes:
        loss: mean of both directions, a scalar between 0 and 4.
        distances: mean distance of the student's view 1 to the teacher's view 2, and of view 2 to view 1.
        mask: true where a token was hidden, ``(batch, tokens)``.
        prediction_spread: watch against collapse, see :func:`~pmam_plugin.losses.contrast.embedding_spread`; healthy
            near ``1 / sqrt(output dim)``.
        target_spread: the same of the teacher's projections.
    """

    loss: Tensor
    distances: tuple[float, float]
    mask: Tensor
    prediction_spread: float
    target_spread: float


class _Student(nn.Module):
    """Encoder and projector: the part that the teacher averages."""

    def __init__(self, encoder: ATSTFrame, projector: Projector) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, projector

    def forward(self, features: Mapping[str, Tensor], chosen: Tensor, mask: Tensor | None = None) -> Tensor:
        """Projections of the chosen tokens, ``(chosen tokens, output dim)``."""
        return self.projector(self.encoder.encode(features, Wanted(), mask).frames[chosen])


@configurable
class ATSTFramePretraining(nn.Module):
    """Student and teacher of ATST-Frame's pre-training.

    ``loss = (d(S(view 1), T(view 2)) + d(S(view 2), T(view 1))) / 2`` over the hidden tokens, ``d = 2 - 2 cos``. The
    teacher's encoder and projector are averages of the student's (:meth:`update_teacher` after every step); its encoder
    always runs without dropout and drop path, so that targets carry no noise of their own.

    Args:
        encoder: trained; what remains after pre-training.
        masking: which tokens the student does not see, the same in both views.
        hidden: width inside projector and predictor.
        output_dim: width of the projections.
    """

    def __init__(
        self,
        encoder: ATSTFrame,
        masking: ATSTFrameMasking | None = None,
        hidden: int = 4096,
        output_dim: int = 256,
    ) -> None:
        super().__init__()
        self.student = _Student(encoder, Projector(encoder.dim, hidden, output_dim))
        self.predictor, self.output_dim = Predictor(output_dim, hidden), output_dim
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.masking = ATSTFrameMasking() if masking is None else masking

    @property
    def encoder(self) -> ATSTFrame:
        """The student's encoder."""
        return self.student.encoder

    def train(self, mode: bool = True) -> ATSTFramePretraining:
        """As usual, but the teacher's encoder stays in evaluation mode."""
        super().train(mode)
        self.teacher.encoder.eval()
        return self

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Keep ``momentum`` of the teacher's parameters and take the rest from the student.

        The published schedule rises from 0.9996 (0.997 for the small model) to 1 along a cosine. Batch-norm statistics
        are not averaged: the teacher's projector takes its own.
        """
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), 1.0 - momentum)

    def forward(
        self,
        first: Mapping[str, Tensor],
        second: Mapping[str, Tensor],
        padding: Tensor | None = None,
        generator: torch.Generator | None = None,
        mask: Tensor | None = None,
        predicted: Tensor | None = None,
    ) -> BYOLOutput:
        """One step on two time-aligned views of the same clips (the same crop; one may be mixed or warped).

        Args:
            first: features of view 1, ``(batch, mel, frames)``.
            second: features of view 2, same shape.
            padding: true where a token is padding, ``(batch, tokens)``; nothing is predicted there.
            generator: source of randomness of the mask, on the CPU.
            mask: tokens to hide, ``(batch, tokens)``; drawn if None.
            predicted: tokens predicted in the whole batch, where these clips are a part of it: distances are then this
                part's shares of the batch's.

        Raises:
            ValueError: all hidden tokens are padding.
        """
        mel = first[self.encoder.feature]
        tokens = self.encoder.output_frames({self.encoder.feature: mel.shape[-1]})
        mask = (self.masking(len(mel), tokens, generator) if mask is None else mask).to(mel.device)
        chosen = mask if padding is None else mask & ~padding
        if not bool(chosen.any()):
            raise ValueError("every hidden token is padding; leave out clips without sound")
        share = 1.0 if predicted is None else chosen.sum() / predicted
        with torch.no_grad():
            targets = [self.teacher(view, chosen) for view in (second, first)]
        predictions = [self.predictor(self.student(view, chosen, mask)) for view in (first, second)]
        distances = [share * cosine_distance(p, z).mean() for p, z in zip(predictions, targets, strict=True)]
        return BYOLOutput(
            loss=(distances[0] + distances[1]) / 2,
            distances=(float(distances[0].detach()), float(distances[1].detach())),
            mask=mask,
            prediction_spread=float(embedding_spread(torch.cat(predictions))),
            target_spread=float(embedding_spread(torch.cat(targets))),
        )
