"""What every frame encoder is: features in, frame embeddings on a fixed time grid out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.nn.interpolate import Grid


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


@configurable
@dataclass(frozen=True)
class Windows:
    """Sliding-window encoding: short windows see local detail, the whole clip gives the global view.

    Args:
        length_seconds: length of a window.
        hop_seconds: distance between two windows; the last one always ends where the clip ends.
        mix: share of the window embeddings; the rest comes from the whole clip.
    """

    length_seconds: float = 5.12
    hop_seconds: float = 0.49
    mix: float = 0.5

    def __post_init__(self) -> None:
        """Refuse windows that cannot cover a clip."""
        if not 0 < self.hop_seconds <= self.length_seconds or not 0 <= self.mix <= 1:
            raise ValueError(f"windows need a positive hop no longer than themselves and a mix in [0, 1], got {self}")


class FrameEncoder(nn.Module):
    """Base of all encoders.

    Attributes:
        dim: width of the frames it returns.
        frame_rate: frames per second it returns.
        layers: names of the embeddings it can return through ``embed``.
        token_dim: width of ``EncoderOutput.tokens``; None for an encoder without tokens.
    """

    dim: int
    frame_rate: float
    layers: tuple[str, ...] = ()
    token_dim: int | None = None

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
            windows: also encode sliding windows and mix both; an encoder without windows ignores it.
            embed: names of hidden layers to return too, each one of ``layers``.
            tokens: whether anything uses ``EncoderOutput.tokens``; layers that only they need are not computed without.

        Returns:
            The frames (as many as :meth:`output_frames` says), tokens and embeddings.
        """
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
