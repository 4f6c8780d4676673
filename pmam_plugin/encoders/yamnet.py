"""YAMNet (TensorFlow Model Garden, research/audioset/yamnet): MobileNetV1 on log-mel, learned on AudioSet's clips."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmam_plugin.config import configurable
from pmam_plugin.encoders.base import EncoderOutput, FrameEncoder, Wanted

MEL_RATE, MEL_BANDS = 100.0, 64
PATCH = 96  # mel frames of the clips it learned on
STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
CHANNELS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
SILENCE = math.log(0.001)  # what the front end makes of zeros
# Mel frame m hears the 400 samples from 160 m on: its middle lies 1.25 hops after its first sample.
_MIDDLE = 1.25
_POOLINGS = {"mean": 1, "max": 1, "mean_max": 2, "keep": 0}


class SeparableConvolution(nn.Module):
    """The weights of a layer: depthwise 3x3, then pointwise 1x1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, groups=inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)


class YAMNet(nn.Module):
    """The layers of the network, without its classifier.

    A trained network's batch norms are affine maps. The importer folds them into the convolutions, so that nothing in
    here depends on the other clips of a batch, in training either.

    Args:
        channels: outputs of each layer; fewer entries build the first layers only.
    """

    def __init__(self, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        if not 1 <= len(channels) <= len(STRIDES):
            raise ValueError(f"YAMNet has 1 to {len(STRIDES)} layers, not {len(channels)}")
        self.channels = tuple(channels)
        self.conv = nn.Conv2d(1, channels[0], 3)
        self.blocks = nn.ModuleList(SeparableConvolution(*pair) for pair in itertools.pairwise(channels))

    def forward(self, image: Tensor, layers: int, time_stride: int = 32, edge: float = 0.0) -> list[Tensor]:
        """Maps of the first layers.

        Padding is TensorFlow's for even lengths: where a layer strides, nothing before and one after. Where the
        stride in time is used up a layer dilates its kernel instead, every weight in place.

        Args:
            image: ``(batch, 1, frames, mel)``; frames a multiple of the strides.
            layers: how many to compute.
            time_stride: the largest stride in time, mel frames.
            edge: what lies before and after the image in time; the published network has zero, a loud sound.

        Returns:
            For each layer ``(batch, channels, frames / its stride, cells)``.
        """
        image = image.contiguous(memory_format=torch.channels_last)
        maps: list[Tensor] = []
        reached, dilation = 1, 1
        for number, stride in enumerate(STRIDES[:layers]):
            step = stride if reached * stride <= time_stride else 1
            kernel = cast(nn.Conv2d, self.blocks[number - 1].depthwise if number else self.conv)
            before, after = (0, 1) if step == 2 else (dilation, dilation)
            image = functional.pad(image, (0, 0, before, after), value=0.0 if number else edge)
            image = functional.pad(image, (stride % 2, 1))
            image = functional.conv2d(
                image, kernel.weight, kernel.bias, (step, stride), 0, (dilation, 1), kernel.groups
            ).relu_()
            if number:
                image = cast(nn.Conv2d, self.blocks[number - 1].pointwise)(image).relu_()
            reached, dilation = reached * step, dilation * stride // step
            maps.append(image)
        return maps


class YAMNetFrames(FrameEncoder):
    """What both ways of running the network over a clip share; see :class:`YAMNetEncoder`."""

    def __init__(self, hop: int, taps: Mapping[str, str], channels: Sequence[int], feature: str) -> None:
        super().__init__()
        self.network = YAMNet(channels)
        self.hop, self.feature, self.taps = hop, feature, dict(taps)
        self.frame_rate = MEL_RATE / hop
        self.layers = tuple(f"layer_{number}" for number in range(1, len(channels) + 1))
        self.check_layers(self.taps)
        unknown = sorted(set(self.taps.values()) - set(_POOLINGS))
        if unknown or not self.taps:
            raise ValueError(f"taps map layers to one of {', '.join(_POOLINGS)}, not to {unknown or 'nothing'}")
        self.dim = sum(self._width(self._number(name), pooling) for name, pooling in self.taps.items())

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted) -> EncoderOutput:
        """Encode ``features[feature]``, ``(batch, mel, frames)``; see :class:`FrameEncoder`.

        Layers asked for come as the mean over frequency.
        """
        layers = [*self.taps.items(), *((name, "mean") for name in wanted.embed)]
        found = self._encode(features[self.feature], [(self._number(name), pooling) for name, pooling in layers])
        taps = len(self.taps)
        return EncoderOutput(torch.cat(found[:taps], dim=-1), embeddings=dict(zip(wanted.embed, found[taps:])))

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """One for every started ``hop`` of mel frames."""
        return (feature_frames[self.feature] + self.hop - 1) // self.hop

    def _encode(self, mel: Tensor, wanted: Sequence[tuple[int, str]]) -> list[Tensor]:
        """``(batch, mel, frames)`` and (layer, pooling) pairs -> for each ``(batch, output frames, width)``."""
        raise NotImplementedError

    def _width(self, layer: int, pooling: str) -> int:
        cells = MEL_BANDS // math.prod(STRIDES[:layer])
        return self.network.channels[layer - 1] * (_POOLINGS[pooling] or cells)

    @staticmethod
    def _number(name: str) -> int:
        return int(name.removeprefix("layer_"))


