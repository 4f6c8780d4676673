"""Audio tagging on weak labels, the first stage of SP-SEDT: it teaches the backbone what sounds look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.features import FrontEnds
from pmam_plugin.nn.query_decoder import SetInput


@configurable
class AudioTagger(nn.Module):
    """Backbone, pooling over time and frequency, two linear layers (SP-SEDT, section 3.2).

    Args:
        frontend: gives the features ``mel``, the same as SEDT's.
        backbone: what the stage trains; its state dict loads into a SEDT's backbone as it is.
        labels: class names.
        hidden: width of the hidden layer.
        pooling: ``"max"``, as published for DESED, or ``"mean"``, as the pretext task reads the same features.

    Raises:
        ValueError: another pooling.
    """

    def __init__(
        self, frontend: FrontEnds, backbone: SetInput, labels: Sequence[str], hidden: int = 1000, pooling: str = "max"
    ) -> None:
        super().__init__()
        if pooling not in ("max", "mean"):
            raise ValueError(f"pooling is max or mean, not {pooling!r}")
        self.frontend, self.backbone, self.labels = frontend, backbone, tuple(labels)
        self.sample_rate, self.pooling = frontend.sample_rate, pooling
        self.head = nn.Sequential(nn.Linear(backbone.channels, hidden), nn.ReLU(), nn.Linear(hidden, len(self.labels)))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Tag logits, ``(batch, classes)``, for BCE with logits; features as for SEDT."""
        maps = self.backbone(features["mel"])
        return self.head(maps.amax(dim=(2, 3)) if self.pooling == "max" else maps.mean(dim=(2, 3)))
