"""Run a frozen encoder once: its embeddings on disk, for all later stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from pmam_plugin import processes
from pmam_plugin.brains.records import hand_on
from pmam_plugin.config import configurable
from pmam_plugin.encoders.frozen import FrozenEncoder
from pmam_plugin.errors import InputError
from pmam_plugin.features.banks import band_statistics
from pmam_plugin.prototypes import ArrayStore
from pmam_plugin.stages.context import RunContext, Stage, StageResult
from pmam_plugin.stages.loading import clip_batches
from pmam_plugin.stages.prepare import Pretrainable, copy_with_artifact

_LEAST_DEVIATION = 1e-3


@configurable
class Embed(Stage):
    """Store what the frozen encoder of a model says of every clip, and standardise it.

    Stages after it whose clips nothing alters before the encoder read the store instead of the sound: the E-step,
    pre-training and fine-tuning that augment and mix embeddings (``domain: embeddings``), and validation.

    Args:
        model: holds one :class:`~pmam_plugin.encoders.FrozenEncoder`.
        subsets: whose clips are stored, the selection clips besides.
        fitted: subsets that mean and deviation are measured on.
        batch_clips: clips encoded at a time.
    """

    name, folder = "embed", "stages/embed"

    def __init__(
        self,
        model: Pretrainable,
        subsets: Sequence[str] = ("strong", "synthetic", "weak", "unlabelled"),
        fitted: Sequence[str] = ("strong", "synthetic", "weak"),
        batch_clips: int = 8,
    ) -> None:
        self.model, self.subsets, self.fitted, self.batch_clips = model, tuple(subsets), tuple(fitted), batch_clips

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
        store = self._embed(context, model, frozen, folder / "store")
        # Channels stand where mel bands do; one that hardly ever moves must not become loud.
        fitted = (torch.as_tensor(store[clip]).T[None] for clip in context.data.seconds_by_clip(self.fitted))
        mean, std = band_statistics(fitted)
        frozen.mean, frozen.std = mean.to(context.device), std.clamp_min(_LEAST_DEVIATION).to(context.device)
        path = hand_on(folder / "backbone.safetensors", model.pretrained_state())
        gigabytes = (folder / "store" / "rows.bin").stat().st_size / 1e9
        notes = {"clips": len(store), "width": store.width, "gigabytes": round(gigabytes, 3)}
        return StageResult({"backbone": path, "embeddings": folder / "store"}, notes)

    @torch.inference_mode()
    def _embed(self, context: RunContext, model: Pretrainable, frozen: FrozenEncoder, folder: Path) -> ArrayStore:
        samples = round(context.data.clip_seconds * model.sample_rate)
        if if_main_process():
            frames = frozen.encoder.output_frames(model.frontend.frames(samples))
            ArrayStore(folder, frames, frozen.encoder.dim, "float16")
        ddp_barrier()
        store = ArrayStore.open(folder)
        subsets = [*self.subsets, "selection"]
        done, share = set(store.ids()), processes.share()
        for batch in clip_batches(context, model, subsets, self.batch_clips, skip=done, share=share):
            batch = batch.to(context.device)
            values = frozen.encoder(model.frontend(batch.waves), tokens=False).frames
            store.extend(batch.ids, values, [values.shape[1]] * len(batch))
        ddp_barrier()
        store.refresh()
        return store
