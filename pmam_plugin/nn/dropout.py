"""Dropout that does not wait for the random generator on CPUs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 2**16


class Dropout(nn.Dropout):
    """Torch's dropout; on CPUs four elements share a 64-bit draw.

    There torch draws one number per element on a single core, which took half of the training step of a convolutional
    network. 16 bits decide here, so the rate is rounded to 1 / 65536 (and the rest scaled by the rounded rate: the
    expectation is exact). Draws come from torch's default generator, as ever.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Zero elements of ``input`` (any shape) at the rate ``p`` in training; the identity in evaluation."""
        dropped = round(self.p * _LEVELS)
        if not self.training or self.inplace or input.device.type != "cpu" or dropped in (0, _LEVELS):
            return super().forward(input)
        draws = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        layout = torch.empty_like(input, device="meta")  # the product is fastest where both are laid out alike
        bits = draws.view(torch.int16).as_strided(layout.shape, layout.stride())
        keep = (bits >= dropped - _LEVELS // 2).to(input.dtype)
        return input * keep.mul_(_LEVELS / (_LEVELS - dropped))
