"""Batches made by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from pmam_plugin.data import Batch


def labelled(waves: Tensor, strong: Tensor, weak: Tensor, sample_rate: int, kinds: Tensor) -> Batch:
    """Clips in full length: of kind 0 with events, of kind 1 with tags, of kind 2 without labels."""
    return Batch(
        ids=list("abcdefgh"[: len(waves)]),
        waves=waves,
        seconds=torch.full((len(waves),), waves.shape[1] / sample_rate, dtype=torch.float64),
        strong=strong,
        weak=weak,
        has_strong=kinds == 0,
        has_weak=kinds < 2,
        group=torch.tensor([0, 2, 3])[kinds],
        sample_rate=sample_rate,
    )
