"""SEDT written out by hand from the specification, over a dictionary of tensors with the reference's names.

It shares no code with the package: no modules, no attention kernel, one clip at a time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]


class Layout:
    """Sizes of a reference-like network, and random weights for it."""

    def __init__(
        self,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        bottleneck: bool = False,
        dim: int = 64,
        encoder: int = 2,
        decoder: int = 2,
        feedforward: int = 48,
        queries: int = 6,
        classes: int = 3,
    ) -> None:
        self.blocks, self.bottleneck, self.dim = blocks, bottleneck, dim
        self.encoder, self.decoder, self.feedforward = encoder, decoder, feedforward
        self.queries, self.classes = queries, classes
        self.channels = 512 * (4 if bottleneck else 1)

    def sedt(self) -> State:
        state = self.network(self.queries + 1)
        state |= linear("class_embed", self.dim, self.classes + 1) | linear("weak_class_embed", self.dim, self.classes)
        return state

    def sp_sedt(self) -> State:
        state = self.network(self.queries) | linear("class_embed", self.dim, 2)
        state |= linear("patch2query", self.channels, self.dim)
        state |= linear("feature_align.layers.0", self.dim, self.dim)
        return state | linear("feature_align.layers.1", self.dim, self.channels)

    def tagger(self) -> State:
        state = self.resnet("body.")
        return state | linear("weak_label.0", self.channels, 10) | linear("weak_label.2", 10, self.classes)

    def network(self, queries: int) -> State:
        state = self.resnet("backbone.0.body.")
        for part, count, norms in (("encoder", self.encoder, 2), ("decoder", self.decoder, 3)):
            for index in range(count):
                prefix = f"transformer.{part}.layers.{index}."
                for attention in ("self_attn", "multihead_attn")[: norms - 1]:
                    state[f"{prefix}{attention}.in_proj_weight"] = torch.randn(3 * self.dim, self.dim) / math.sqrt(
                        self.dim
                    )
                    state[f"{prefix}{attention}.in_proj_bias"] = 0.1 * torch.randn(3 * self.dim)
                    state |= linear(f"{prefix}{attention}.out_proj", self.dim, self.dim)
                state |= linear(f"{prefix}linear1", self.dim, self.feedforward)
                state |= linear(f"{prefix}linear2", self.feedforward, self.dim)
                for norm in range(1, norms + 1):
                    state |= affine(f"{prefix}norm{norm}", self.dim)
            state |= affine(f"transformer.{part}.norm", self.dim)
        for index, outputs in enumerate((self.dim, self.dim, 2)):
            state |= linear(f"bbox_embed.layers.{index}", self.dim, outputs)
        state["input_proj.weight"] = torch.randn(self.dim, self.channels, 1, 1) / math.sqrt(self.channels)
        state["input_proj.bias"] = 0.1 * torch.randn(self.dim)
        state["query_embed.weight"] = torch.randn(queries, self.dim)
        return state

    def resnet(self, prefix: str) -> State:
        state = {f"{prefix}conv0.weight": torch.randn(3, 1, 1, 1), f"{prefix}conv0.bias": torch.randn(3)}
        state[f"{prefix}conv1.weight"] = convolution(3, 64, 7)
        state |= frozen_norm(f"{prefix}bn1", 64)
        before = 64
        for stage, count in enumerate(self.blocks, start=1):
            width = 64 * 2 ** (stage - 1)
            after = width * (4 if self.bottleneck else 1)
            for index in range(count):
                block = f"{prefix}layer{stage}.{index}."
                kernels = ((1, 3, 1) if self.bottleneck else (3, 3))  # fmt: skip
                widths = [before, *[width] * (len(kernels) - 1), after]
                for number, kernel in enumerate(kernels, start=1):
                    state[f"{block}conv{number}.weight"] = convolution(widths[number - 1], widths[number], kernel)
                    state |= frozen_norm(f"{block}bn{number}", widths[number])
                if index == 0 and (stage > 1 or self.bottleneck):
                    state[f"{block}downsample.0.weight"] = convolution(before, after, 1)
                    state |= frozen_norm(f"{block}downsample.1", after)
                before = after
        return state


def linear(name: str, inputs: int, outputs: int) -> State:
    return {
        f"{name}.weight": torch.randn(outputs, inputs) / math.sqrt(inputs),
        f"{name}.bias": 0.1 * torch.randn(outputs),
    }


def affine(name: str, width: int) -> State:
    return {f"{name}.weight": 1 + 0.1 * torch.randn(width), f"{name}.bias": 0.1 * torch.randn(width)}


def convolution(inputs: int, outputs: int, kernel: int) -> Tensor:
    return torch.randn(outputs, inputs, kernel, kernel) * math.sqrt(1 / (inputs * kernel**2))


def frozen_norm(name: str, width: int) -> State:
    statistics = {f"{name}.running_mean": 0.1 * torch.randn(width), f"{name}.running_var": 0.5 + torch.rand(width)}
    return affine(name, width) | statistics


def resnet_forward(state: State, prefix: str, spectrogram: Tensor) -> Tensor:
    """``(1, frames, mel)`` of one clip -> ``(channels, cells, bands)``."""

    def conv_norm(x: Tensor, conv: str, norm: str, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = state[f"{prefix}{conv}.weight"]
        x = F.conv2d(x, weight, None, stride, dilation * (weight.shape[-1] // 2), dilation)
        scale = state[f"{prefix}{norm}.weight"] / (state[f"{prefix}{norm}.running_var"] + 1e-5).sqrt()
        shift = state[f"{prefix}{norm}.bias"] - state[f"{prefix}{norm}.running_mean"] * scale
        return x * scale[:, None, None] + shift[:, None, None]

    x = F.conv2d(spectrogram[None], state[f"{prefix}conv0.weight"], state[f"{prefix}conv0.bias"])
    x = F.max_pool2d(conv_norm(x, "conv1", "bn1", stride=2).relu(), 3, 2, 1)
    for stage in (1, 2, 3, 4):
        index = 0
        while f"{prefix}layer{stage}.{index}.conv1.weight" in state:
            block = f"layer{stage}.{index}."
            stride = 2 if index == 0 and stage in (2, 3) else 1
            dilation = 2 if stage == 4 and index > 0 else 1
            y = x
            if f"{prefix}{block}conv3.weight" in state:
                y = conv_norm(y, block + "conv1", block + "bn1").relu()
                y = conv_norm(y, block + "conv2", block + "bn2", stride, dilation).relu()
                y = conv_norm(y, block + "conv3", block + "bn3")
            else:
                y = conv_norm(y, block + "conv1", block + "bn1", stride, dilation).relu()
                y = conv_norm(y, block + "conv2", block + "bn2", 1, 2 if stage == 4 else 1)
            if f"{prefix}{block}downsample.0.weight" in state:
                x = conv_norm(x, block + "downsample.0", block + "downsample.1", stride)
            x = (x + y).relu()
            index += 1
    return x[0]


def attention(state: State, prefix: str, q: Tensor, k: Tensor, v: Tensor, blocked: Tensor | None = None) -> Tensor:
    weights, biases = state[f"{prefix}in_proj_weight"].chunk(3), state[f"{prefix}in_proj_bias"].chunk(3)
    outputs = []
    queries, keys, values = (x @ w.T + b for x, w, b in zip((q, k, v), weights, biases))
    for head in range(queries.shape[1] // 32):
        part = slice(32 * head, 32 * head + 32)
        logits = queries[:, part] @ keys[:, part].T / math.sqrt(32)
        if blocked is not None:
            logits = logits.masked_fill(blocked, -math.inf)
        outputs.append(logits.softmax(-1) @ values[:, part])
    return torch.cat(outputs, -1) @ state[f"{prefix}out_proj.weight"].T + state[f"{prefix}out_proj.bias"]


def dense(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def layer_norm(state: State, name: str, x: Tensor) -> Tensor:
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def transformer_forward(state: State, maps: Tensor, queries: Tensor, blocked: Tensor | None = None) -> list[Tensor]:
    """States of the queries after each decoder layer, each ``(queries, dim)``."""
    dim, (_, cells, bands) = queries.shape[1], maps.shape
    tokens = torch.einsum("ctf,dc->tfd", maps, state["input_proj.weight"][:, :, 0, 0]).reshape(cells * bands, dim)
    tokens = tokens + state["input_proj.bias"]
    position = torch.zeros(cells * bands, dim)
    for token in range(cells * bands):
        angle = 2 * math.pi * (token // bands + 1) / (cells + 1e-6)
        for channel in range(dim):
            phase = angle / 10000 ** (2 * (channel // 2) / dim)
            position[token, channel] = math.sin(phase) if channel % 2 == 0 else math.cos(phase)
    index = 0
    while f"transformer.encoder.layers.{index}.linear1.weight" in state:
        layer = f"transformer.encoder.layers.{index}."
        normed = layer_norm(state, layer + "norm1", tokens)
        tokens = tokens + attention(state, layer + "self_attn.", normed + position, normed + position, normed)
        hidden = dense(state, layer + "linear1", layer_norm(state, layer + "norm2", tokens)).relu()
        tokens = tokens + dense(state, layer + "linear2", hidden)
        index += 1
    memory = layer_norm(state, "transformer.encoder.norm", tokens)
    y, outputs, index = torch.zeros_like(queries), [], 0
    while f"transformer.decoder.layers.{index}.linear1.weight" in state:
        layer = f"transformer.decoder.layers.{index}."
        normed = layer_norm(state, layer + "norm1", y)
        y = y + attention(state, layer + "self_attn.", normed + queries, normed + queries, normed, blocked)
        normed = layer_norm(state, layer + "norm2", y)
        y = y + attention(state, layer + "multihead_attn.", normed + queries, memory + position, memory)
        hidden = dense(state, layer + "linear1", layer_norm(state, layer + "norm3", y)).relu()
        y = y + dense(state, layer + "linear2", hidden)
        outputs.append(layer_norm(state, "transformer.decoder.norm", y))
        index += 1
    return outputs


def boxes_of(state: State, states: Tensor) -> Tensor:
    for index in (0, 1):
        states = dense(state, f"bbox_embed.layers.{index}", states).relu()
    return dense(state, "bbox_embed.layers.2", states).sigmoid()


def sedt_forward(state: State, spectrogram: Tensor) -> dict[str, Tensor]:
    """One clip, ``(mel, frames)``: logits and boxes of every layer, tags of the last."""
    maps = resnet_forward(state, "backbone.0.body.", spectrogram.T[None])
    layers = transformer_forward(state, maps, state["query_embed.weight"])
    return {
        "logits": torch.stack([dense(state, "class_embed", layer[1:]) for layer in layers]),
        "boxes": torch.stack([boxes_of(state, layer[1:]) for layer in layers]),
        "tags": dense(state, "weak_class_embed", layers[-1][0]).sigmoid(),
    }


def sp_sedt_forward(state: State, spectrogram: Tensor, patches: Tensor) -> dict[str, Tensor]:
    """One clip ``(mel, frames)`` and its patches ``(patches, mel, frames')``, in evaluation mode (queries q + p)."""
    described = [resnet_forward(state, "backbone.0.body.", patch.T[None]).mean(dim=(1, 2)) for patch in patches]
    projected = [dense(state, "patch2query", vector) for vector in described]
    group = len(state["query_embed.weight"]) // len(patches)
    queries = torch.stack([q + projected[index // group] for index, q in enumerate(state["query_embed.weight"])])
    blocked = torch.tensor([[i // group != j // group for j in range(len(queries))] for i in range(len(queries))])
    maps = resnet_forward(state, "backbone.0.body.", spectrogram.T[None])
    layers = transformer_forward(state, maps, queries, blocked)
    return {
        "logits": torch.stack([dense(state, "class_embed", layer) for layer in layers]),
        "boxes": torch.stack([boxes_of(state, layer) for layer in layers]),
        "features": torch.stack(
            [
                dense(state, "feature_align.layers.1", dense(state, "feature_align.layers.0", layer).relu())
                for layer in layers
            ]
        ),
    }
