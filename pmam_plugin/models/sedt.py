"""SEDT: sound events as a set of intervals, predicted in parallel by queries (Ye et al., arXiv 2110.02011)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.encoders.frozen import STORED
from pmam_plugin.features import FrontEnds
from pmam_plugin.losses.event_targets import EventTargets
from pmam_plugin.models.base import Detection, SoundEventModel
from pmam_plugin.models.set_scores import decode_events, dense_scores, fuse_tags, score_rows
from pmam_plugin.nn.interpolate import interpolate_frames
from pmam_plugin.nn.intervals import box_edges
from pmam_plugin.nn.pooling import linear_softmax_pool
from pmam_plugin.nn.query_decoder import SetNetwork
from pmam_plugin.nn.set_output import SetOutput
from pmam_plugin.postprocessing.rows import ScoreRows

if TYPE_CHECKING:
    import pandas as pd

# How events are noised: the centre moves by up to this share of the length, the length changes by up to that share of
# it, and this share of the classes is another one (DN-DETR, section 4.3).
_CENTRE_NOISE, _LENGTH_NOISE, _FLIPPED = 0.5, 1.0, 0.2
# What pre-training trains or measures, by the names of a SEDT's state.
_PRETRAINED = ("frontend.", "network.")


@dataclass(kw_only=True)
class SetDetection(Detection):
    """A detection that still holds the set it was painted from.

    Attributes:
        output: boxes, class logits and tag logits, of every decoder layer.
        candidates: fused score of every query and class, ``(batch, queries, classes)``.
        span_frames: how many of ``frames`` the span of 1.0 of a box would have.
        followed: frame probabilities of the frame head, ``(batch, frames, classes)``, or None without one.
    """

    output: SetOutput
    candidates: Tensor
    span_frames: float
    followed: Tensor | None = None


@configurable
class SEDT(SoundEventModel):
    """Sound event detection Transformer.

    A spectrogram passes the set network; each event query then says what it found (a class, or no-object) and where,
    as fractions of ``clip_seconds``; one more query, the audio query, tags the clip. A shorter clip is read as the
    beginning of a span of ``clip_seconds``; in a longer one, boxes are fractions of its own length.

    Scores leave in two forms. ``Detection.frames`` paints all boxes at ``frame_rate`` (largest score wins), for
    fusion and consistency. :meth:`score_tables` writes disjoint boxes per class between change points, minus
    infinity elsewhere, which is what PSDS and F1 should be computed from; see :mod:`pmam_plugin.models.set_scores`.

    Args:
        frontend: gives the features ``mel``; :class:`~pmam_plugin.features.SEDTMel` as published.
        network: backbone, Transformer, event queries.
        labels: class names.
        clip_seconds: span that boxes refer to, s.
        frame_rate: of ``Detection.frames``, 1/s.
        minimum_seconds: shortest event in a scores table.
        frame_head: also classify the encoder's memory frame by frame, for
            :class:`~pmam_plugin.brains.set_loss.SetLoss` to train beside the set: the memory then says what sounds
            where before queries can ask.
        tag_from: who tags the clip: ``audio_query``, as published, or ``frames``, the frame head, pooled.
        denoising: groups of queries that start from the true events, noised, in training (DN-DETR, Li et al., CVPR
            2022): the decoder learns to mend boxes without waiting for matching to settle. Needs a network with
            anchors; 0, as published, has none.

    Raises:
        ValueError: an unknown tagger, or denoising without anchors.
    """

    pretrained_name = "pretrained"

    def __init__(
        self,
        frontend: FrontEnds,
        network: SetNetwork,
        labels: Sequence[str],
        clip_seconds: float = 10.0,
        frame_rate: float = 50.0,
        minimum_seconds: float = 0.2,
        frame_head: bool = False,
        tag_from: str = "audio_query",
        denoising: int = 0,
    ) -> None:
        super().__init__()
        if tag_from not in ("audio_query", "frames") or (tag_from == "frames" and not frame_head):
            raise ValueError(f"tag_from is audio_query, or frames with a frame head, not {tag_from!r}")
        if denoising and network.anchors is None:
            raise ValueError("denoising needs queries that stand somewhere; give the network anchors: true")
        self.frontend, self.network, self.labels = frontend, network, tuple(labels)
        self.sample_rate, self.frame_rate = frontend.sample_rate, float(frame_rate)
        self.clip_seconds, self.minimum_seconds = float(clip_seconds), minimum_seconds
        self.feature_rate = frontend.frame_rates["mel"]
        self.span_frames = frontend.frames(round(self.clip_seconds * self.sample_rate))["mel"]
        self.audio_query = nn.Parameter(torch.randn(1, network.dim))
        self.class_head = nn.Linear(network.dim, len(self.labels) + 1)
        self.tag_head = nn.Linear(network.dim, len(self.labels))
        self.tag_from, self.denoising = tag_from, denoising
        self.frame_head = nn.Linear(network.dim, len(self.labels)) if frame_head else None
        self.noised_content = nn.Embedding(len(self.labels), network.dim) if denoising else None

    def forward(
        self,
        features: Mapping[str, Tensor],
        padding: Tensor | None = None,
        temperature: float = 1.0,
        targets: EventTargets | None = None,
        **options: Any,
    ) -> SetDetection:
        """Detect sound events.

        Args:
            features: with the entry ``mel``, ``(batch, mel, frames)``, or ``embeddings`` of a frozen backbone,
                ``(batch, their dim, cells)``.
            padding: true where a frame is padding, ``(batch, any number of frames)``: on the grid of the features or of
                ``Detection.frames``.
            temperature: divides class and tag logits.
            targets: events to noise, in training with ``denoising``.
            options: of other models (``windows``: this one reads clips whole); None or left out.

        Returns:
            Painted frames, tags of the audio query as ``clips`` and ``tags``, and the set itself.

        Raises:
            TypeError: an option that this model does not have.
        """
        foreign = sorted(name for name, value in options.items() if value is not None)
        if foreign:
            raise TypeError(f"SEDT has no option {foreign[0]!r}")
        output, embedding = self._predict(features, padding, targets)
        frames = self._dense_frames(feature_frames(self.network, features, self.span_frames))
        padded = None if padding is None else regrid_padding(padding, frames).unsqueeze(-1)
        followed = None
        if self.frame_head is not None:
            followed = (interpolate_frames(self.frame_head(embedding).float(), frames) / temperature).sigmoid()
            followed = followed if padded is None else followed.masked_fill(padded, 0.0)
        tags = output.tags(temperature)
        if self.tag_from == "frames" and followed is not None:
            tags = linear_softmax_pool(followed)
        assert tags is not None
        candidates = fuse_tags(output.probabilities(temperature), tags)
        dense = dense_scores(candidates, box_edges(output.boxes) * output.span_seconds, frames, self.frame_rate)
        return SetDetection(
            dense if padded is None else dense.masked_fill(padded, 0.0),
            tags,
            tags,
            interpolate_frames(embedding, frames),
            output=output,
            candidates=candidates,
            span_frames=output.span_seconds * self.frame_rate,
            followed=followed,
        )

    def score_rows(self, detection: Detection, durations: Sequence[float]) -> list[ScoreRows]:
        """Disjoint boxes per class as rows of scores tables, one between any two change points.

        Every (query, class) pair is a candidate, its interval cut to the clip, its score fused with the clip's tags;
        candidates of one class compete, best first (:func:`~pmam_plugin.models.set_scores.score_rows`). Unlike the
        tables of frame-based models these have no fixed number of rows, and minus infinity where there is no box.

        Args:
            detection: what :meth:`forward` returned.
            durations: length of every clip in seconds.

        Raises:
            TypeError: a detection of another model.
        """
        if not isinstance(detection, SetDetection):
            raise TypeError("SEDT writes scores tables from its own detections only")
        edges = box_edges(detection.output.boxes.detach().double()) * detection.output.span_seconds
        scores = detection.candidates.detach().double()
        return [
            score_rows(*clip, self.labels, self.minimum_seconds)
            for clip in zip(scores.cpu().numpy(), edges.cpu().numpy(), durations, strict=True)
        ]

    def event_tables(self, detection: Detection, durations: Sequence[float] | None = None) -> list[pd.DataFrame]:
        """Events by the published protocol, see :func:`~pmam_plugin.models.set_scores.decode_events`, at 0.5.

        Each query speaks for its likeliest class, tags gate hard, neighbours that overlap compete, as in the reference:
        its F1 is that of these events.

        Args:
            detection: what :meth:`forward` returned.
            durations: clip lengths, s; None leaves events uncut.
        """
        if not isinstance(detection, SetDetection) or detection.tags is None:
            raise TypeError("SEDT reads events off its own detections only")
        return decode_events(
            detection.output.probabilities(),
            detection.output.boxes,
            self.labels,
            detection.tags > 0.5,
            minimum_seconds=self.minimum_seconds,
            span_seconds=detection.output.span_seconds,
            durations=durations,
        )

    def output_frames(self, samples: int) -> int:
        """Number of ``Detection.frames`` for a waveform of ``samples``."""
        return self._dense_frames(self.frontend.frames(samples)["mel"])

    def pretrained_state(self) -> dict[str, Tensor]:
        """See :func:`pretrained_part`; class and tag head and the audio query start anew."""
        return pretrained_part(self)

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Start from :meth:`pretrained_state`, strictly.

        Raises:
            ValueError: the state lacks a tensor of front end or network, or has others.
        """
        missing, unexpected = self.load_state_dict(dict(state), strict=False)
        missing = [name for name in missing if name.startswith(_PRETRAINED)]
        if missing or unexpected:
            raise ValueError(f"pre-trained network does not fit: {[*missing, *unexpected][0]} is missing or unknown")

    def _dense_frames(self, feature_frames: int) -> int:
        return max(1, math.floor(feature_frames / self.feature_rate * self.frame_rate + 1e-6))

    def _predict(
        self, features: Mapping[str, Tensor], padding: Tensor | None, targets: EventTargets | None = None
    ) -> tuple[SetOutput, Tensor]:
        frames = feature_frames(self.network, features, self.span_frames)
        padding = None if padding is None else regrid_padding(padding, frames)
        cells = backbone_map(self.network, features, padding)
        memory = self.network.encode_features(cells, padding, self.span_frames)
        audio, events = (
            query.expand(len(memory.tokens), -1, -1) for query in (self.audio_query, self.network.event_queries)
        )
        boxes, mask, own = None, None, events.shape[1]
        if targets is not None and self.denoising and self.training and targets.labels.shape[1]:
            content, noised = self._noised(targets)
            assert self.network.anchors is not None
            anchors = self.network.anchors.logits.sigmoid().expand(len(events), -1, -1)
            events, boxes = torch.cat((events, content), dim=1), torch.cat((anchors, noised), dim=1)
            mask = _denoising_mask(1 + own, self.denoising, targets.labels.shape[1], events.device)
        decoded = self.network.decode(events, memory, mask, leading=audio, boxes=boxes)
        output = SetOutput(
            layer_logits=self.class_head(decoded.states[:, :, 1 : 1 + own]),
            layer_boxes=decoded.boxes[:, :, :own],
            tag_logits=self.tag_head(decoded.states[-1, :, 0]),
            span_seconds=self.clip_seconds * max(1.0, frames / self.span_frames),
        )
        if mask is not None:
            logits = self.class_head(decoded.states[:, :, 1 + own :])
            output.denoising = SetOutput(logits, decoded.boxes[:, :, own:])
        return output, memory.over_time()

    def _noised(self, targets: EventTargets) -> tuple[Tensor, Tensor]:
        """Content and boxes of ``denoising`` groups of all events, ``(batch, groups * slots, ...)``.

        Draws from torch's CPU generator; what stands in empty slots is never looked at.
        """
        assert self.noised_content is not None
        groups, device = self.denoising, targets.boxes.device
        labels = targets.labels.clamp_min(0).repeat(1, groups)
        flipped = (torch.rand(labels.shape) < _FLIPPED).to(device)
        labels = torch.where(flipped, torch.randint(len(self.labels), labels.shape).to(device), labels)
        centre, length = targets.boxes.float().repeat(1, groups, 1).unbind(-1)
        noise = (torch.rand(2, *labels.shape) * 2 - 1).to(device)
        centre, length = centre + _CENTRE_NOISE * noise[0] * length, length * (1 + _LENGTH_NOISE * noise[1])
        return self.noised_content(labels), torch.stack((centre, length), dim=-1).clamp(0.005, 0.995)


