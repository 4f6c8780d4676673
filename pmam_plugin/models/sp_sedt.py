"""SP-SEDT: pre-train an event detector to find patches cut from its own input (arXiv 2111.15222).

Random stretches of a clip are cut out, resized to one length and described by the frozen backbone; their
descriptions join the event queries, and the network must say where in the clip each patch came from. What it
learns carries over to SEDT by :func:`~pmam_plugin.models.sedt.pretrained_part`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.features import FrontEnds
from pmam_plugin.losses.event_targets import EventTargets
from pmam_plugin.models.sedt import backbone_map, feature_frames, regrid_padding
from pmam_plugin.nn.intervals import edge_boxes
from pmam_plugin.nn.query_decoder import SetNetwork
from pmam_plugin.nn.resnet import pooled_features
from pmam_plugin.nn.set_output import SetOutput


@configurable
class PatchSampler:
    """Draws which stretches of a clip become patches (SP-SEDT, section 2.1).

    Lengths follow a normal distribution cut to ``[shortest, longest)`` as shares of the clip's valid frames; a
    patch starts anywhere it fits. Patches may overlap. Bounds are whole frames, so crop and target agree exactly.

    Args:
        patches: number of patches per clip.
        mean: mean of the uncut distribution of lengths.
        deviation: its standard deviation.
        shortest: least length.
        longest: bound on the length.
        fixed_frames: give all patches this length instead (the paper's ablation: 128 frames, 2.58 s).
    """

    def __init__(
        self,
        patches: int = 10,
        mean: float = 0.2,
        deviation: float = 0.26,
        shortest: float = 0.05,
        longest: float = 0.8,
        fixed_frames: int | None = None,
    ) -> None:
        self.patches, self.fixed_frames = patches, fixed_frames
        self.mean, self.deviation, self.shortest, self.longest = mean, deviation, shortest, longest

    def __call__(self, valid_frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw patches.

        Args:
            valid_frames: frames of each clip that are not padding, ``(batch,)``.
            generator: source of randomness on the CPU; default torch's global one.

        Returns:
            First frame and frame after the last, ``(batch, patches, 2)``, int64, on the CPU; at least one frame long.
        """
        valid = valid_frames.cpu().double()[:, None]
        shape = (len(valid), self.patches)
        if self.fixed_frames is None:
            limits = (torch.tensor([self.shortest, self.longest], dtype=torch.float64) - self.mean) / self.deviation
            low, high = torch.special.ndtr(limits)
            # Inverting the distribution costs one draw a patch, where rejection needs an unknown number.
            uniform = torch.rand(shape, dtype=torch.float64, generator=generator)
            shares = self.mean + self.deviation * torch.special.ndtri(low + (high - low) * uniform)
            lengths = (shares * valid).floor()
        else:
            lengths = torch.full(shape, float(self.fixed_frames), dtype=torch.float64)
        lengths = lengths.clamp_min(1).minimum(valid)
        starts = torch.rand(shape, dtype=torch.float64, generator=generator) * (valid - lengths + 1)
        starts = starts.floor().minimum(valid - lengths)
        return torch.stack((starts, starts + lengths), dim=-1).long()


def crop_patches(spectrogram: Tensor, bounds: Tensor, frames: int) -> Tensor:
    """Cut patches and bring all to the same number of frames by antialiased linear interpolation.

    Args:
        spectrogram: ``(batch, mel, frames)``.
        bounds: ``(batch, patches, 2)``, see :class:`PatchSampler`.
        frames: length of every patch afterwards.

    Returns:
        ``(batch, patches, mel, frames)``; a patch that already has that length is returned as it is.
    """
    bounds = bounds.to(spectrogram.device).float()
    start, end = bounds[..., :1], bounds[..., 1:]
    scale = (end - start) / frames
    # Output frame i reads around this input position; a triangle as wide as the scale averages what it skips.
    position = start + (torch.arange(frames, device=spectrogram.device) + 0.5) * scale
    width = scale.clamp_min(1.0).unsqueeze(-1)
    grid = torch.arange(spectrogram.shape[-1], device=spectrogram.device) + 0.5
    patches = []
    for clip, clip_position, clip_width, clip_start, clip_end in zip(spectrogram, position, width, start, end):
        weights = (1 - (grid - clip_position.unsqueeze(-1)).abs() / clip_width).clamp_min(0)
        inside = (grid > clip_start) & (grid < clip_end)
        weights = weights * inside.unsqueeze(1)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        patches.append(torch.einsum("pit,ft->pfi", weights.to(clip.dtype), clip))
    return torch.stack(patches)


def pool_patches(features: Tensor, bounds: Tensor, cell_frames: int) -> Tensor:
    """Mean of a backbone's map over patches, a cell for as much of it as a patch covers.

    Args:
        features: ``(batch, channels, cells, bands)``.
        bounds: ``(batch, patches, 2)``, see :class:`PatchSampler`.
        cell_frames: frames of a cell.

    Returns:
        ``(batch, patches, channels)``; zeros where a patch lies behind the last cell.
    """
    begins = torch.arange(features.shape[2], device=features.device) * cell_frames
    covered = bounds[..., 1:].minimum(begins + cell_frames) - bounds[..., :1].maximum(begins)
    weights = covered.clamp_min(0).to(features.dtype)
    return torch.einsum("bpt,bct->bpc", weights / weights.sum(dim=-1, keepdim=True).clamp_min(1), features.mean(dim=3))


@dataclass
class PretextOutput:
    """One pass of the pretext task.

    Attributes:
        output: predictions, with two columns of logits (patch, background) and reconstructed features.
        targets: the patches as events of class 0, with their backbone features.
        bounds: frames of the patches, ``(batch, patches, 2)``.
    """

    output: SetOutput
    targets: EventTargets
    bounds: Tensor


@configurable
class SPSEDT(nn.Module):
    """The pretext task around a set network whose backbone is frozen, as far as it has learned anything.

    Patch ``i`` of M is added to queries ``i N/M ... (i+1) N/M - 1``; a query sees only queries of its own patch. Each
    query goes without its patch with probability ``patch_dropout`` in training. Train it with
    :class:`~pmam_plugin.losses.set_criterion.SetCriterion`, whose targets come along with the predictions.

    Args:
        frontend: gives the features ``mel``, the same as SEDT's.
        network: a SEDT's own, which learns in place; its backbone stops learning.
        sampler: draws the patches.
        patch_frames: length to which patches are resized.
        patch_dropout: probability that a query goes without its patch.
        clip_seconds: span that boxes refer to, s.
        match_own_group: a patch is to be found by its own queries. Published: by any query, the cheapest; then a patch
            says little about its target, and a network trained briefly learns to spread its boxes over the clip by
            the noise of dropout and to ignore the patches.
        patches_are_content: a patch is what its queries start from, standardised over the batch, so that the decoder
            sees which patch it looks for. Published (False): it is added to their positions, unstandardised, where it
            changes boxes less than dropout does.
        pooled_patches: a patch is described by the mean of the clip's own map where it lies, which costs nothing and
            leaves a patch its pace; the whole task then runs on a frozen encoder's stored embeddings as well.
            Published (False): cut out, stretched to ``patch_frames`` and passed through the backbone by itself.
        legacy_double_query: add event queries twice in training, as the reference does by mistake (it then evaluates
            and fine-tunes with one); to go on training its published weights only.

    Raises:
        ValueError: the queries cannot be divided among the patches.
    """

    def __init__(
        self,
        frontend: FrontEnds,
        network: SetNetwork,
        sampler: PatchSampler | None = None,
        patch_frames: int = 128,
        patch_dropout: float = 0.1,
        clip_seconds: float = 10.0,
        match_own_group: bool = True,
        legacy_double_query: bool = False,
        patches_are_content: bool = False,
        pooled_patches: bool = False,
    ) -> None:
        super().__init__()
        self.patches_are_content, self.pooled_patches = patches_are_content, pooled_patches
        self.match_own_group, self.legacy_double_query = match_own_group, legacy_double_query
        self.frontend, self.network, self.sampler = frontend, network, sampler or PatchSampler()
        if len(network.event_queries) % self.sampler.patches:
            raise ValueError(f"{len(network.event_queries)} queries cannot be shared by {self.sampler.patches} patches")
        self.group = len(network.event_queries) // self.sampler.patches
        self.patch_frames, self.patch_dropout = patch_frames, patch_dropout
        self.clip_seconds, self.sample_rate = clip_seconds, frontend.sample_rate
        self.span_frames = frontend.frames(round(clip_seconds * self.sample_rate))["mel"]
        network.backbone.freeze()
        channels = network.backbone.channels
        self.patch_projection = nn.Linear(channels, network.dim)
        self.class_head = nn.Linear(network.dim, 2)
        self.feature_head = nn.Sequential(
            nn.Linear(network.dim, network.dim), nn.ReLU(), nn.Linear(network.dim, channels)
        )

    def forward(
        self, features: Mapping[str, Tensor], padding: Tensor | None = None, bounds: Tensor | None = None
    ) -> PretextOutput:
        """Cut patches and look for them.

        Args:
            features: with the entry ``mel``, ``(batch, mel, frames)``, or ``embeddings`` of a frozen backbone,
                ``(batch, their dim, cells)``, with ``pooled_patches``.
            padding: true where a frame is padding, ``(batch, any number of frames)``; patches are cut from the rest.
            bounds: patches to look for, ``(batch, M' <= M, 2)``; drawn from torch's global generator if None.
        """
        feature, frames = next(iter(features.values())), feature_frames(self.network, features, self.span_frames)
        padding = None if padding is None else regrid_padding(padding, frames)
        if bounds is None:
            bounds = self.sampler(torch.full((len(feature),), frames) if padding is None else (~padding).sum(dim=1))
        bounds = bounds.to(feature.device)
        if self.pooled_patches:
            cells = backbone_map(self.network, features, padding)
            described = pool_patches(cells, bounds, self.network.backbone.time_factor)
            memory = self.network.encode_features(cells, padding, self.span_frames)
        else:
            described = self.describe(features["mel"], bounds)
            memory = self.network.encode(features["mel"], padding, self.span_frames)
        own, patch = self._queries(described)
        queries, content = (own.expand_as(patch), patch) if self.patches_are_content else (own + patch, None)
        group = torch.arange(own.shape[0], device=bounds.device) // self.group  # patch that a query looks for
        decoded = self.network.decode(queries, memory, group[:, None] != group, content=content)
        output = SetOutput(
            layer_logits=self.class_head(decoded.states),
            layer_boxes=decoded.boxes,
            layer_features=self.feature_head(decoded.states),
            span_seconds=self.clip_seconds * max(1.0, frames / self.span_frames),
        )
        boxes = edge_boxes(bounds.float() / max(frames, self.span_frames))
        eligible = group[:, None] == torch.arange(bounds.shape[1], device=bounds.device)
        clips = boxes.new_ones(len(boxes))
        targets = EventTargets(
            labels=torch.zeros_like(boxes[..., 0], dtype=torch.long),
            boxes=boxes,
            weights=torch.ones_like(boxes[..., 0]),
            strong=clips.bool(),
            tags=clips[:, None],
            tagged=~clips.bool(),
            features=described.detach(),
            eligible=eligible.expand(len(boxes), -1, -1) if self.match_own_group else None,
        )
        return PretextOutput(output, targets, bounds)

    @torch.no_grad()
    def describe(self, spectrogram: Tensor, bounds: Tensor) -> Tensor:
        """Backbone features of patches, ``(batch, patches, channels)``."""
        patches = crop_patches(spectrogram, bounds, self.patch_frames)
        return pooled_features(self.network.backbone, patches.flatten(0, 1)).unflatten(0, patches.shape[:2])

    def _queries(self, described: Tensor) -> tuple[Tensor, Tensor]:
        """Event queries, and what the patches add to them, ``(batch, queries, dim)``."""
        if self.patches_are_content:
            # Pooled features of patches differ by little beside their mean; standardised, the difference is all.
            spread = described.flatten(0, 1).std(dim=0, correction=0).clamp_min(1e-6)
            described = (described - described.flatten(0, 1).mean(dim=0)) / spread
        patch = self.patch_projection(described).repeat_interleave(self.group, dim=1)
        if self.training and self.patch_dropout:
            patch = patch * (torch.rand(*patch.shape[:2], 1) >= self.patch_dropout).to(patch.device)
        own = self.network.event_queries[: patch.shape[1]]
        return 2 * own if self.legacy_double_query and self.training else own, patch
