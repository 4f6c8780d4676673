"""What every frame encoder is: features in, frame embeddings on a fixed time grid out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pmam_plugin.errors import InputError
from pmam_plugin.nn.interpolate import Grid
from pmam_plugin.nn.windows import Windows


@dataclass
class EncoderOutput:
    """What a frame encoder returns.

    Attributes:
        frames: frame embeddings, ``(batch, frames, dim)``.
        tokens: inputs of the clip-level (tag) branch, ``(batch, tokens, token_dim)``, or None.
        embeddings: the hidden layers that were asked for, name -> ``(batch, frames, any dim)``.
    """

    frames: Tensor
    tokens: Tensor | None = None
    embeddings: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Columns:
    """Embeddings on an encoder's own time grid, slower than its frames: what a store keeps of them.

    Attributes:
        values: ``(batch, columns, dim)``.
        grid: how they lie among the frames, which are interpolated from them.
    """

    values: Tensor
    grid: Grid

    @property
    def shape(self) -> torch.Size:
        """Of the values."""
        return self.values.shape


@dataclass(frozen=True)
class Wanted:
    """What the caller of an encoder wants beside the frames: the arguments of :meth:`FrameEncoder.forward`, checked."""

    windows: Windows | None = None
    embed: Collection[str] = ()
    tokens: bool = True


class FrameEncoder(nn.Module):
    """Base of all encoders; one of them sets these attributes and implements ``encode`` and ``output_frames``.

    Attributes:
        dim: width of the frames it returns.
        frame_rate: frames per second it returns.
        layers: names of the embeddings it can return through ``embed``.
        token_dim: width of ``EncoderOutput.tokens``; None for an encoder without tokens.
        windowed: whether it can encode sliding windows.
    """

    dim: int
    frame_rate: float
    layers: tuple[str, ...] = ()
    token_dim: int | None = None
    windowed: bool = False

    def forward(
        self,
        features: Mapping[str, Tensor],
        windows: Windows | None = None,
        embed: Collection[str] = (),
        tokens: bool = True,
    ) -> EncoderOutput:
        """Encode features.

        Args:
            features: name -> ``(batch, mel, frames)`` (or ``(batch, samples)`` for encoders of raw audio).
            windows: also encode sliding windows and mix both.
            embed: names of hidden layers to return too, each one of ``layers``.
            tokens: whether anything uses ``EncoderOutput.tokens``; layers that only they need are not computed without.

        Returns:
            The frames (as many as :meth:`output_frames` says), tokens and embeddings.

        Raises:
            ValueError: a layer that the encoder does not have.
            InputError: windows for an encoder that has none.
        """
        self.check_layers(embed)
        if windows is not None and not self.windowed:
            raise InputError(f"{type(self).__name__} encodes clips whole; leave out windows, which it has no use for")
        output = self.encode(features, Wanted(windows, embed, tokens))
        return EncoderOutput(
            output.frames, output.tokens if tokens else None, {name: output.embeddings[name] for name in embed}
        )

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted) -> EncoderOutput:
        """What :meth:`forward` returns, with or without tokens and layers that were not asked for."""
        raise NotImplementedError

    def columns(self, features: Mapping[str, Tensor], layer: str) -> Columns | None:
        """What ``embed`` interpolates to give ``layer`` (without windows); None where it interpolates nothing."""
        return None

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """Exact number of frames :meth:`forward` returns for features of these lengths (name -> frames)."""
        raise NotImplementedError

    def check_layers(self, embed: Collection[str]) -> None:
        """Raise ValueError where a name in ``embed`` is not a layer of this encoder."""
        unknown = sorted(set(embed) - set(self.layers))
        if unknown:
            raise ValueError(f"{type(self).__name__} has no layer {unknown[0]!r}; it has {', '.join(self.layers)}")


def at_least(mel: Tensor, frames: int) -> Tensor:
    """A log-mel ``(batch, mel, frames)`` whose last frame is repeated where there are fewer than ``frames``."""
    short = frames - mel.shape[-1]
    return nn.functional.pad(mel, (0, short), mode="replicate") if short > 0 else mel
