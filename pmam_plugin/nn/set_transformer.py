"""The Transformer of DETR-like models: positions join queries and keys of every layer, never the values.

Layers are pre-norm. Parameters carry torch's names for Transformer layers (``self_attn.in_proj_weight``,
``linear1.weight``, ...), as published checkpoints do. Attention runs through torch's fused kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pmam_plugin.nn.cpu import Dropout


def sine_positions(
    cells: int,
    dim: int,
    period_cells: float | None = None,
    device: torch.device | None = None,
    temperature: float = 10000.0,
    scale: float = 2 * math.pi,
) -> Tensor:
    """One-dimensional sine encoding of time cells, counted from 1 (SEDT, section 3.1).

    Cell ``t`` has the angle ``scale * t / period``, see :func:`sine_encoding`. The published encoding is nearly flat:
    with 62 cells a span neighbours have a cosine of .9997, so that attention hardly tells them apart.

    Args:
        cells: number of time cells.
        dim: number of channels, even.
        period_cells: cells of a whole span; default ``cells``.
        device: where to build it.
        temperature: ratio of the fastest channel's rate to the slowest's.
        scale: angle of the whole span in the fastest channel.

    Returns:
        float32, also under autocast, whose half precision would round neighbours to one; ``(cells, dim)``.
    """
    shares = torch.arange(1, cells + 1, device=device, dtype=torch.float32) / ((period_cells or cells) + 1e-6)
    return sine_encoding(shares, dim, temperature, scale)


def sine_encoding(shares: Tensor, dim: int, temperature: float = 10000.0, scale: float = 2 * math.pi) -> Tensor:
    """Sines and cosines of ``scale * share / temperature^(2 floor(i/2) / dim)`` in turn, ``(...) -> (..., dim)``."""
    with torch.autocast(shares.device.type, enabled=False):
        rates = temperature ** (-2 * torch.arange(dim // 2, device=shares.device, dtype=torch.float32) / dim)
        phase = (shares.float() * scale).unsqueeze(-1) * rates
        return torch.stack((phase.sin(), phase.cos()), dim=-1).flatten(-2)


class _Layer(nn.Module):
    """What both kinds of layers are made of: attentions by name, a feed-forward part, a norm before each.

    Args:
        dim: token width.
        heads: attention heads.
        feedforward: hidden width of the feed-forward part.
        dropout: inside the feed-forward part and after all parts.
        attention_dropout: on attention weights; None is ``dropout``, as published. With 0 torch's fused attention is
            used in training on a CPU, too, which saves most of a small model's step.
    """

    attentions: tuple[str, ...] = ("self_attn",)
    self_attn: nn.MultiheadAttention
    multihead_attn: nn.MultiheadAttention
    norm1: nn.LayerNorm
    norm2: nn.LayerNorm
    norm3: nn.LayerNorm

    def __init__(
        self, dim: int, heads: int, feedforward: int, dropout: float, attention_dropout: float | None = None
    ) -> None:
        super().__init__()
        attention_dropout = dropout if attention_dropout is None else attention_dropout
        for name in self.attentions:
            self.add_module(name, nn.MultiheadAttention(dim, heads, attention_dropout, batch_first=True))
        self.linear1 = nn.Linear(dim, feedforward)
        self.linear2 = nn.Linear(feedforward, dim)
        for number in range(len(self.attentions) + 1):
            self.add_module(f"norm{number + 1}", nn.LayerNorm(dim))
        self.dropout = Dropout(dropout)

    def feed_forward(self, tokens: Tensor) -> Tensor:
        """What a layer adds to its tokens last, of normed ones, ``(batch, tokens, dim)``."""
        return self.dropout(self.linear2(self.dropout(self.linear1(tokens).relu())))


class EncoderLayer(_Layer):
    """Self-attention and feed-forward, pre-norm."""

    def forward(self, tokens: Tensor, positions: Tensor, padding: Tensor | None = None) -> Tensor:
        """Update tokens, ``(batch, tokens, dim)``; ``padding`` is true where there is none, ``(batch, tokens)``."""
        values = self.norm1(tokens)
        tokens = tokens + self.dropout(_attend(self.self_attn, values + positions, values + positions, values, padding))
        return tokens + self.feed_forward(self.norm2(tokens))


class DecoderLayer(_Layer):
    """Self-attention among queries, cross-attention to the memory, feed-forward; pre-norm."""

    attentions = ("self_attn", "multihead_attn")

    def forward(
        self,
        states: Tensor,
        queries: Tensor,
        memory: Tensor,
        memory_positions: Tensor,
        memory_padding: Tensor | None = None,
        query_mask: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Update the queries' states.

        Args:
            states: ``(batch, queries, dim)``.
            queries: their positional terms, same shape.
            memory: encoded tokens, ``(batch, tokens, dim)``.
            memory_positions: broadcastable to ``memory``.
            memory_padding: true where a token is none, ``(batch, tokens)``.
            query_mask: true where a query (row) must not see another (column), ``(queries, queries)``.
            bias: added to the logits of cross-attention, minus infinity where there is no token,
                ``(batch * heads, queries, tokens)``; takes the place of ``memory_padding``.
        """
        values = self.norm1(states)
        keys = values + queries
        states = states + self.dropout(_attend(self.self_attn, keys, keys, values, mask=query_mask))
        seekers = self.norm2(states) + queries
        padding = memory_padding if bias is None else None
        found = _attend(self.multihead_attn, seekers, memory + memory_positions, memory, padding, bias)
        states = states + self.dropout(found)
        return states + self.feed_forward(self.norm3(states))