def feature_frames(network: SetNetwork, features: Mapping[str, Tensor], span_frames: int) -> int:
    """Feature frames of a batch, told from the features or from stored embeddings in their place."""
    if STORED in features:  # of one training clip: its last cell may reach past its end
        return min(features[STORED].shape[-1] * network.backbone.time_factor, span_frames)
    return features["mel"].shape[-1]


def backbone_map(network: SetNetwork, features: Mapping[str, Tensor], padding: Tensor | None) -> Tensor:
    """What the backbone of a network says of features, or has said: ``(batch, channels, cells, bands)``."""
    if STORED in features:
        backbone: Any = network.backbone
        return backbone.stored(features[STORED])
    return network.describe(features["mel"], padding)


def _denoising_mask(plain: int, groups: int, slots: int, device: torch.device) -> Tensor:
    """True where a query must not see another: nobody outside a group sees into it, ``(queries, queries)``."""
    group = torch.cat((torch.full((plain,), -1), torch.arange(groups).repeat_interleave(slots))).to(device)
    return (group[None] >= 0) & (group[:, None] != group[None])


def pretrained_part(model: nn.Module) -> dict[str, Tensor]:
    """The part of the state of a SEDT or a SPSEDT that pre-training hands on, under the same names in both.

    Band statistics of the front end, backbone, input projection, encoder, decoder, interval head and event queries.
    (The SP-SEDT paper lists backbone, Transformer and box head; its reference also hands on the projection and the
    queries, and so does this.)
    """
    return {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
        if name.startswith(_PRETRAINED)
    }


def regrid_padding(padding: Tensor, frames: int) -> Tensor:
    """A padding mask on a grid of ``frames``, ``(batch, any) -> (batch, frames)``; both grids span the same time."""
    if padding.shape[1] == frames:
        return padding
    index = (torch.arange(frames, device=padding.device) * padding.shape[1]) // frames
    return padding[:, index]
