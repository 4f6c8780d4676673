"""Data loaders of a run, on the time grid of the model that reads them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any, Protocol

import torch
from speechbrain.dataio.dataloader import SaveableDataLoader
from torch.utils.data import DataLoader, Subset

from pmam_plugin.brains.base import TrainingPlan
from pmam_plugin.data import Batch, ClipDataset, SubsetBatchSampler, collate
from pmam_plugin.errors import InputError
from pmam_plugin.labels import LabelEncoder
from pmam_plugin.stages.runner import RunContext


class OnGrid(Protocol):
    """What loading needs to know of a model: a Backbone or a full model."""

    sample_rate: int
    frame_rate: float

    def output_frames(self, samples: int) -> int:
        """Frames for a waveform of ``samples``."""


def distributed_share() -> tuple[int, int]:
    """(rank, number of processes)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def frames_of(model: OnGrid, samples: int) -> int:
    """Frames the model returns for a waveform of ``samples``."""
    return model.output_frames(samples)


def label_encoder(context: RunContext, model: OnGrid) -> LabelEncoder:
    """Labels of the data on the grid of ``model``."""
    seconds = context.data.clip_seconds
    frames = frames_of(model, round(seconds * model.sample_rate))
    return LabelEncoder(context.data.labels, model.frame_rate, frames, seconds)