@configurable
class YAMNetEncoder(YAMNetFrames):
    """YAMNet over a whole clip at once, at a finer stride in time than it learned with.

    The network saw patches of 0.96 s, and the edges of its padding belong to what it learned; without them its
    embeddings are others, at a tenth of the cost of :class:`YAMNetPatches` (for which its classifier is made).
    A frame's receptive field is 2.2 s at layer 12, 3.2 s at layer 14.

    Args:
        hop: mel frames (10 ms) per output frame: 4, 8, 16 or 32, as published at the top.
        taps: layer (``layer_1 ... layer_14``) -> what becomes of its frequency cells: mean, max, mean_max or keep;
            taps are concatenated, ``keep`` as (channel, cell).
        channels: outputs of each layer; fewer entries build the first layers only.
        feature: name of the log-mel it reads.
    """

    def __init__(
        self,
        hop: int = 8,
        taps: Mapping[str, str] | None = None,
        channels: Sequence[int] = CHANNELS,
        feature: str = "mel",
    ) -> None:
        if hop not in (4, 8, 16, 32):
            raise ValueError(f"hop is 4, 8, 16 or 32 mel frames, not {hop}")
        super().__init__(hop, taps or {f"layer_{len(channels)}": "mean"}, channels, feature)

    def _encode(self, mel: Tensor, wanted: Sequence[tuple[int, str]]) -> list[Tensor]:
        # Strides look ahead only: cell j of stride s has its middle at mel frame s j + s - 1.
        before = round(self.hop / 2 - 1 + _MIDDLE)
        frames = self.output_frames({self.feature: mel.shape[-1]})
        after = frames * self.hop - mel.shape[-1]
        # The clip lies in silence, not in zeros, which are loud in log-mel.
        mel = functional.pad(mel, (before, after), value=SILENCE)[..., : frames * self.hop]
        deepest = max(number for number, _ in wanted)
        maps = self.network(mel.transpose(1, 2).unsqueeze(1), deepest, self.hop, SILENCE)
        found = []
        for number, pooling in wanted:
            cells = maps[number - 1]
            finer = cells.shape[2] // frames
            if finer > 1:
                cells = cells.unflatten(2, (frames, finer)).mean(dim=3)
            found.append(pool_frequency(cells, pooling))
        return found


@configurable
class YAMNetPatches(YAMNetFrames):
    """YAMNet patch by patch, as published, at any hop.

    Args:
        hop: mel frames (10 ms) from patch to patch; 48 as published.
        centred: a patch lies around the middle of its frame, the clip in silence. As published, patch ``i`` starts
            where frame ``i`` does, and the last one is filled up with silence.
        taps: see :class:`YAMNetEncoder`.
        whole: average a patch over its time cells, as the published embedding; otherwise its middle cell.
        channels: outputs of each layer; fewer entries build the first layers only.
        feature: name of the log-mel it reads.
    """

    def __init__(
        self,
        hop: int = 48,
        centred: bool = False,
        taps: Mapping[str, str] | None = None,
        whole: bool = True,
        channels: Sequence[int] = CHANNELS,
        feature: str = "mel",
    ) -> None:
        if hop < 1:
            raise ValueError(f"hop is at least one mel frame, not {hop}")
        super().__init__(hop, taps or {f"layer_{len(channels)}": "mean"}, channels, feature)
        self.centred, self.whole = centred, whole
        self.patches_at_once: int | None = 64  # their first maps would take gigabytes together

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """Centred: one for every started hop. As published: patches until every sample but the last 5 ms is heard."""
        if self.centred:
            return super().output_frames(feature_frames)
        # The last patch hears most of the two frames after it; the published count turns half a frame later.
        return 1 + max(0, (feature_frames[self.feature] - PATCH - 2 + self.hop - 1) // self.hop)

    def _encode(self, mel: Tensor, wanted: Sequence[tuple[int, str]]) -> list[Tensor]:
        count = self.output_frames({self.feature: mel.shape[-1]})
        before = round((PATCH - 1 - self.hop) / 2 + _MIDDLE) if self.centred else 0
        after = max(0, (count - 1) * self.hop + PATCH - before - mel.shape[-1])
        padded = functional.pad(mel, (before, after), value=SILENCE)[..., : (count - 1) * self.hop + PATCH]
        starts = torch.arange(count, device=mel.device) * self.hop
        patches = padded.transpose(1, 2)[:, starts[:, None] + torch.arange(PATCH, device=mel.device)]
        deepest = max(number for number, _ in wanted)
        patches = patches.flatten(0, 1).unsqueeze(1)
        parts = (patches,) if self.patches_at_once is None else patches.split(self.patches_at_once)
        pieces = [self._pool(self.network(part, deepest), wanted) for part in parts]
        return [torch.cat(layer).unflatten(0, (-1, count)) for layer in zip(*pieces, strict=True)]

    def _pool(self, maps: list[Tensor], wanted: Sequence[tuple[int, str]]) -> list[Tensor]:
        found = []
        for number, pooling in wanted:
            cells = maps[number - 1]
            if not self.whole:
                stride = PATCH // cells.shape[2]
                middle = round((PATCH + 1) / 2 / stride - 1)
                cells = cells[:, :, middle : middle + 1]
            found.append(pool_frequency(cells.mean(dim=2, keepdim=True), pooling)[:, 0])
        return found


def pool_frequency(cells: Tensor, pooling: str) -> Tensor:
    """``(batch, channels, time, cells)`` -> ``(batch, time, channels)``; twice as wide: mean_max, times cells: keep."""
    cells = cells.permute(0, 2, 1, 3)
    if pooling == "keep":
        return cells.flatten(2)
    if pooling == "max":
        return cells.amax(dim=3)
    mean = cells.mean(dim=3)
    return mean if pooling == "mean" else torch.cat((mean, cells.amax(dim=3)), dim=-1)
