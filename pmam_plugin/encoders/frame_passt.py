"""Frame-PaSST: PaSST's Transformer over tokens of 40 ms instead of patches (PretrainedSED, Schmid et al., 2024)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmam_plugin.config import configurable
from pmam_plugin.encoders.base import EncoderOutput, FrameEncoder, Wanted
from pmam_plugin.encoders.passt import SPECIAL_TOKENS, PaSST

_CHANNELS = (16, 32, 64)
_ROWS = 4  # channels of the last convolution that become rows of one


class FramePaSST(PaSST):
    """The backbone, with the parameter names of the published checkpoints.

    Args:
        dim: width.
        mel_bins: height of the spectrogram, a multiple of four.
        time_tokens: tokens its position table is made for (250: 10 s).
        size: ``depth`` and ``heads`` of :class:`PaSST`.
    """

    def __init__(self, dim: int = 768, mel_bins: int = 128, time_tokens: int = 250, **size: int) -> None:
        super().__init__(dim=dim, mel_bins=mel_bins, time_patches=time_tokens, **size)
        first, second, third = _CHANNELS
        self.frequency_patches = 1
        self.freq_new_pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, dim, 1, 1), std=0.02))
        self.conv_in_1 = nn.Conv2d(1, first, 3, 2, 1)
        self.conv_in_2 = nn.Conv2d(first, second, 3, 1, 1)
        self.conv_in_3 = nn.Conv2d(second, third, 3, 2, 1)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(third // _ROWS, dim, (mel_bins, 2))})

    def _patches(self, mel: Tensor) -> Tensor:
        image = mel.unsqueeze(1)
        for convolution in (self.conv_in_1, self.conv_in_2, self.conv_in_3):
            image = functional.gelu(convolution(image))
        image = image.unflatten(1, (-1, _ROWS)).flatten(2, 3)
        # A token sees its own column and the next, zero after the end.
        tokens = self.patch_embed["proj"](functional.pad(image, (0, 1)))
        return tokens + (self._time_positions(tokens.shape[-1]) + self.freq_new_pos_embed).to(tokens.dtype)


@configurable
class FramePaSSTEncoder(FrameEncoder):
    """Frame-PaSST at 25 frames/s of a 100 frames/s log-mel; its frames are the tokens of the tag branch too.

    Embeddings ``block_1`` ... ``block_<depth>`` are block outputs after the final norm; the last equals the frames. For
    clips longer than its position table, that is stretched; the published model cuts the clip.

    Args:
        feature: name of the log-mel it reads, a :class:`~pmam_plugin.features.MobileNetMel` with ``periodic=True``.
        depth, dim, network: of :class:`FramePaSST`.
    """

    def __init__(self, feature: str = "mel", depth: int = 12, dim: int = 768, **network: int) -> None:
        super().__init__()
        self.feature, self.frame_rate = feature, 25.0
        self.dim = self.token_dim = dim
        self.layers = tuple(f"block_{number}" for number in range(1, depth + 1))
        self.transformer = FramePaSST(depth=depth, dim=dim, **network)

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """One for every started four mel frames."""
        return (feature_frames[self.feature] + 3) // 4

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted) -> EncoderOutput:
        """See :class:`FrameEncoder`."""
        blocks = {name: int(name.removeprefix("block_")) for name in wanted.embed}
        hidden = self.transformer(features[self.feature], layers=set(blocks.values()))
        assert hidden.final is not None
        frames = hidden.final[:, SPECIAL_TOKENS:]
        embeddings = {name: self.transformer.norm(hidden.layers[block][:, 0]) for name, block in blocks.items()}
        return EncoderOutput(frames, frames, embeddings)
