"""Data loaders of a run, on the time grid of the model that reads them."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

from pmam_plugin import processes
from pmam_plugin.brains.parts import number_of_passes
from pmam_plugin.brains.plan import TrainingPlan, fold_seed
from pmam_plugin.data import Batch, ClipDataset, evaluation_loader, training_loader
from pmam_plugin.errors import InputError
from pmam_plugin.labels import LabelEncoder
from pmam_plugin.prototypes import ArrayStore
from pmam_plugin.stages.context import RunContext

logger = logging.getLogger(__name__)


class OnGrid(Protocol):
    """What loading needs to know of a model, be it a backbone or a detector."""

    @property
    def sample_rate(self) -> int:
        """Of its waveform, Hz."""

    @property
    def frame_rate(self) -> float:
        """Frames per second."""

    def output_frames(self, samples: int) -> int:
        """Frames for a waveform of ``samples``."""


def clip_dataset(
    context: RunContext,
    model: OnGrid,
    subsets: Sequence[str],
    whole: bool = False,
    stored: bool = False,
    copies: bool = False,
) -> ClipDataset:
    """Clips of those of ``subsets`` that the data have, labelled on the grid of ``model``.

    Args:
        context: of the run.
        model: gives sample rate and frame grid.
        subsets: names.
        whole: recordings longer than a training clip come in full.
        stored: with the embeddings that :class:`~pmam_plugin.stages.Embed` stored instead of the sound.
        copies: with those of altered copies too, where it stored some.
    """
    data = context.data
    if stored and "embeddings" not in context.artifacts:
        raise ValueError("no embeddings are stored; put Embed before the stage that reads them")
    frames = model.output_frames(round(data.clip_seconds * model.sample_rate))
    return ClipDataset(
        {name: data.manifests[name] for name in subsets if name in data.manifests},
        LabelEncoder(data.labels, model.frame_rate, frames, data.clip_seconds, context.onset_rounding)
        if data.labels
        else None,
        model.sample_rate,
        data.clip_seconds,
        # What is scored is read anew: the cache rounds to 16 bits, and a user's recording is not rounded.
        cache=None if whole else context.audio_cache,
        whole=whole,
        cache_gigabytes=context.cache_gigabytes,
        embeddings=ArrayStore.open(context.artifacts["embeddings"]) if stored else None,
        copies=_copies(context) if stored and copies else (),
        annotated=data.annotated,
    )


def _copies(context: RunContext) -> list[ArrayStore]:
    folder = context.artifacts.get("altered")
    return [] if folder is None else [ArrayStore.open(store) for store in sorted(folder.iterdir())]


def check_batch(context: RunContext, plan: TrainingPlan, name: str) -> list[str]:
    """Subsets of a stage's batches that the data have.

    Raises:
        InputError: none.
    """
    wanted = [subset for subset, count in plan.batch.items() if count]
    present = [subset for subset in wanted if subset in context.data.manifests]
    if not present:
        raise InputError(
            f"{name}: the data have no {' and no '.join(wanted)} clips, only {', '.join(context.data.manifests)}; "
            "add some, name other subsets in the batch, or leave the stage out (skip_stages)"
        )
    return present


def training_batches(context: RunContext, model: OnGrid, plan: TrainingPlan, name: str, stored: bool = False) -> Any:
    """Loader of the mixed batches of ``plan``; subsets the data do not have are left out of the batch, and logged."""
    present = {subset: count for subset, count in plan.batch.items() if subset in context.data.manifests}
    missing = [subset for subset, count in plan.batch.items() if count and subset not in present]
    if missing:
        logger.info("%s: the data have no %s clips; batches are %s", name, " or ".join(missing), present)
    rank, world = processes.share()
    clips, micro_batch = sum(present.values()), context.run_opts.get("micro_batch")
    passes = number_of_passes(clips, world, micro_batch)
    if world * passes > 1:
        logger.info(
            "%s: batches of %d clips %s over %d %s: %s on each device, %s at a time; batch norm sees that many",
            name,
            clips,
            present,
            world,
            "process" if world == 1 else "processes",
            _span(clips, world),
            _span(clips, world * passes),
        )
    return training_loader(
        clip_dataset(context, model, list(present), stored=stored, copies=True),
        present,
        fold_seed(context.seed, name, "order") % 2**31,
        plan.steps_per_epoch,
        context.readers,
        rank,
        world,
    )


def validation_batches(
    context: RunContext, model: OnGrid, batch_clips: int, whole: bool = True, stored: bool = False
) -> Any:
    """Loader of this process's selection clips (in full, or cut like training clips); None where the data have none."""
    if "selection" not in context.data.manifests:
        return None
    dataset = clip_dataset(context, model, ["selection"], whole, stored)
    return evaluation_loader(dataset, batch_clips, context.readers, None, *processes.share())


def _span(clips: int, parts: int) -> str:
    """How many clips are in each of so many parts."""
    fewest, most = clips // parts, -(-clips // parts)
    return str(most) if fewest == most else f"{fewest} or {most}"


def clip_batches(
    context: RunContext,
    model: OnGrid,
    subsets: Sequence[str],
    batch_clips: int,
    skip: Collection[str] = (),
    share: tuple[int, int] = (0, 1),
    whole: bool = False,
    stored: bool = False,
) -> Iterator[Batch]:
    """Every clip of ``subsets`` once, in order, with a progress bar.

    Args:
        context: of the run.
        model: gives sample rate and frame grid.
        subsets: names; those without clips are left out.
        batch_clips: clips at a time.
        skip: ids of clips that are done.
        share: (rank, number of processes): this process's part only; see :func:`pmam_plugin.processes.share`.
        whole, stored: see :func:`clip_dataset`.
    """
    from tqdm.auto import tqdm

    dataset = clip_dataset(context, model, subsets, whole, stored)
    rank, world = share
    # Shares are cut before what is done is taken out: other processes may be writing already.
    indices: Sequence[int] = range(rank, len(dataset), world)
    if skip:
        ids = (clip.id for name in dataset.indices for clip in dataset.clips(name))
        indices = array("q", (number for number, clip in enumerate(ids) if number in indices and clip not in skip))
    loader = evaluation_loader(dataset, batch_clips, context.readers, indices)
    yield from tqdm(
        loader, desc=", ".join(dataset.indices), unit="batch", leave=False, disable=context.quiet or rank > 0
    )
