"""A convolutional frame encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from pmam_plugin.config import configurable
from pmam_plugin.encoders.base import EncoderOutput, FrameEncoder, Wanted, at_least
from pmam_plugin.nn.cnn import PMAM_CHANNELS, PMAM_POOLING, ConvStack


@configurable
class CNNEncoder(FrameEncoder):
    """Gated convolutions: PMAM's second branch, 25 frames/s. Rows of mel bins that the pooling leaves are averaged.

    Args:
        feature: name of the log-mel it reads.
        feature_rate: frames per second of the log-mel.
        channels: output channels of each stage.
        pooling: (time, mel) pooling of each stage.
        dropout: rate after each stage's gating.
        momentum: of the batch norms, see :class:`ConvStack`.
    """

    def __init__(
        self,
        feature: str = "mel",
        feature_rate: float = 100.0,
        channels: Sequence[int] = PMAM_CHANNELS,
        pooling: Sequence[Sequence[int]] = PMAM_POOLING,
        dropout: float = 0.5,
        momentum: float = 0.01,
    ) -> None:
        super().__init__()
        self.feature = feature
        self.stack = ConvStack(channels, pooling, dropout=dropout, momentum=momentum)
        self.dim = self.stack.channels
        self.frame_rate = feature_rate / self.stack.time_factor

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """Frames after pooling; never none."""
        return max(1, self.stack.output_frames(feature_frames[self.feature]))

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted) -> EncoderOutput:
        """Encode ``features[feature]``, ``(batch, mel, frames)``; see :class:`FrameEncoder`."""
        mel = at_least(features[self.feature], self.stack.time_factor)
        return EncoderOutput(self.stack(mel).mean(dim=3).transpose(1, 2))
