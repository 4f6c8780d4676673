"""Frame-MobileNet: MobileNetV3 that strides over frequency more than over time (Schmid et al., 2024), as an encoder.

Parameter names are those of the published checkpoints, so that they load strictly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmam_plugin.config import configurable
from pmam_plugin.encoders.base import EncoderOutput, FrameEncoder, Wanted
from pmam_plugin.encoders.yamnet import pool_frequency

# Of every block: kernel, expanded and output channels at width 1, squeeze-excitation, Hardswish instead of ReLU,
# stride in frequency, stride in time.
_BLOCKS = (
    (3, 16, 16, False, False, 1, 1),
    (3, 64, 24, False, False, 2, 2),
    (3, 72, 24, False, False, 2, 1),
    (5, 72, 40, True, False, 1, 1),
    (5, 120, 40, True, False, 1, 1),
    (5, 120, 40, True, False, 2, 1),
    (3, 240, 80, False, True, 1, 1),
    (3, 200, 80, False, True, 2, 1),
    (3, 184, 80, False, True, 1, 1),
    (3, 184, 80, False, True, 1, 1),
    (3, 480, 112, True, True, 2, 1),
    (3, 672, 112, True, True, 1, 1),
    (5, 672, 160, True, True, 1, 1),
    (5, 960, 160, True, True, 1, 1),
    (5, 960, 160, True, True, 2, 1),
)
_STEM = 16
_LAST = 6  # channels of the last layer in units of those before it


def rounded_width(channels: float) -> int:
    """The nearest multiple of eight, at least eight and never below nine tenths of ``channels``."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def unit(
    inputs: int,
    outputs: int,
    kernel: int,
    activation: Callable[[], nn.Module] | None,
    stride: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
    ]
    return nn.Sequential(*layers, *([] if activation is None else [activation()]))


class SqueezeExcitation(nn.Module):
    """Every channel times a gate, which a small network makes of all channels' means over the whole clip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = rounded_width(channels // 4)
        gate = {"fc1": nn.Linear(channels, hidden), "fc2": nn.Linear(hidden, channels)}
        self.conc_se_layers = nn.ModuleList([nn.ModuleDict(gate)])

    def forward(self, image: Tensor) -> Tensor:
        """``(batch, channels, frequency, time)``."""
        return image * self.gate(image)[:, :, None, None]

    def gate(self, image: Tensor) -> Tensor:
        """``(batch, channels)`` in (0, 1)."""
        layers = self.conc_se_layers[0]
        assert isinstance(layers, nn.ModuleDict)
        return layers["fc2"](layers["fc1"](image.mean(dim=(2, 3))).relu()).sigmoid()


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze-excitation, projection; the input is added where shapes allow it."""

    def __init__(self, inputs: int, row: tuple[int, int, int, bool, bool, int, int], width: float) -> None:
        super().__init__()
        kernel, middle, outputs, squeeze, hardswish, *stride = row
        middle, outputs = rounded_width(middle * width), rounded_width(outputs * width)
        activation = nn.Hardswish if hardswish else nn.ReLU
        expansion = [] if middle == inputs else [unit(inputs, middle, 1, activation)]
        depthwise = unit(middle, middle, kernel, activation, (stride[0], stride[1]), middle)
        excitation = [SqueezeExcitation(middle)] if squeeze else []
        self.block = nn.Sequential(*expansion, depthwise, *excitation, unit(middle, outputs, 1, None))
        self.residual = stride == [1, 1] and inputs == outputs
        self.channels = outputs

    def forward(self, image: Tensor) -> Tensor:
        """``(batch, channels, frequency, time)``."""
        return image + self.block(image) if self.residual else self.block(image)


@configurable
class FrameMobileNetEncoder(FrameEncoder):
    """Frame-MobileNet at 25 frames/s of a 100 frames/s log-mel, of any length; no windows, no tokens.

    Squeeze-excitation averages over the clip, so that silence behind a short clip moves all of its scores. Layers for
    ``embed``: ``stage_0 ... stage_16``, averaged over frequency, and over time where they are faster.

    Args:
        width: factor of all channels; 0.4, 0.6, 1, 2 and 3 are published (fmn04 ... fmn30).
        feature: name of the log-mel it reads, a :class:`~pmam_plugin.features.MobileNetMel`.
    """

    def __init__(self, width: float = 1.0, feature: str = "mel") -> None:
        super().__init__()
        self.feature, self.frame_rate = feature, 25.0
        channels = rounded_width(_STEM * width)
        stages: list[nn.Module] = [unit(1, channels, 3, nn.Hardswish, (2, 2))]
        for row in _BLOCKS:
            stages.append(InvertedResidual(channels, row, width))
            channels = rounded_width(row[2] * width)
        stages.append(unit(channels, _LAST * channels, 1, nn.Hardswish))
        self.features = nn.ModuleList(stages)
        self.dim = _LAST * channels
        self.layers = tuple(f"stage_{number}" for number in range(len(stages)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """One for every started four mel frames."""
        return (feature_frames[self.feature] + 3) // 4

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted) -> EncoderOutput:
        """See :class:`FrameEncoder`."""
        mel = features[self.feature]
        image = mel.unsqueeze(1).contiguous(memory_format=torch.channels_last)
        length = self.output_frames({self.feature: mel.shape[-1]})
        embeddings = {}
        for name, stage in zip(self.layers, self.features, strict=True):
            image = stage(image)
            if name in wanted.embed:
                embeddings[name] = _frames(image, length)
        return EncoderOutput(_frames(image, length), embeddings=embeddings)


def _frames(image: Tensor, length: int) -> Tensor:
    """``(batch, channels, frequency, time)`` -> ``(batch, length, channels)``, time being ``length`` or twice that."""
    short = 2 * length - image.shape[-1]
    if short < length:
        image = functional.avg_pool2d(functional.pad(image, (0, short, 0, 0), mode="replicate"), (1, 2))
    return pool_frequency(image.transpose(2, 3), "mean")
