"""A timm ResNet over a one-channel spectrogram: the backbone of SEDT and its kin."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.errors import InputError
from pmam_plugin.weights import read_tensors


@configurable
class SpectrogramResNet(nn.Module):
    """A two-dimensional ResNet without its classifier.

    Time is the first image axis, mel frequency the second, as in published weights. With output stride 16 the last
    stage is dilated instead of strided, so that a cell covers 16 frames (0.32 s for SEDT). Parameters keep
    torchvision's names below ``body``.

    Weights are random until :meth:`load_imagenet` or a state dict fills them. Freezing follows the reference, which
    starts from ImageNet; a backbone trained from scratch needs ``frozen_norm=False, frozen=()``.

    Args:
        name: a timm ResNet (resnet18 ... resnet152), with a tag where pretrained weights are chosen by it
            (``resnet50.tv_in1k``, the published start).
        output_stride: 8, 16 or 32 frames (and mel bands) per cell.
        colour_projection: map the one channel to three by a learned 1x1 convolution, as published; otherwise the
            first convolution has one input channel.
        frozen_norm: batch norm uses its stored statistics and does not learn.
        frozen: children of the ResNet that do not learn.
        widths: channels of the four stages, for a network smaller than timm's; None keeps timm's.

    Attributes:
        channels: width of the output.
        time_factor: frames per cell.
        padding_value: what padded frames are set to, the band mean of a normalised spectrogram.
    """

    padding_value: float | None = 0.0

    def __init__(
        self,
        name: str = "resnet50",
        output_stride: int = 16,
        colour_projection: bool = True,
        frozen_norm: bool = True,
        frozen: Sequence[str] = ("conv1", "bn1", "layer1"),
        widths: Sequence[int] | None = None,
    ) -> None:
        import timm  # on use: it brings torchvision and torch's compiler along

        super().__init__()
        self.conv0 = nn.Conv2d(1, 3, 1) if colour_projection else nn.Identity()
        self.body = timm.create_model(
            name,
            features_only=True,
            out_indices=(-1,),
            output_stride=output_stride,
            in_chans=3 if colour_projection else 1,
            pretrained=False,
            **({} if widths is None else {"channels": tuple(widths)}),
        )
        # Channels last suits oneDNN and tensor cores: about a sixth off the forward pass on a CPU.
        self.body.to(memory_format=torch.channels_last)
        self.name = name
        self.channels: int = self.body.feature_info.channels()[-1]
        self.time_factor: int = self.body.feature_info.reduction()[-1]
        self.frozen_norm = frozen_norm
        for child in frozen:
            self.body.get_submodule(child).requires_grad_(False)
        for norm in self._frozen_norms():
            # timm starts the last norm of a block at zero; frozen there, the block would stay silent for ever.
            nn.init.ones_(norm.weight)
            norm.requires_grad_(False)
        self._asleep = False

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Features of a spectrogram.

        Args:
            spectrogram: ``(batch, mel, frames)``.

        Returns:
            ``(batch, channels, output_frames(frames), output_frames(mel))``.
        """
        image = self.conv0(spectrogram.transpose(1, 2).unsqueeze(1))
        return self.body(image.contiguous(memory_format=torch.channels_last))[0]

    def output_frames(self, frames: int) -> int:
        """Number of cells along an axis of ``frames`` (or mel bands)."""
        return math.ceil(frames / self.time_factor)

    def freeze(self) -> None:
        """Stop learning altogether, for good (SP-SEDT pre-training)."""
        self.requires_grad_(False)
        self._asleep = True
        self.train(False)

    def thaw(self) -> None:
        """Let all convolutions learn, also those that ``frozen`` names (audio tagging); frozen norms stay frozen."""
        self.requires_grad_(True)
        for norm in self._frozen_norms():
            norm.requires_grad_(False)
        self._asleep = False

    def train(self, mode: bool = True) -> SpectrogramResNet:
        """Set the mode; frozen norms stay in evaluation mode."""
        super().train(mode and not self._asleep)
        for norm in self._frozen_norms():
            norm.eval()
        return self

    def load_imagenet(self, source: str | None = None) -> None:
        """Fill the ResNet with ImageNet weights; the first convolution's colours are summed for one-channel input.

        Args:
            source: a safetensors file with torchvision's names; None lets timm download the weights of ``name``.

        Raises:
            InputError: the file does not fit this ResNet, or nothing can be downloaded.
        """
        if source is None:
            channels = 1 if isinstance(self.conv0, nn.Identity) else 3
            try:
                import timm

                state = timm.create_model(self.name, pretrained=True, in_chans=channels).state_dict()
            except (OSError, RuntimeError, ValueError) as error:
                raise InputError(
                    f"ImageNet weights of {self.name} cannot be downloaded ({type(error).__name__}); "
                    "name a safetensors file that holds them"
                ) from error
        else:
            state = read_tensors(source)
            if isinstance(self.conv0, nn.Identity) and "conv1.weight" in state:
                state["conv1.weight"] = state["conv1.weight"].sum(dim=1, keepdim=True)
        source = source or f"timm's {self.name}"
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
        try:
            missing, unexpected = self.body.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise InputError(
                f"{source} has tensors of other shapes than {self.name}; choose matching weights"
            ) from error
        missing = [key for key in missing if not key.endswith("num_batches_tracked")]
        if missing or unexpected:
            key = [*missing, *unexpected][0]
            raise InputError(
                f"{source} does not fit {self.name}: {key} is missing or unexpected; choose matching weights"
            )

    def _frozen_norms(self) -> list[nn.BatchNorm2d]:
        return [part for part in self.body.modules() if self.frozen_norm and isinstance(part, nn.BatchNorm2d)]


@torch.no_grad()
def pooled_features(backbone: Callable[[Tensor], Tensor], spectrogram: Tensor) -> Tensor:
    """Backbone features averaged over time and frequency, ``(batch, mel, frames) -> (batch, channels)``, detached."""
    return backbone(spectrogram).mean(dim=(2, 3))
