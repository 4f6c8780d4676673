"""A small frame encoder that trains in minutes on a CPU."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.encoders.base import EncoderOutput, FrameEncoder, Wanted, at_least
from pmam_plugin.nn.vit import Block

FACTOR = 4  # mel frames per output frame


class PatchStem(nn.Module):
    """Two strided convolutions, then one linear map over what is left of frequency: a patch of four mel frames a frame.

    Kernels of four with stride two keep every output frame in the middle of the four mel frames it stands for.
    """

    def __init__(self, mel_bins: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, (4, 3), stride=2, padding=1)
        self.norm1 = nn.BatchNorm2d(24)
        self.conv2 = nn.Conv2d(24, 48, (4, 3), stride=2, padding=1)
        self.norm2 = nn.BatchNorm2d(48)
        height = ((mel_bins + 1) // 2 + 1) // 2
        self.projection = nn.Linear(48 * height, dim)

    def forward(self, mel: Tensor) -> Tensor:
        """``(batch, mel, 4 T) -> (batch, T, dim)``."""
        image = mel.transpose(1, 2).unsqueeze(1).contiguous(memory_format=torch.channels_last)
        image = nn.functional.relu(self.norm1(self.conv1(image)))
        image = nn.functional.relu(self.norm2(self.conv2(image)))
        return self.projection(image.permute(0, 2, 3, 1).flatten(2))


@configurable
class PatchEncoder(FrameEncoder):
    """Convolutional patch embedding and a few Transformer blocks; 25 frames/s from a log-mel of 100 frames/s.

    Order within reach comes from a depthwise convolution over time instead of a position table, so any length is like
    any other. Tokens of the tag branch are the frames. Layers for ``embed``: ``stem`` and ``block_1 ... block_n``.

    Args:
        feature: name of the log-mel it reads.
        mel_bins: its height.
        dim: width.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: width of the feed-forward parts in units of ``dim``.
        context_frames: output frames on each side that the blocks may draw on, all of them together; None is no limit.
            Masked modelling hides frames *after* the encoder: where every frame has seen the whole clip, its
            neighbours give away what is hidden.
        dropout: in the blocks.
    """

    def __init__(
        self,
        feature: str = "mel",
        mel_bins: int = 64,
        dim: int = 160,
        depth: int = 3,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        context_frames: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if context_frames is not None and context_frames < depth:
            raise ValueError(f"context_frames of {context_frames} leaves less than a frame to each of {depth} blocks")
        self.feature, self.context_frames = feature, context_frames
        self.dim = self.token_dim = dim
        self.frame_rate = 100.0 / FACTOR
        self.layers = ("stem", *(f"block_{number}" for number in range(1, depth + 1)))
        self.stem = PatchStem(mel_bins, dim)
        self.position = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        blocks = [Block(dim, heads, mlp_ratio, qkv_bias=True, proj_drop=dropout) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """One frame for every four mel frames; never none."""
        return max(1, feature_frames[self.feature] // FACTOR)

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted) -> EncoderOutput:
        """Encode ``features[feature]``, ``(batch, mel, frames)``; see :class:`FrameEncoder`."""
        mel = at_least(features[self.feature], FACTOR)
        frames = self.stem(mel[..., : mel.shape[-1] // FACTOR * FACTOR])
        frames = frames + self.position(frames.transpose(1, 2)).transpose(1, 2)
        kept = {"stem": frames}
        nearby = self._nearby(frames)
        for number, block in enumerate(self.blocks, start=1):
            frames = block(frames) if nearby is None else block(frames, attn_mask=nearby)
            kept[f"block_{number}"] = frames
        frames = self.norm(frames)
        return EncoderOutput(frames, frames, kept)

    def _nearby(self, frames: Tensor) -> Tensor | None:
        """Which frames may attend to which, ``(T, T)``; None where all may."""
        if self.context_frames is None:
            return None
        reach = self.context_frames // len(self.blocks)
        index = torch.arange(frames.shape[1], device=frames.device)
        return (index[:, None] - index).abs() <= reach
