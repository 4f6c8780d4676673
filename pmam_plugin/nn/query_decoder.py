"""The part of an event detection Transformer that pre-training and fine-tuning share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmam_plugin.config import configurable
from pmam_plugin.nn.intervals import box_edges
from pmam_plugin.nn.set_transformer import TransformerDecoder, TransformerEncoder, sine_encoding, sine_positions

# Anchors at first: their length, how many lengths from its middle the outermost heads look, and base and scale of the
# sines that tell them apart.
_LENGTH, _REACH, _TEMPERATURE = 0.2, 0.6, 20.0


@dataclass
class Memory:
    """An encoded batch of spectrograms.

    Attributes:
        tokens: time-major tokens, ``(batch, cells * bands, dim)``: token ``t * bands + f``.
        positions: their positions, ``(cells * bands, dim)``.
        padding: true where a token is padding, ``(batch, cells * bands)``, or None.
        bands: frequency cells per time cell.
        shares: middle of each token's time cell as a share of the span, ``(cells * bands,)``.
        cell: length of a cell as a share of the span.
    """

    tokens: Tensor
    positions: Tensor
    padding: Tensor | None
    bands: int
    shares: Tensor
    cell: float

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

    def output_frames(self, frames: int) -> int:
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

    def forward(self, states: Tensor, reference: Tensor | None = None) -> Tensor:
        """``(..., dim) -> (..., 2)``; beside a ``reference`` interval, what changes it, added to its logits."""
        logits = self.layers(states).float()
        return (logits if reference is None else logits + reference.logit(eps=1e-3)).sigmoid()


class EdgePointer(nn.Module):
    """Onset and offset of a query's interval, read off the memory: attention over time cells, a map for each edge.

    A perceptron on a query's state must put a time into words that attention has averaged over many cells. Here the
    query asks every cell whether the event begins (ends) there, near the interval it has so far, and the edge is the
    expected place; as distributions over edges do in GFocal (Li et al., NeurIPS 2020) and D-FINE (Peng et al., ICLR
    2025), with the memory's cells as their bins.

    Args:
        dim: width of states and memory.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, 2 * dim)
        self.key = nn.Conv1d(dim, 2 * dim, 3, padding=1)  # an edge is a difference of neighbours
        self.spreads = nn.Parameter(torch.full((2,), -1.0))
        for parameter in self.query.parameters():  # at first an interval stays about where it is
            nn.init.zeros_(parameter)

    def keys(self, memory: Memory) -> Tensor:
        """What cells say of beginnings and ends, ``(batch, 2, dim, cells)``."""
        return self.key(memory.over_time().transpose(1, 2)).unflatten(1, (2, -1))

    def forward(self, states: Tensor, reference: Tensor, memory: Memory, keys: Tensor) -> Tensor:
        """Refine intervals.

        Args:
            states: of the queries, ``(batch, queries, dim)``.
            reference: their intervals so far, (centre, length), ``(batch, queries, 2)``.
            memory: what is looked at.
            keys: of :meth:`keys`.

        Returns:
            (centre, length), at least a tenth of a cell long, ``(batch, queries, 2)``.
        """
        asked = self.query(states).unflatten(-1, (2, -1))
        logits = torch.einsum("bqed,bedt->bqet", asked, keys).float() / math.sqrt(states.shape[-1])
        edges, length = box_edges(reference.float()), reference[..., 1:].float()
        middles = memory.shares[:: memory.bands]
        # Onsets are where cells begin, offsets where they end.
        places = torch.stack((middles - memory.cell / 2, middles + memory.cell / 2))
        spread = self.spreads.exp() * length + memory.cell
        logits = logits - 0.5 * ((places - edges.unsqueeze(-1)) / spread.unsqueeze(-1)).square()
        if memory.padding is not None:
            logits = logits.masked_fill(memory.padding[:, None, None, :: memory.bands], -torch.inf)
        onset, offset = (logits.softmax(dim=-1) * places).sum(dim=-1).unbind(-1)
        length = offset - onset
        # Edges that have crossed keep the gradient that brings them back.
        return torch.stack(((onset + offset) / 2, length + (length.clamp_min(0.1 * memory.cell) - length).detach()), -1)


