"""Stacked convolutions with context gating, as in the DCASE baseline's CRNN and PMAM's CNN branch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.nn.cpu import Dropout

PMAM_CHANNELS = (16, 16, 32, 32, 64, 64, 128, 128, 256, 384)
PMAM_POOLING = ((2, 2), (1, 1), (2, 2), (1, 1), (1, 2), (1, 2), (1, 2), (1, 2), (1, 2), (1, 1))


class GatedConvolution(nn.Module):
    """Convolution (3 x 3), batch norm, context gating, dropout, average pooling.

    Context gating multiplies every point by the sigmoid of a linear map over its channels.
    """

    def __init__(
        self, channels_in: int, channels: int, pooling: tuple[int, int], dropout: float, momentum: float
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels, eps=1e-3, momentum=momentum)
        self.gate = nn.Linear(channels, channels)
        self.dropout = Dropout(dropout)
        self.pool = nn.AvgPool2d(pooling) if max(pooling) > 1 else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """``(batch, channels_in, time, mel) -> (batch, channels, time // p, mel // q)``."""
        image = self.norm(self.conv(image))
        gate = torch.sigmoid(self.gate(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return self.pool(self.dropout(image * gate))


@configurable
class ConvStack(nn.Module):
    """A stack of gated convolutions over a spectrogram.

    Args:
        channels: output channels of each stage.
        pooling: (time, mel) pooling of each stage.
        dropout: rate after every gating.
        momentum: of the batch norms, as PyTorch counts it: the share of the newest batch in the running statistics.
            The published systems train with 0.99 (a Keras number), which makes evaluation depend on the last batch.

    Attributes:
        channels: width of the output.
        time_factor: input frames per output frame.
    """

    def __init__(
        self,
        channels: Sequence[int] = PMAM_CHANNELS,
        pooling: Sequence[Sequence[int]] = PMAM_POOLING,
        dropout: float = 0.5,
        momentum: float = 0.01,
    ) -> None:
        super().__init__()
        if len(channels) != len(pooling):
            raise ValueError(f"{len(channels)} stages of channels but {len(pooling)} of pooling")
        self.channels = int(channels[-1])
        self.time_factor = math.prod(time for time, _ in pooling)
        inputs = (1, *channels[:-1])
        self.stages = nn.ModuleList(
            GatedConvolution(before, after, (time, mel), dropout, momentum)
            for before, after, (time, mel) in zip(inputs, channels, pooling, strict=True)
        )

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, mel, frames) -> (batch, channels, frames', mel')``."""
        # Channels last: the gating is then a plain matrix product, and oneDNN's convolutions need no reordering.
        image = features.transpose(1, 2).unsqueeze(1).contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            image = stage(image)
        return image

    def output_frames(self, frames: int) -> int:
        """Number of frames after all pooling."""
        return frames // self.time_factor
