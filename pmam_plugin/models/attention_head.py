"""The DCASE baseline's detection head: frame probabilities, and clip probabilities by attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.models.base import Detection
from pmam_plugin.nn.cpu import Dropout


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
