"""PaSST as its authors publish it, with the AudioSet heads that nothing here needs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pmam_plugin.encoders.passt import PaSST


class OfficialPaSST(PaSST):
    """159 tensors at full size, by their official names."""

    def __init__(self, *size: int, classes: int = 527, **sizes: Any) -> None:
        super().__init__(*size, **sizes)
        self.head = nn.Sequential(nn.LayerNorm(self.dim), nn.Linear(self.dim, classes))
        self.head_dist = nn.Linear(self.dim, classes)
        self._initialise()

    def classify(self, mel: Tensor) -> Tensor:
        """AudioSet logits, ``(batch, classes)``: the mean of both special tokens through the first head."""
        final = self.forward(mel).final
        assert final is not None
        return self.head(final[:, :2].mean(dim=1))