def _attend(
    attention: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    padding: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    return attention(query, key, value, key_padding_mask=padding, attn_mask=mask, need_weights=False)[0]


class _Stack(nn.Module):
    """Layers of one kind, and a norm.

    Args:
        layers: number of layers.
        dim, heads, feedforward, dropout, attention_dropout: of each layer.
    """

    layer: type[_Layer]

    def __init__(
        self,
        layers: int,
        dim: int,
        heads: int,
        feedforward: int,
        dropout: float,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        sizes = (dim, heads, feedforward, dropout, attention_dropout)
        self.layers = nn.ModuleList(self.layer(*sizes) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        xavier_initialise(self)


class TransformerEncoder(_Stack):
    """Encoder layers and a final norm."""

    layer = EncoderLayer

    def forward(self, tokens: Tensor, positions: Tensor, padding: Tensor | None = None) -> Tensor:
        """Encode tokens, ``(batch, tokens, dim)``; see :class:`EncoderLayer`."""
        for layer in self.layers:
            tokens = layer(tokens, positions, padding)
        return self.norm(tokens)


class TransformerDecoder(_Stack):
    """Decoder layers whose outputs all pass one shared norm."""

    layer = DecoderLayer

    def forward(
        self,
        queries: Tensor,
        memory: Tensor,
        memory_positions: Tensor,
        memory_padding: Tensor | None = None,
        query_mask: Tensor | None = None,
        states: Tensor | None = None,
        locate: Callable[[Tensor | None], tuple[Tensor, Tensor | None]] | None = None,
    ) -> Tensor:
        """Decode queries; arguments beyond those here as :class:`DecoderLayer`.

        Args:
            queries: positional terms, ``(batch, queries, dim)``.
            memory, memory_positions, memory_padding, query_mask: see :class:`DecoderLayer`.
            states: what queries start from; zeros when None.
            locate: asked before every layer, with the normed states so far (None at first), for positional terms and
                for the bias of cross-attention.

        Returns:
            Normed states after every layer, ``(layers, batch, queries, dim)``.
        """
        states, bias = torch.zeros_like(queries) if states is None else states, None
        outputs: list[Tensor] = []
        for layer in self.layers:
            if locate is not None:
                queries, bias = locate(outputs[-1] if outputs else None)
            states = layer(states, queries, memory, memory_positions, memory_padding, query_mask, bias)
            outputs.append(self.norm(states))
        return torch.stack(outputs)


def xavier_initialise(module: nn.Module) -> None:
    """Xavier-uniform for every matrix of a module, as DETR starts its Transformer."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
