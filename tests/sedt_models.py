"""Tiny set-prediction models for tests."""

from __future__ import annotations

import torch

from pmam_plugin.features import FrontEnds, SEDTMel
from pmam_plugin.losses.event_targets import EventTargets
from pmam_plugin.models.sedt import SEDT
from pmam_plugin.models.sp_sedt import SPSEDT, PatchSampler
from pmam_plugin.nn.query_decoder import SetNetwork
from pmam_plugin.nn.resnet import SpectrogramResNet

LABELS = ("cat", "dog", "speech")


def tiny_network(queries: int = 6, frequency_bands: int = 0, **options: object) -> SetNetwork:
    """A ResNet-18 and a Transformer of width 16, with one encoder and two decoder layers."""
    return SetNetwork(
        SpectrogramResNet("resnet18"),
        queries=queries,
        dim=16,
        heads=2,
        encoder_layers=1,
        decoder_layers=2,
        feedforward=32,
        frequency_bands=frequency_bands,
        **options,  # type: ignore[arg-type]
    )


def tiny_sedt(clip_seconds: float = 4.0, **options: object) -> SEDT:
    """A SEDT for clips of four seconds and three classes."""
    torch.manual_seed(0)
    return SEDT(FrontEnds(mel=SEDTMel()), tiny_network(), LABELS, clip_seconds=clip_seconds, **options)  # type: ignore[arg-type]


def tiny_pretext(patches: int = 3, **options: object) -> SPSEDT:
    """Its pretext task, three patches for six queries."""
    torch.manual_seed(0)
    sampler = PatchSampler(patches=patches)
    frontend = FrontEnds(mel=SEDTMel())
    return SPSEDT(frontend, tiny_network(), sampler, patch_frames=32, clip_seconds=4.0, **options)  # type: ignore[arg-type]


def some_targets() -> EventTargets:
    """Two strong clips (one of them silent), a weak and an unlabelled one."""
    events = [([0, 2], [[0.3, 0.2], [0.6, 0.5]]), ([], []), None, None]
    return EventTargets.from_events(events, len(LABELS), tags=[None, None, [1], None])
