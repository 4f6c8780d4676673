"""Any frame encoder in the place of SEDT's convolutional backbone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.encoders.base import FrameEncoder
from pmam_plugin.encoders.frozen import STORED, FrozenEncoder


@configurable
class SetBackbone(nn.Module):
    """A frame encoder's ``(batch, frames, dim)`` as a map that is one frequency cell high.

    Args:
        encoder: reads the one feature of the model's front end.
        feature: its name.
        feature_rate: frames per second of that feature.

    Attributes:
        channels: width of the output.
        time_factor: feature frames per cell.
        padding_value: None: what pads a clip is the front end's silence already.

    Raises:
        ValueError: cells that are no whole number of feature frames.
    """

    padding_value: float | None = None

    def __init__(self, encoder: FrameEncoder, feature: str = "mel", feature_rate: float = 100.0) -> None:
        super().__init__()
        self.encoder, self.feature, self.channels = encoder, feature, encoder.dim
        self.time_factor = round(feature_rate / encoder.frame_rate)
        if abs(self.time_factor * encoder.frame_rate - feature_rate) > 1e-6 * feature_rate:
            raise ValueError(
                f"{feature_rate:g} feature frames/s are no multiple of the encoder's {encoder.frame_rate:g}"
            )
        self._learning = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        self._asleep = False

    def forward(self, spectrogram: Tensor) -> Tensor:
        """``(batch, mel, frames) -> (batch, dim, cells, 1)``."""
        return self._map({self.feature: spectrogram})

    def stored(self, embeddings: Tensor) -> Tensor:
        """The map of a frozen encoder's stored output, ``(batch, its dim, cells) -> (batch, dim, cells, 1)``."""
        return self._map({STORED: embeddings})

    def _map(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.encoder(features, tokens=False).frames.transpose(1, 2).unsqueeze(-1)

    def output_frames(self, frames: int) -> int:
        """Number of cells of a clip of ``frames``."""
        return self.encoder.output_frames({self.feature: frames})

    def freeze(self) -> None:
        """Let what is learned already stay as it is, for good (SP-SEDT pre-training).

        That is all of it, but for a frozen encoder's new layers: drawn at random, they would be learned under the
        network that has just been trained on them as they were.
        """
        if isinstance(self.encoder, FrozenEncoder):
            return
        self.requires_grad_(False)
        self._asleep = True
        self.train(False)

    def thaw(self) -> None:
        """Let all learn again that did when this was built (audio tagging)."""
        for name in self._learning:
            self.get_parameter(name).requires_grad_(True)
        self._asleep = False

    def train(self, mode: bool = True) -> SetBackbone:
        """Set the mode; a frozen one stays in evaluation mode."""
        return super().train(mode and not self._asleep)
