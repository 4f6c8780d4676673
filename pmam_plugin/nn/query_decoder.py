"""The part of an event detection Transformer that pre-training and fine-tuning share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.nn.set_transformer import TransformerDecoder, TransformerEncoder, sine_positions


@dataclass
class Memory:
    """An encoded batch of spectrograms.

    Attributes:
        tokens: time-major tokens, ``(batch, cells * bands, dim)``: token ``t * bands + f``.
        positions: their positions, ``(cells * bands, dim)``.
        padding: true where a token is padding, ``(batch, cells * bands)``, or None.
        bands: frequency cells per time cell.
    """

    tokens: Tensor
    positions: Tensor
    padding: Tensor | None
    bands: int

    def over_time(self) -> Tensor:
        """Tokens averaged over frequency, ``(batch, cells, dim)``."""
        return self.tokens.unflatten(1, (-1, self.bands)).mean(dim=2)


class SetInput(Protocol):
    """What a set network can stand on: :class:`~pmam_plugin.nn.resnet.SpectrogramResNet`, or any frame encoder in a
    :class:`~pmam_plugin.encoders.SetBackbone`.
    """

    channels: int
    time_factor: int
    padding_value: float | None

    def __call__(self, spectrogram: Tensor) -> Tensor:
        """``(batch, mel, frames) -> (batch, channels, cells, bands)``."""

    def cells(self, frames: int) -> int:
        """Number of cells over time."""

    def freeze(self) -> None:
        """Stop learning."""

    def thaw(self) -> None:
        """Learn again."""


class IntervalHead(nn.Module):
    """Three linear layers from a query's state to (centre, length) in [0, 1].

    Args:
        dim: width of the state.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 2))

    def forward(self, states: Tensor) -> Tensor:
        """``(..., dim) -> (..., 2)``."""
        return self.layers(states).float().sigmoid()


@configurable
class SetNetwork(nn.Module):
    """Spectrogram -> backbone -> encoder -> decoder over event queries -> intervals (SEDT, section 3).

    Its whole state is what SP-SEDT hands to SEDT: backbone, input projection, Transformer, interval head and event
    queries. Heads with a meaning (classes, tags, patches) belong to the models around it.

    Args:
        backbone: feature extractor.
        queries: number of event queries, the most events a clip can have.
        dim: token width.
        heads: attention heads.
        encoder_layers: 3 or 6 in the paper.
        decoder_layers: 3 in the paper.
        feedforward: hidden width of feed-forward parts.
        dropout: of the Transformer.
        attention_dropout: see :class:`~pmam_plugin.nn.set_transformer.EncoderLayer`.
        frequency_bands: number of frequency cells that get a learned position added to the sine of time. 0, as
            published, gives all cells of a time step the same position, so that their order is invisible to
            attention; ``backbone.cells(n_mels)`` (4 for 64 bands) makes it visible.
    """

    def __init__(
        self,
        backbone: SetInput,
        queries: int = 20,
        dim: int = 256,
        heads: int = 8,
        encoder_layers: int = 3,
        decoder_layers: int = 3,
        feedforward: int = 2048,
        dropout: float = 0.1,
        frequency_bands: int = 0,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.backbone = backbone
        self.input_projection = nn.Conv2d(backbone.channels, dim, 1)
        sizes = (dim, heads, feedforward, dropout, attention_dropout)
        self.encoder = TransformerEncoder(encoder_layers, *sizes)
        self.decoder = TransformerDecoder(decoder_layers, *sizes)
        self.interval_head = IntervalHead(dim)
        self.event_queries = nn.Parameter(torch.randn(queries, dim))
        self.frequency_positions = nn.Parameter(torch.zeros(frequency_bands, dim)) if frequency_bands else None

    def encode(self, spectrogram: Tensor, padding: Tensor | None = None, span_frames: int = 0) -> Memory:
        """Encode a batch.

        Args:
            spectrogram: ``(batch, mel, frames)``.
            padding: true where a frame is padding, ``(batch, frames)``; padded frames are set to the backbone's
                ``padding_value``, and cells that begin in padding are hidden from attention.
            span_frames: frames of the span that positions and boxes refer to; a shorter clip is read as the
                beginning of a span, a longer one as the whole of it.
        """
        if padding is not None and self.backbone.padding_value is not None:
            spectrogram = spectrogram.masked_fill(padding.unsqueeze(1), self.backbone.padding_value)
        return self.encode_features(self.backbone(spectrogram), padding, span_frames)

    def encode_features(self, features: Tensor, padding: Tensor | None = None, span_frames: int = 0) -> Memory:
        """Encode backbone features, ``(batch, channels, cells, bands)``; see :meth:`encode`."""
        cells, bands = features.shape[2:]
        tokens = self.input_projection(features).flatten(2).transpose(1, 2)
        span_cells = max(cells, self.backbone.cells(span_frames))
        positions = sine_positions(cells, self.dim, span_cells, features.device).to(tokens.dtype)
        positions = positions[:, None].expand(-1, bands, -1)
        if self.frequency_positions is not None:
            positions = positions + self.frequency_positions
        positions = positions.flatten(0, 1)
        token_padding = None
        if padding is not None:
            token_padding = padding[:, :: self.backbone.time_factor][:, :cells].repeat_interleave(bands, dim=1)
        return Memory(self.encoder(tokens, positions, token_padding), positions, token_padding, bands)

    def decode(self, queries: Tensor, memory: Memory, query_mask: Tensor | None = None) -> Tensor:
        """States of queries ``(batch, queries, dim)`` after every decoder layer, ``(layers, batch, queries, dim)``.

        Args:
            queries: event queries, with whatever the model adds to them.
            memory: of :meth:`encode`.
            query_mask: true where a query (row) must not see another (column), ``(queries, queries)``.
        """
        return self.decoder(queries, memory.tokens, memory.positions, memory.padding, query_mask)
