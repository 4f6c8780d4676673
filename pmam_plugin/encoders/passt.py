"""PaSST, a Vision Transformer over log-mel patches (Koutini et al., Interspeech 2022), as a frame encoder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.encoders.base import Columns, EncoderOutput, FrameEncoder, Wanted, at_least
from pmam_plugin.encoders.windows import encode_windows
from pmam_plugin.nn.interpolate import Grid, interpolate_frames
from pmam_plugin.nn.pooling import FrequencyAttentionPool
from pmam_plugin.nn.vit import Block

PATCH = 16  # mel bins and mel frames of a patch
STRIDE = 10  # between patches, both ways
SPECIAL_TOKENS = 2  # class and distillation


@dataclass
class PatchTokens:
    """Hidden states of :class:`PaSST`.

    Attributes:
        layers: block number (from 1) -> ``(batch, frequency, time, dim)``, without the special tokens.
        final: output of the final norm, ``(batch, 2 + frequency * time, dim)``, class and distillation token first;
            None unless asked for.
    """

    layers: dict[int, Tensor]
    final: Tensor | None


class PaSST(nn.Module):
    """The backbone, with the parameter names of the official checkpoints, whose AudioSet heads it leaves out.

    Args:
        depth: number of blocks.
        dim: width.
        heads: attention heads.
        mel_bins: height of the spectrogram.
        time_patches: patches in time its position table is made for (99 patches: 10 s at 100 frames/s).
    """

    def __init__(
        self, depth: int = 12, dim: int = 768, heads: int = 12, mel_bins: int = 128, time_patches: int = 99
    ) -> None:
        super().__init__()
        self.dim = dim
        self.frequency_patches = (mel_bins - PATCH) // STRIDE + 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.new_pos_embed = nn.Parameter(torch.zeros(1, SPECIAL_TOKENS, dim))
        self.freq_new_pos_embed = nn.Parameter(torch.zeros(1, dim, self.frequency_patches, 1))
        self.time_new_pos_embed = nn.Parameter(torch.zeros(1, dim, 1, time_patches))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, dim, PATCH, STRIDE)})
        self.blocks = nn.ModuleList(Block(dim, heads, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters(recurse=False):
            if name.endswith(("token", "pos_embed")):
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, mel: Tensor, layers: Collection[int] = (), final: bool = True) -> PatchTokens:
        """Run as many blocks as the answer needs.

        Args:
            mel: ``(batch, mel, frames)``; fewer frames than one patch are repeated at the edge.
            layers: block numbers to return, from 1.
            final: also return the final norm's output, which needs all blocks.
        """
        grid = self._patches(mel)
        batch, _, frequency, time = grid.shape
        special = torch.cat([self.cls_token, self.dist_token], dim=1) + self.new_pos_embed
        tokens = torch.cat([special.to(grid.dtype).expand(batch, -1, -1), grid.flatten(2).transpose(1, 2)], dim=1)
        kept: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks, start=1):
            if not final and number > max(layers, default=0):
                break
            tokens = block(tokens)
            if number in layers:
                kept[number] = tokens[:, SPECIAL_TOKENS:].unflatten(1, (frequency, time))
        return PatchTokens(kept, self.norm(tokens) if final else None)

    def _patches(self, mel: Tensor) -> Tensor:
        grid = self.patch_embed["proj"](at_least(mel, PATCH).unsqueeze(1))
        return grid + (self._time_positions(grid.shape[-1]) + self.freq_new_pos_embed).to(grid.dtype)

    def _time_positions(self, patches: int) -> Tensor:
        """The time table for a number of patches, ``(1, dim, 1, patches)``.

        A shorter input takes the first columns, in training a random stretch of the table, so that all of it learns.
        A longer one spreads the table evenly by linear interpolation: order and relative place in the clip stay right,
        and at 99 patches nothing changes.
        """
        table = self.time_new_pos_embed
        if patches > table.shape[-1]:
            return interpolate_frames(table[:, :, 0].transpose(1, 2), patches).transpose(1, 2).unsqueeze(2)
        spare = table.shape[-1] - patches
        start = int(torch.randint(spare + 1, ())) if self.training and spare else 0
        return table[..., start : start + patches]


@configurable
class PaSSTEncoder(FrameEncoder):
    """Frames from a hidden layer of PaSST: pool over frequency, then interpolate to the mel's own frame rate.

    Layers for ``embed``, on one time grid: ``stream`` (what the frames are made of; the same tensor), ``normalised``
    (the same tokens after the final normalisation, mean over frequency: what the reference clusters first) and
    ``block_1 ... block_n`` (mean over frequency of that block's tokens).

    Args:
        feature: name of the log-mel it reads, 100 frames/s.
        layer: block whose tokens become frames; deeper blocks serve the tokens of the tag branch only.
        frequency_pooling: ``attention`` is learned; ``mean`` suits an encoder whose pooling was never trained.
        centred_patches: put a patch's embedding at the middle of the 16 mel frames it saw, and let of a sliding window
            count what lies between its patches' middles. The published system puts it 30 ms early and counts ten frames
            of every patch (False), which its weights and figures need.
        pooling_heads: attention heads of the frequency pooling.
        depth, dim, network: of :class:`PaSST`.
    """

    windowed = True

    def __init__(
        self,
        feature: str = "mel",
        layer: int = 10,
        frequency_pooling: Literal["attention", "mean"] = "attention",
        centred_patches: bool = True,
        pooling_heads: int = 6,
        depth: int = 12,
        dim: int = 768,
        **network: int,
    ) -> None:
        super().__init__()
        if not 1 <= layer <= depth:
            raise ValueError(f"there is no block {layer} among {depth}")
        if frequency_pooling not in ("attention", "mean"):
            raise ValueError(f"frequency_pooling is attention or mean, not {frequency_pooling!r}")
        self.feature, self.layer = feature, layer
        self.dim = self.token_dim = dim
        self.frame_rate = 100.0
        self.layers = ("stream", "normalised", *(f"block_{number}" for number in range(1, depth + 1)))
        self.transformer = PaSST(depth, dim, **network)
        self.out_norm = nn.LayerNorm(dim)
        self.pool = FrequencyAttentionPool(dim, pooling_heads) if frequency_pooling == "attention" else None
        # The middle of a patch, less the place interpolation gives it anyway.
        self.grid = Grid(STRIDE, (PATCH - STRIDE) / 2 if centred_patches else 0.0)

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """One frame for every mel frame."""
        return feature_frames[self.feature]

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted) -> EncoderOutput:
        """Encode ``features[feature]``, ``(batch, mel, frames)``; see :class:`FrameEncoder`."""
        mel = features[self.feature]
        length = mel.shape[-1]
        blocks = {self.layer, *(self._block(name) for name in wanted.embed)}
        hidden = self.transformer(mel, layers=blocks, final=wanted.tokens)
        frames = self.grid.interpolate(self._pooled(hidden, "stream"), length)
        windows = wanted.windows
        if windows is not None and length > round(windows.length_seconds * self.frame_rate):
            local = encode_windows(self._encode_window, mel, windows, self.frame_rate, self._sure)
            frames = torch.lerp(frames, local.to(frames.dtype), windows.mix)
        others = (name for name in wanted.embed if name != "stream")
        embeddings = {name: self.grid.interpolate(self._pooled(hidden, name), length) for name in others}
        clip_tokens = None if hidden.final is None else hidden.final[:, SPECIAL_TOKENS:]
        return EncoderOutput(frames, clip_tokens, {"stream": frames, **embeddings})

    def columns(self, features: Mapping[str, Tensor], layer: str) -> Columns:
        """Pooled patches, ten mel frames apart."""
        self.check_layers([layer])
        hidden = self.transformer(features[self.feature], layers={self._block(layer)}, final=False)
        return Columns(self._pooled(hidden, layer), self.grid)

    def _block(self, name: str) -> int:
        return int(name.removeprefix("block_")) if name.startswith("block_") else self.layer

    def _pooled(self, hidden: PatchTokens, name: str) -> Tensor:
        """Columns of a layer, ``(batch, time patches, dim)``."""
        tokens = hidden.layers[self._block(name)]
        if name.startswith("block_"):
            return tokens.mean(1)
        tokens = self.out_norm(tokens)
        return tokens.mean(1) if name == "normalised" or self.pool is None else self.pool(tokens)

    def _encode_window(self, mel: Tensor) -> Tensor:
        hidden = self.transformer(mel, layers={self.layer}, final=False)
        return self.grid.interpolate(self._pooled(hidden, "stream"), mel.shape[-1])

    def _sure(self, length: int) -> tuple[int, int]:
        """Frames of a window between its first and its last patch; with patches early, as published, all they span."""
        patches = max(1, (length - PATCH) // STRIDE + 1)
        return self.grid.between(patches) if self.grid.offset else (0, min(length, patches * STRIDE))
