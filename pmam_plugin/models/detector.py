"""A detector that scores every frame, and the heads of those that were published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.features import FrontEnds
from pmam_plugin.models.backbone import Backbone
from pmam_plugin.models.base import Detection, SoundEventModel
from pmam_plugin.nn.cpu import Dropout
from pmam_plugin.nn.heads import TagHead
from pmam_plugin.nn.pooling import linear_softmax_pool
from pmam_plugin.nn.windows import Windows


@configurable
class LinearSoftmaxHead(nn.Module):
    """Frame probabilities by a linear layer, clip probabilities by linear softmax, and an optional tag branch.

    Args:
        dim: width of the frames.
        classes: number of classes.
        token_dim: width of the encoder's tokens; None builds no tag branch.
        tag_heads: attention heads of the tag branch.
    """

    def __init__(self, dim: int, classes: int, token_dim: int | None = None, tag_heads: int = 12) -> None:
        super().__init__()
        self.classes = classes
        self.classifier = nn.Linear(dim, classes)
        self.tagger = None if token_dim is None else TagHead(token_dim, classes, tag_heads)

    def forward(
        self, frames: Tensor, tokens: Tensor | None = None, padding: Tensor | None = None, temperature: float = 1.0
    ) -> Detection:
        """Score frames ``(batch, frames, dim)`` and tokens ``(batch, tokens, token_dim)``.

        Args:
            frames: of the context network.
            tokens: of the encoder, for the tag branch; None gives no tags.
            padding: true where a frame is padding, ``(batch, frames)``; such frames score zero.
            temperature: divides the logits; below one sharpens.
        """
        scores = (self.classifier(frames).float() / temperature).sigmoid()
        if padding is not None:
            scores = scores.masked_fill(padding.unsqueeze(-1), 0.0)
        tags = None if self.tagger is None or tokens is None else self.tagger(tokens)
        return Detection(scores, linear_softmax_pool(scores, padding), tags, frames)


@configurable
class AttentionHead(nn.Module):
    """``strong = sigmoid(W x)``; ``weak_c = sum_t strong_tc a_tc / sum_t a_tc`` with ``a = softmax(V x)``.

    The softmax runs over classes, not over time: a frame spends its attention on the class it shows most. That is what
    the baseline and all systems trained from it do.

    Args:
        dim: width of the frames.
        classes: number of classes.
        dropout: on the frames before both linear layers.
    """

    def __init__(self, dim: int, classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.classes = classes
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(dim, classes)
        self.attention = nn.Linear(dim, classes)

    def forward(
        self, frames: Tensor, tokens: Tensor | None = None, padding: Tensor | None = None, temperature: float = 1.0
    ) -> Detection:
        """Score frames.

        Args:
            frames: of the context network, ``(batch, frames, dim)``; returned as the embedding, before dropout.
            tokens: unused.
            padding: true where a frame is padding, ``(batch, frames)``; such frames score zero and carry no weight.
            temperature: divides the logits of the frame probabilities; below one sharpens.
        """
        dropped = self.dropout(frames)
        scores = (self.classifier(dropped).float() / temperature).sigmoid()
        weights = self.attention(dropped).float().softmax(dim=-1).clamp(1e-7, 1.0)
        if padding is not None:
            scores = scores.masked_fill(padding.unsqueeze(-1), 0.0)
            weights = weights.masked_fill(padding.unsqueeze(-1), 0.0)
        clips = (scores * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        return Detection(scores, clips, None, frames)


@configurable
class FrameDetector(SoundEventModel):
    """Backbone and head.

    Args:
        backbone: front ends, encoder, context network.
        head: turns frames into a :class:`Detection`.
        labels: class names in output order.
        clip_seconds: length of the clips it is trained with, s.
    """

    pretrained_name = Backbone.pretrained_name

    def __init__(self, backbone: Backbone, head: nn.Module, labels: Sequence[str], clip_seconds: float = 10.0) -> None:
        super().__init__()
        self.has_tags = getattr(head, "tagger", None) is not None
        if self.has_tags and backbone.encoder.token_dim is None:
            raise ValueError("this head has a tag branch, but its encoder gives no tokens")
        if len(set(labels)) != len(labels) or len(labels) != head.classes:
            raise ValueError(f"a head of {head.classes} classes needs as many distinct labels, got {list(labels)}")
        self.backbone, self.head = backbone, head
        self.labels, self.clip_seconds = tuple(labels), clip_seconds
        self.sample_rate, self.frame_rate = backbone.sample_rate, backbone.frame_rate

    @property
    def frontend(self) -> FrontEnds:  # type: ignore[override]
        """Waveform to features."""
        return self.backbone.frontend

    def output_frames(self, samples: int) -> int:
        """Exact number of frames for a waveform of this many samples."""
        return self.backbone.output_frames(samples)

    def pretrained_state(self) -> dict[str, Tensor]:
        """The backbone's state; the head is not handed on."""
        return self.backbone.pretrained_state()

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Start from a pre-trained backbone's state; the head keeps its initial weights."""
        self.backbone.load_pretrained(state)

    def forward(
        self,
        features: Mapping[str, Tensor],
        padding: Tensor | None = None,
        windows: Windows | None = None,
        temperature: float = 1.0,
        tags: bool = True,
        **options: Any,
    ) -> Detection:
        """Detect sound events; see :class:`SoundEventModel`.

        Args:
            features: name -> ``(batch, mel, frames)``.
            padding: true where a frame is padding, ``(batch, frames)``.
            windows: sliding windows of the encoder.
            temperature: divides the logits; below one sharpens.
            tags: whether anything reads the tag branch, the encoder's last blocks behind it included.
            options: none are known.
        """
        if options:
            raise TypeError(f"a frame detector has no option {sorted(options)[0]!r}")
        output = self.backbone(features, windows=windows, tokens=tags and self.has_tags)
        detection = self.head(output.frames, output.tokens, padding, temperature)
        detection.encoded = output.encoded
        return detection
