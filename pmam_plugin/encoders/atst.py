"""ATST-Frame: a transformer over 40 ms tokens, pre-trained to predict frame embeddings (Li et al., TASLP 2024).

Parameter names are those of the published checkpoints, so that they load strictly (138 tensors for base).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmam_plugin.config import configurable
from pmam_plugin.encoders.base import EncoderOutput, FrameEncoder, Wanted
from pmam_plugin.nn.vit import Block

PATCH = 4  # mel frames per token


class MelPatches(nn.Module):
    """Cut a log-mel spectrogram into full-height patches and embed each: one token per four frames.

    A patch is flattened mel-major, time inside. Frames that do not fill a patch are dropped, as in the reference
    (1001 frames give 250 tokens).
    """

    def __init__(self, n_mels: int, dim: int) -> None:
        super().__init__()
        self.patch_embed = nn.Linear(n_mels * PATCH, dim)

    def forward(self, mel: Tensor) -> Tensor:
        """``(batch, mel, frames)`` -> ``(batch, frames // 4, dim)``."""
        batch, n_mels, frames = mel.shape
        tokens = frames // PATCH
        patches = mel[..., : tokens * PATCH].reshape(batch, n_mels, tokens, PATCH)
        return self.patch_embed(patches.permute(0, 2, 1, 3).flatten(2))


@configurable
class ATSTFrame(FrameEncoder):
    """The ATST-Frame encoder: 64 x 4 patches of a 100 frames/s log-mel, pre-norm transformer, final norm.

    Base has ``dim=768, heads=12`` (85 419 264 parameters), small ``dim=384, heads=6``. There is no class token: entry
    0 of the position table, a slot for one, is never used. Padding is not masked in the attention: the model was
    trained on padded clips without a mask.

    Embeddings ``block_1`` ... ``block_<depth>`` are block outputs after the final norm, as the authors concatenate
    them for downstream tasks; the last one equals the frames.

    Args:
        dim: token width.
        depth: number of blocks.
        heads: attention heads.
        n_mels: mel bands, the height of a patch.
        max_tokens: tokens the position table covers; the table is stretched linearly for longer clips.
        drop_path: largest stochastic depth rate, growing linearly from 0 at the first block (0.1 in pre-training).
        dropout: in the attention's projection and the MLP.
        feature: name of the front end's feature it reads.
    """

    def __init__(
        self,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        n_mels: int = 64,
        max_tokens: int = 250,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        feature: str = "atst",
    ) -> None:
        super().__init__()
        self.dim, self.feature, self.max_tokens = dim, feature, max_tokens
        self.frame_rate = 100.0 / PATCH
        self.layers = tuple(f"block_{index + 1}" for index in range(depth))
        self.mask_embed = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, max_tokens + 1, dim))
        self.patch_embed = MelPatches(n_mels, dim)
        blocks = [
            Block(dim, heads, proj_drop=dropout, drop_path=drop_path * index / max(1, depth - 1))
            for index in range(depth)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.norm_frame = nn.LayerNorm(dim, eps=1e-6)
        self._initialise()

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted, mask: Tensor | None = None) -> EncoderOutput:
        """Tokens as frames, ``(batch, tokens, dim)``.

        Args:
            features: holds ``feature``, ``(batch, mel, frames)``.
            wanted: which normalised block outputs to return too.
            mask: true where a token is hidden, ``(batch, tokens)``; for pre-training.

        Raises:
            ValueError: fewer mel frames than one patch.
        """
        hidden = self.patch_embed(features[self.feature])
        if not hidden.shape[1]:
            raise ValueError(f"ATSTFrame needs at least {PATCH} mel frames; pad the audio")
        if mask is not None:
            hidden = torch.where(mask.unsqueeze(-1), self.mask_embed.to(hidden.dtype), hidden)
        hidden = hidden + self.positions(hidden.shape[1])
        embeddings = {}
        for name, block in zip(self.layers, self.blocks, strict=True):
            hidden = block(hidden)
            if name in wanted.embed:
                embeddings[name] = self.norm_frame(hidden)
        return EncoderOutput(self.norm_frame(hidden), embeddings=embeddings)

    def positions(self, tokens: int) -> Tensor:
        """Position embeddings of a sequence, ``(1, tokens, dim)``: the table's first entries, or all stretched."""
        table = self.pos_embed[:, 1:]
        if tokens <= table.shape[1]:
            return table[:, :tokens]
        return functional.interpolate(table.transpose(1, 2), size=tokens, mode="linear").transpose(1, 2)

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """See :class:`FrameEncoder`."""
        return feature_frames[self.feature] // PATCH

    def _initialise(self) -> None:
        for parameter in (self.mask_embed, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
