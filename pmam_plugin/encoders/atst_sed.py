"""The encoder of ATST-SED: a small CNN merged with ATST-Frame (Shao et al., ICASSP 2024); alone it is the CRNN's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmam_plugin.config import configurable
from pmam_plugin.encoders.atst import ATSTFrame
from pmam_plugin.encoders.base import EncoderOutput, FrameEncoder, Wanted
from pmam_plugin.encoders.cnn import CNNEncoder

DCASE_CHANNELS = (16, 32, 64, 128, 128, 128, 128)
DCASE_POOLING = ((2, 2), (2, 2), (1, 2), (1, 2), (1, 2), (1, 2), (1, 2))


def dcase_cnn(dropout: float = 0.5, momentum: float = 0.01) -> CNNEncoder:
    """The CNN of the DCASE baseline: 128 mel bands pooled to one, 156 frames of 64 ms per 10 s.

    Args:
        dropout: after every stage.
        momentum: of the batch norms; the published system trains with 0.99, see :class:`~pmam_plugin.nn.cnn.ConvStack`.
    """
    return CNNEncoder("crnn", 62.5, DCASE_CHANNELS, DCASE_POOLING, dropout, momentum)


@configurable
class ATSTSEDEncoder(FrameEncoder):
    """ATST-Frame and a CNN side by side: tokens averaged onto the CNN's frames, both concatenated, one linear layer.

    Its embeddings (``cnn`` and the blocks of ``atst``) are all on the CNN's time grid.

    Args:
        cnn: gives the time grid. Default: :func:`dcase_cnn`.
        atst: the transformer. Default: ATST-Frame base.
        dim: width of the merged frames.
    """

    def __init__(self, cnn: FrameEncoder | None = None, atst: FrameEncoder | None = None, dim: int = 128) -> None:
        super().__init__()
        self.cnn = dcase_cnn() if cnn is None else cnn
        self.atst = ATSTFrame() if atst is None else atst
        self.merge = nn.Linear(self.cnn.dim + self.atst.dim, dim)
        self.dim, self.frame_rate = dim, self.cnn.frame_rate
        self.layers = ("cnn", *self.atst.layers)

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted) -> EncoderOutput:
        """See :class:`FrameEncoder`."""
        local = self.cnn(features).frames
        outer = self.atst(features, embed=[name for name in wanted.embed if name != "cnn"])
        embeddings = {name: pool_frames(hidden, local.shape[1]) for name, hidden in outer.embeddings.items()}
        return EncoderOutput(self.fuse(local, outer.frames), embeddings={"cnn": local, **embeddings})

    def fuse(self, local: Tensor, tokens: Tensor) -> Tensor:
        """Merge CNN frames ``(batch, frames, cnn dim)`` and tokens ``(batch, tokens, atst dim)`` -> ``(..., dim)``."""
        return self.merge(torch.cat((local, pool_frames(tokens, local.shape[1]).to(local.dtype)), dim=-1))

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """See :class:`FrameEncoder`."""
        return self.cnn.output_frames(feature_frames)


def pool_frames(frames: Tensor, length: int) -> Tensor:
    """Average ``(batch, frames, dim)`` onto ``length`` frames: frame i is the mean of all it overlaps.

    Window i is ``[floor(i n / length), ceil((i + 1) n / length))`` of ``n`` frames: 250 tokens of 40 ms give 156 frames
    of 2 or 3 tokens each.
    """
    return functional.adaptive_avg_pool1d(frames.transpose(1, 2), length).transpose(1, 2)
