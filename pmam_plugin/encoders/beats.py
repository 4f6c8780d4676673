"""BEATs (Chen et al., ICML 2023): a Transformer over 16 x 16 patches of a log-mel spectrogram, as a frame encoder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.encoders.atst_sed import pool_frames
from pmam_plugin.encoders.base import Columns, EncoderOutput, FrameEncoder, Wanted, at_least
from pmam_plugin.nn.deep_norm import DeepNormBlock, DistanceBias, PositionConvolution
from pmam_plugin.nn.interpolate import Grid, interpolate_frames
from pmam_plugin.nn.pooling import FrequencyAttentionPool

PATCH = 16  # mel bands and mel frames of a patch
HOP = 4  # mel frames per output frame
# A mel frame hears 25 ms from its 10 ms on, so a patch hears 7.5 ms more after the frames it stands for than before.
_GRID = Grid(PATCH / HOP, 7.5 / (10 * HOP))


class BEATs(nn.Module):
    """The network, without its classifier.

    Tokens run through frequency first. There is no class token and no table of positions: a convolution over the
    tokens and a bias of attention by distance take its place, so any length will do.

    Args:
        depth: number of blocks.
        dim: width of the tokens.
        heads: attention heads.
        mlp_ratio: width of the feed-forward parts in units of ``dim``.
        patch_dim: width of the patch embedding, before its projection to ``dim``.
        position_kernel: taps of the position convolution, tokens.
        position_groups: its groups of channels.
        buckets: of distances.
        max_distance: where they end, tokens.
        deep_norm: scale the residual stream by ``(2 depth)^(1/4)``.
        dropout: of the input, of both branches of a block, and of attention weights.
    """

    def __init__(
        self,
        depth: int = 12,
        dim: int = 768,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        patch_dim: int = 512,
        position_kernel: int = 128,
        position_groups: int = 16,
        buckets: int = 320,
        max_distance: int = 800,
        deep_norm: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.patch_embed = nn.Conv2d(1, patch_dim, PATCH, PATCH, bias=False)
        self.patch_norm = nn.LayerNorm(patch_dim)
        self.patch_projection = nn.Linear(patch_dim, dim)
        self.position = PositionConvolution(dim, position_kernel, position_groups)
        self.input_norm = nn.LayerNorm(dim)
        self.input_dropout = nn.Dropout(dropout)
        self.distance = DistanceBias(heads, buckets, max_distance)
        scale = (2 * depth) ** 0.25 if deep_norm else 1.0
        self.blocks = nn.ModuleList(DeepNormBlock(dim, heads, mlp_ratio, scale, dropout) for _ in range(depth))
        self._initialise((8 * depth) ** -0.25 if deep_norm else 1.0)

    def forward(self, mel: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
        """Outputs of some blocks, and no deeper block.

        Args:
            mel: ``(batch, mel, frames)``; fewer frames than one patch are repeated at the edge, those that fill no
                patch at the end are left out.
            layers: block numbers, from 1.

        Returns:
            Block number -> ``(batch, time, frequency, dim)``.
        """
        tokens, bands = self.tokens(mel)
        tokens = self.input_dropout(self.input_norm(tokens + self.position(tokens)))
        bias = self.distance(tokens.shape[1])
        kept = {}
        for number, block in enumerate(self.blocks[: max(layers)], start=1):
            tokens = block(tokens, bias)
            if number in layers:
                kept[number] = tokens.unflatten(1, (-1, bands))
        return kept

    def tokens(self, mel: Tensor) -> tuple[Tensor, int]:
        """Embedded patches ``(batch, time * frequency, dim)``, and how many lie above each other."""
        mel = at_least(mel, PATCH)
        patches = self.patch_embed(mel.transpose(1, 2).unsqueeze(1))
        tokens = self.patch_norm(patches.flatten(2).transpose(1, 2))
        return self.input_dropout(self.patch_projection(tokens)), patches.shape[-1]

    def _initialise(self, gain: float) -> None:
        nn.init.normal_(self.patch_projection.weight, std=0.02)
        nn.init.zeros_(self.patch_projection.bias)
        for block in self.blocks:
            assert isinstance(block, DeepNormBlock)
            query, key, value = block.attn.qkv.weight.chunk(3)
            for weight, own in ((query, 1.0), (key, 1.0), (value, gain)):
                nn.init.xavier_normal_(weight.data, own)
            for layer in (block.attn.proj, block.mlp.fc1, block.mlp.fc2):
                nn.init.xavier_normal_(layer.weight, gain)
            for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2, block.attn.gate):
                nn.init.zeros_(layer.bias)
            nn.init.normal_(block.attn.gate.weight, std=0.02)


@configurable
class BEATsEncoder(FrameEncoder):
    """BEATs at 25 frames/s. Tokens of the tag branch are all patches after the last block.

    Layers for ``embed``, on one time grid: ``stream`` (what the frames are; the same tensor) and ``block_1 ...
    block_n`` (mean over frequency of that block's tokens).

    Args:
        feature: name of the log-mel it reads, a :class:`~pmam_plugin.features.KaldiMel`.
        layer: block whose tokens become frames; None is the last. Deeper ones serve the tokens only.
        pooling: from patches of 160 ms to frames: ``mean`` or (learned) ``attention`` over frequency, interpolated
            between patches; ``tokens``, the way of PretrainedSED's detectors: all tokens in a row, two or three next to
            each other for a frame (interpolated where they are fewer), so that neighbouring frames see different bands.
            Their weights need that.
        pooling_heads: attention heads of the frequency pooling.
        depth, dim, network: of :class:`BEATs`.
    """

    def __init__(
        self,
        feature: str = "mel",
        layer: int | None = None,
        pooling: Literal["mean", "attention", "tokens"] = "mean",
        pooling_heads: int = 6,
        depth: int = 12,
        dim: int = 768,
        **network: Any,
    ) -> None:
        super().__init__()
        if layer is not None and not 1 <= layer <= depth:
            raise ValueError(f"there is no block {layer} among {depth}")
        if pooling not in ("mean", "attention", "tokens"):
            raise ValueError(f"pooling is mean, attention or tokens, not {pooling!r}")
        self.feature, self.layer, self.pooling, self.depth = feature, layer or depth, pooling, depth
        self.dim = self.token_dim = dim
        self.frame_rate = 100.0 / HOP
        self.layers = ("stream", *(f"block_{number}" for number in range(1, depth + 1)))
        self.transformer = BEATs(depth, dim, **network)
        self.pool = FrequencyAttentionPool(dim, pooling_heads) if pooling == "attention" else None

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """One for every started 40 ms of sound, of which the log-mel leaves out the last two hops."""
        return (feature_frames[self.feature] + 2 + HOP - 1) // HOP

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted) -> EncoderOutput:
        """Encode ``features[feature]``, ``(batch, mel, frames)``; see :class:`FrameEncoder`."""
        mel = features[self.feature]
        length = self.output_frames({self.feature: mel.shape[-1]})
        blocks = {self.layer, *map(self._block, wanted.embed), *([self.depth] if wanted.tokens else [])}
        hidden = self.transformer(mel, blocks)
        stream = hidden[self.layer]
        if self.pooling == "tokens":
            tokens = stream.flatten(1, 2)
            frames = pool_frames(tokens, length) if tokens.shape[1] > length else interpolate_frames(tokens, length)
        else:
            frames = _GRID.interpolate(self._pooled(stream, "stream"), length)
        embeddings = {"stream": frames}
        for name in wanted.embed:
            if name != "stream":
                embeddings[name] = _GRID.interpolate(self._pooled(hidden[self._block(name)], name), length)
        return EncoderOutput(frames, hidden[self.depth].flatten(1, 2) if wanted.tokens else None, embeddings)

    def columns(self, features: Mapping[str, Tensor], layer: str) -> Columns | None:
        """Pooled patches, four frames apart; nothing is interpolated where frames are tokens in a row."""
        self.check_layers([layer])
        if layer == "stream" and self.pooling == "tokens":
            return None
        block = self._block(layer)
        return Columns(self._pooled(self.transformer(features[self.feature], {block})[block], layer), _GRID)

    def _block(self, name: str) -> int:
        return self.layer if name == "stream" else int(name.removeprefix("block_"))

    def _pooled(self, tokens: Tensor, name: str) -> Tensor:
        """``(batch, time, frequency, dim) -> (batch, time, dim)``."""
        if self.pool is None or name != "stream":
            return tokens.mean(dim=2)
        return self.pool(tokens.transpose(1, 2))
