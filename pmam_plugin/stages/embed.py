"""Run a frozen encoder once: its embeddings on disk, for all later stages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from torch import Tensor

from pmam_plugin import processes
from pmam_plugin.augment import Augmentation, Features
from pmam_plugin.brains.plan import fold_seed
from pmam_plugin.config import configurable
from pmam_plugin.encoders.frozen import FrozenEncoder
from pmam_plugin.errors import InputError
from pmam_plugin.features.banks import band_statistics
from pmam_plugin.prototypes import ArrayStore
from pmam_plugin.stages.context import RunContext, Stage, StageResult
from pmam_plugin.stages.loading import clip_batches
from pmam_plugin.stages.prepare import Pretrainable, copy_with_artifact, hand_on_model

_LEAST_DEVIATION = 1e-3


@contextlib.contextmanager
def filled_together(folder: Path, *shape: Any) -> Iterator[ArrayStore]:
    """An :class:`ArrayStore` of this shape, new or unfinished, that every process adds to, and in the end knows."""
    if if_main_process():
        ArrayStore(folder, *shape)
    ddp_barrier()
    store = ArrayStore.open(folder)
    yield store
    ddp_barrier()
    store.refresh()


@configurable
class Embed(Stage):
    """Store what the frozen encoder of a model says of every clip, and standardise it.

    Stages after it whose clips nothing alters before the encoder read the store instead of the sound: the E-step,
    pre-training and fine-tuning that augment and mix embeddings (``domain: embeddings``), and validation. What cannot
    be done to embeddings, filtering say, is done to copies of the sound, which are stored beside it: training draws
    from clips and copies alike.

    Args:
        model: holds one :class:`~pmam_plugin.encoders.FrozenEncoder`.
        subsets: whose clips are stored, the selection clips besides.
        fitted: subsets that mean and deviation are measured on, and whose clips get copies.
        batch_clips: clips encoded at a time.
        augmentation: what a copy's features go through, drawn by the seed, the clip and the number of the copy.
        copies: of every clip of ``fitted``.

    Raises:
        ValueError: copies without an augmentation, which would be the same clip again.
    """

    name = "embed"

    def __init__(
        self,
        model: Pretrainable,
        subsets: Sequence[str] = ("strong", "synthetic", "weak", "unlabelled"),
        fitted: Sequence[str] = ("strong", "synthetic", "weak"),
        batch_clips: int = 8,
        augmentation: Augmentation | None = None,
        copies: int = 0,
    ) -> None:
        if copies and augmentation is None:
            raise ValueError("copies need an augmentation that alters them")
        self.model, self.subsets, self.fitted, self.batch_clips = model, tuple(subsets), tuple(fitted), batch_clips
        self.augmentation, self.copies = augmentation, copies

    def check(self, context: RunContext) -> None:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        if not set(self.fitted) & set(self.subsets) & set(context.data.manifests):
            raise InputError(
                f"{self.name}: the data have no {' and no '.join(self.fitted)} clips to measure embeddings on; name "
                "other subsets (fitted)"
            )

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        model: Any = copy_with_artifact(self.model, context)
        model.to(context.device).eval()
        frozen = next((part for part in model.modules() if isinstance(part, FrozenEncoder)), None)
        if frozen is None:
            raise ValueError("the model has no FrozenEncoder, and only a frozen one can run once; leave this stage out")
        store = self._embed(context, model, frozen, folder / "store", [*self.subsets, "selection"])
        altered = folder / "altered"
        for copy in range(1, self.copies + 1):
            self._embed(context, model, frozen, altered / f"{copy:03d}", self.fitted, copy)
        # Channels stand where mel bands do; one that hardly ever moves must not become loud.
        fitted = (torch.as_tensor(store[clip]).T[None] for clip in context.data.seconds_by_clip(self.fitted))
        mean, std = band_statistics(fitted)
        frozen.mean, frozen.std = mean.to(context.device), std.clamp_min(_LEAST_DEVIATION).to(context.device)
        artifacts = {**hand_on_model(model, folder), "embeddings": folder / "store"}
        gigabytes = (folder / "store" / "rows.bin").stat().st_size / 1e9
        notes = {"clips": len(store), "width": store.width, "gigabytes": round(gigabytes, 3)}
        return StageResult(artifacts | ({"altered": altered} if self.copies else {}), notes)

    @torch.inference_mode()
    def _embed(
        self,
        context: RunContext,
        model: Pretrainable,
        frozen: FrozenEncoder,
        folder: Path,
        subsets: Sequence[str],
        copy: int = 0,
    ) -> ArrayStore:
        samples = round(context.data.clip_seconds * model.sample_rate)
        frames = frozen.encoder.output_frames(model.frontend.frames(samples))
        with filled_together(folder, frames, frozen.encoder.dim) as store:
            done, share = set(store.ids()), processes.share()
            for batch in clip_batches(context, model, subsets, self.batch_clips, skip=done, share=share):
                batch = batch.to(context.device)
                features = model.frontend(batch.waves)
                if copy:
                    features = self._altered(features, [fold_seed(context.seed, clip, str(copy)) for clip in batch.ids])
                values = frozen.encoder(features, tokens=False).frames
                store.extend(batch.ids, values, [values.shape[1]] * len(batch))
        return store

    def _altered(self, features: Mapping[str, Tensor], seeds: Sequence[int]) -> Features:
        """Features of a batch, every clip augmented by itself: the same whatever stands beside it."""
        assert self.augmentation is not None
        altered = []
        for row, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            one = {name: values[row : row + 1] for name, values in features.items()}
            altered.append(self.augmentation(one, {}, generator)[0])
        return {name: torch.cat([one[name] for one in altered]) for name in features}