class Anchors(nn.Module):
    """Queries that stand somewhere: a learned interval each, refined by every decoder layer (DAB-DETR).

    Liu et al. (ICLR 2022) give each query an anchor box, encode it as the query's position, and let every layer change
    it in logit space. Where in the memory a query looks follows its anchor, too: attention falls off with the distance
    in units of the anchor's length (their section 4.4; the Gaussian is that of SMCA, Gao et al., ICCV 2021). Heads look
    at different parts of the interval, from before its start to behind its end, learned.

    Args:
        queries: number of anchors, spread evenly over the span at first.
        dim: width of the queries.
        heads: attention heads.
    """

    def __init__(self, queries: int, dim: int, heads: int) -> None:
        super().__init__()
        centres = (torch.arange(queries) + 0.5) / queries
        self.logits = nn.Parameter(torch.stack((centres, torch.full((queries,), _LENGTH)), dim=-1).logit())
        self.position = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.offsets = nn.Parameter(torch.linspace(-_REACH, _REACH, heads))
        self.spreads = nn.Parameter(torch.full((heads,), -1.0))
        self.dim = dim

    def encode(self, boxes: Tensor) -> Tensor:
        """Positional terms of intervals, ``(..., 2) -> (..., dim)``."""
        return self.position(sine_encoding(boxes, self.dim // 2, _TEMPERATURE, _TEMPERATURE).flatten(-2))

    def bias(self, boxes: Tensor, memory: Memory, leading: int) -> Tensor:
        """Logits of cross-attention by place, ``(batch * heads, leading + queries, tokens)``; 0 for leading queries."""
        centre, length = boxes.float().unbind(-1)
        middle = centre.unsqueeze(1) + self.offsets[:, None] * length.unsqueeze(1)
        spread = self.spreads.exp()[:, None] * length.unsqueeze(1) + memory.cell / 2
        bias = -0.5 * ((memory.shares - middle.unsqueeze(-1)) / spread.unsqueeze(-1)).square()
        bias = functional.pad(bias, (0, 0, leading, 0))
        if memory.padding is not None:
            bias = bias.masked_fill(memory.padding[:, None, None], -torch.inf)
        return bias.flatten(0, 1)


@dataclass
class Decoded:
    """What the decoder says after every layer.

    Attributes:
        states: of leading and event queries, ``(layers, batch, leading + queries, dim)``.
        boxes: (centre, length) of the event queries, ``(layers, batch, queries, 2)``.
    """

    states: Tensor
    boxes: Tensor


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
        anchors: event queries are content, and each stands at an interval that every decoder layer refines
            (:class:`Anchors`); False, as published: they are positions alone, and learn from nothing where to look.
        pointed_edges: intervals are read off the memory (:class:`EdgePointer`), which needs anchors to start from;
            False, as published: regressed from a query's state (:class:`IntervalHead`).
        position_temperature, position_scale: see :func:`~pmam_plugin.nn.set_transformer.sine_positions`. 20 and 60 tell
            cells of 0.16 s apart from the first update on.
        frequency_bands: number of frequency cells that get a learned position added to the sine of time. 0, as
            published, gives all cells of a time step the same position, so that their order is invisible to
            attention; ``backbone.output_frames(n_mels)`` (4 for 64 bands) makes it visible.

    Raises:
        ValueError: pointed edges without anchors.
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
        anchors: bool = False,
        pointed_edges: bool = False,
        position_temperature: float = 10000.0,
        position_scale: float = 2 * math.pi,
    ) -> None:
        super().__init__()
        if pointed_edges and not anchors:
            raise ValueError("pointed_edges needs intervals to start from; give the network anchors: true")
        self.dim = dim
        self.position_temperature, self.position_scale = position_temperature, position_scale
        self.backbone = backbone
        self.input_projection = nn.Conv2d(backbone.channels, dim, 1)
        sizes = (dim, heads, feedforward, dropout, attention_dropout)
        self.encoder = TransformerEncoder(encoder_layers, *sizes)
        self.decoder = TransformerDecoder(decoder_layers, *sizes)
        self.interval_head = EdgePointer(dim) if pointed_edges else IntervalHead(dim)
        self.event_queries = nn.Parameter(torch.randn(queries, dim))
        self.anchors = Anchors(queries, dim, heads) if anchors else None
        if anchors and isinstance(self.interval_head, IntervalHead):
            # Boxes begin as the anchors themselves.
            for parameter in self.interval_head.layers[-1].parameters():
                nn.init.zeros_(parameter)
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
        return self.encode_features(self.describe(spectrogram, padding), padding, span_frames)

    def describe(self, spectrogram: Tensor, padding: Tensor | None = None) -> Tensor:
        """The backbone's map of a batch, ``(batch, channels, cells, bands)``; see :meth:`encode`."""
        if padding is not None and self.backbone.padding_value is not None:
            spectrogram = spectrogram.masked_fill(padding.unsqueeze(1), self.backbone.padding_value)
        return self.backbone(spectrogram)

    def encode_features(self, features: Tensor, padding: Tensor | None = None, span_frames: int = 0) -> Memory:
        """Encode backbone features, ``(batch, channels, cells, bands)``; see :meth:`encode`."""
        cells, bands = features.shape[2:]
        tokens = self.input_projection(features).flatten(2).transpose(1, 2)
        span_cells = max(cells, self.backbone.output_frames(span_frames))
        positions = sine_positions(
            cells, self.dim, span_cells, features.device, self.position_temperature, self.position_scale
        )
        positions = positions[:, None].expand(-1, bands, -1)
        if self.frequency_positions is not None:
            positions = positions + self.frequency_positions
        positions = positions.flatten(0, 1)
        token_padding = None
        if padding is not None:
            token_padding = padding[:, :: self.backbone.time_factor][:, :cells].repeat_interleave(bands, dim=1)
        shares = ((torch.arange(cells, device=features.device) + 0.5) / span_cells).repeat_interleave(bands)
        tokens = self.encoder(tokens, positions, token_padding)
        return Memory(tokens, positions, token_padding, bands, shares, 1 / span_cells)

    def decode(
        self,
        queries: Tensor,
        memory: Memory,
        query_mask: Tensor | None = None,
        leading: Tensor | None = None,
        content: Tensor | None = None,
        boxes: Tensor | None = None,
    ) -> Decoded:
        """Let queries look for what they stand for.

        Args:
            queries: event queries ``(batch, queries, dim)``, with whatever the model adds to them: positional terms, or
                with anchors the first states.
            memory: of :meth:`encode`.
            query_mask: true where a query (row) must not see another (column), ``(leading + queries, same)``.
            leading: queries before them that stand nowhere, ``(batch, leading, dim)``; always positional terms.
            content: first states of the event queries, added to what they start from, ``(batch, queries, dim)``.
            boxes: where the queries stand at first, ``(batch, queries, 2)``; default the learned anchors, in order.
        """
        front, anchors = 0 if leading is None else leading.shape[1], self.anchors
        states = torch.zeros_like(queries) if anchors is None else queries
        states = states if content is None else states + content
        if leading is not None:
            states = torch.cat((torch.zeros_like(leading), states), dim=1)

        def seated(positions: Tensor) -> Tensor:
            return positions if leading is None else torch.cat((leading, positions.to(leading.dtype)), dim=1)

        source = (memory.tokens, memory.positions, memory.padding, query_mask, states)
        head = self.interval_head
        if anchors is None:
            found = self.decoder(seated(queries), *source)
            return Decoded(found, head(found[:, :, front:]))
        place = anchors.logits[: queries.shape[1]].sigmoid().expand(len(queries), -1, -1) if boxes is None else boxes
        every_box: list[Tensor] = []
        looked_at = (memory, head.keys(memory)) if isinstance(head, EdgePointer) else ()

        def refined(normed: Tensor) -> None:
            reference = every_box[-1].detach() if every_box else place
            every_box.append(head(normed[:, front:], reference, *looked_at))

        def locate(normed: Tensor | None) -> tuple[Tensor, Tensor | None]:
            if normed is not None:
                refined(normed)
            here = every_box[-1].detach() if every_box else place
            return seated(anchors.encode(here)), anchors.bias(here, memory, front)

        found = self.decoder(queries, *source, locate)
        refined(found[-1])
        return Decoded(found, torch.stack(every_box))
