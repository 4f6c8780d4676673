"""What a set-prediction network says about a batch of clips."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class SetOutput:
    """Predictions of every decoder layer; the last layer is the answer, the others serve auxiliary losses.

    Attributes:
        layer_logits: class logits, ``(layers, batch, queries, classes + 1)``, no-object last.
        layer_boxes: (centre, length) as fractions of the span, ``(layers, batch, queries, 2)``, in [0, 1].
        tag_logits: clip-level logits of the audio query, ``(batch, classes)``, or None.
        layer_features: reconstructed patch features, ``(layers, batch, queries, feature_dim)``, or None.
        span_seconds: what 1.0 of a box stands for, s.
        denoising: of queries that started from noised events (DN-DETR), group after group, in training; else None.
    """

    layer_logits: Tensor
    layer_boxes: Tensor
    tag_logits: Tensor | None = None
    layer_features: Tensor | None = None
    span_seconds: float = 10.0
    denoising: SetOutput | None = None

    @property
    def logits(self) -> Tensor:
        """Class logits of the last layer, ``(batch, queries, classes + 1)``."""
        return self.layer_logits[-1]

    @property
    def boxes(self) -> Tensor:
        """Boxes of the last layer, ``(batch, queries, 2)``."""
        return self.layer_boxes[-1]

    def tags(self, temperature: float = 1.0) -> Tensor | None:
        """Clip-level probabilities of the audio query, ``(batch, classes)``, or None without one."""
        return None if self.tag_logits is None else (self.tag_logits.float() / temperature).sigmoid()

    def probabilities(self, temperature: float = 1.0) -> Tensor:
        """Probability of each class per query, no-object left out, ``(batch, queries, classes)``."""
        return (self.logits.float() / temperature).softmax(dim=-1)[..., :-1]
