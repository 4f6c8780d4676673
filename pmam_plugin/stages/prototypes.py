"""The E-step: embed every clip, fit the prototypes, write each frame's posterior (PMAM, section on prototypes)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from torch import Tensor

from pmam_plugin.brains.base import fold_seed
from pmam_plugin.config import configurable
from pmam_plugin.data import Batch
from pmam_plugin.encoders import Windows
from pmam_plugin.models import Backbone
from pmam_plugin.prototypes import (
    EmbeddingStore,
    PosteriorStore,
    PrincipalComponents,
    PrototypeSet,
    first_embeddings,
)
from pmam_plugin.stages.loading import clip_batches, distributed_share
from pmam_plugin.stages.prepare import copy_with_artifact
from pmam_plugin.stages.runner import RunContext, StageResult

logger = logging.getLogger(__name__)


@configurable
class EStep:
    """Fit the prototypes of one EM iteration and pseudo-label all clips with them.

    Args:
        iteration: 1, 2, ...; the first may start from log-mel windows.
        backbone: front ends, encoder and context network; later iterations load the last pre-trained weights into it.
        estimator: makes the mixture (``GaussianMixture`` or ``KMeans``), called as ``estimator(random_state=seed)``.
        subsets: whose clips are pseudo-labelled and pre-trained on; the selection clips are labelled too, never fitted.
        first_embeddings: what iteration 1 clusters: ``encoder`` (needs pre-trained weights) or ``mel`` (HuBERT's
            start: standardised log-mel context windows).
        layer: embedding that is clustered: ``encoder``, ``context_<n>`` or a layer of the encoder.
        first_layer: the same for iteration 1, where some layers are not trained yet; None is ``layer``.
        mel_context: frames of the model's grid on each side of a log-mel window.
        components: dimensions PCA keeps; None clusters the embeddings themselves.
        whiten: give the kept components unit variance.
        frame_subsampling: one random frame of so many takes part in the fit.
        temperature: of the posteriors; above 1 softens them (they are nearly one-hot in many dimensions).
        windows: encode with sliding windows.
        batch_clips: clips encoded at a time.
        dtype: of the stored posteriors, ``float16`` or ``uint8``.
        keep_embeddings: leave the embeddings on disk.
    """

    always = False

    def __init__(
        self,
        iteration: int,
        backbone: Backbone,
        estimator: Callable[..., Any],
        subsets: Sequence[str] = ("strong", "weak", "unlabelled"),
        first_embeddings: str = "encoder",
        layer: str = "encoder",
        first_layer: str | None = None,
        mel_context: int = 2,
        components: int | None = None,
        whiten: bool = False,
        frame_subsampling: int = 10,
        temperature: float = 1.0,
        windows: Windows | None = None,
        batch_clips: int = 16,
        dtype: str = "float16",
        keep_embeddings: bool = False,
    ) -> None:
        if first_embeddings not in ("mel", "encoder"):
            raise ValueError(f"first_embeddings is mel or encoder, not {first_embeddings!r}")
        self.iteration, self.backbone, self.estimator = iteration, backbone, estimator
        self.subsets, self.mel_context = tuple(subsets), mel_context
        self.layer = first_layer if iteration == 1 and first_layer is not None else layer
        self.from_mel = first_embeddings == "mel" and iteration == 1
        self.components, self.whiten, self.frame_subsampling = components, whiten, frame_subsampling
        self.temperature, self.windows, self.batch_clips = temperature, windows, batch_clips
        self.dtype, self.keep_embeddings = dtype, keep_embeddings
        self.name, self.folder = f"estep_{iteration}", f"prototypes/{iteration}"

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.runner.Stage`."""
        store = self._embed(context, folder / "embeddings")
        prototypes = self._fit(context, store, folder)
        posteriors = self._label(store, prototypes, folder / "posteriors")
        fitted = context.data.seconds_by_clip(self.subsets)
        # The summary is of the posteriors themselves: uint8 rounds a zero up to 1/512, which would look like entropy.
        exact = self.dtype == "float16"
        summary = prototypes.summary(
            posteriors[clip] if exact else prototypes.posteriors(torch.from_numpy(store[clip]), self.temperature)
            for clip in fitted
        )
        ddp_barrier()
        if if_main_process() and not self.keep_embeddings:
            shutil.rmtree(folder / "embeddings")
        logger.info(
            "E-step %d: %d of %d prototypes active, mean posterior entropy %.3f nats",
            self.iteration,
            summary.active,
            summary.components,
            summary.entropy,
        )
        weights = [round(float(weight), 6) for weight in prototypes.weights]
        notes = {**summary.as_dict(), "weights": weights, "embeddings": "mel" if self.from_mel else self.layer}
        return StageResult({"prototypes": folder, "posteriors": folder / "posteriors"}, notes)

    def _embed(self, context: RunContext, folder: Path) -> EmbeddingStore:
        backbone = copy_with_artifact(self.backbone, context)
        backbone.to(context.device).eval()
        subsets, share = [*self.subsets, "selection"], distributed_share()
        example = next(clip_batches(context, backbone, subsets, 1))
        frames, dim = self._embeddings(backbone, example.to(context.device)).shape[1:]
        if if_main_process():
            EmbeddingStore(folder, frames, dim)
        ddp_barrier()
        store = EmbeddingStore.open(folder)
        for batch in clip_batches(context, backbone, subsets, self.batch_clips, skip=set(store.ids()), share=share):
            embeddings = self._embeddings(backbone, batch.to(context.device)).float().cpu()
            lengths = (~batch.padding(frames)).sum(dim=1).tolist()
            # Padding is no sound: it is neither stored nor fitted nor labelled.
            store.extend((clip, embeddings[index, : lengths[index]]) for index, clip in enumerate(batch.ids))
        ddp_barrier()
        store.refresh()
        return store

    @torch.inference_mode()
    def _embeddings(self, backbone: Backbone, batch: Batch) -> Tensor:
        features = backbone.frontend(batch.waves)
        if self.from_mel:
            mel = next(iter(features.values()))
            frames = backbone.output_frames(batch.waves.shape[1])
            return first_embeddings(mel, frames, self.mel_context, self.mel_context)
        return backbone.embed(features, self.layer, windows=self.windows)

    def _fit(self, context: RunContext, store: EmbeddingStore, folder: Path) -> PrototypeSet:
        if (folder / "prototypes.json").exists():
            return PrototypeSet.load(folder, context.device)
        rank, world = distributed_share()
        frames = store.batches(
            subsample=self.frame_subsampling,
            seed=fold_seed(context.seed, self.name) % 2**31,
            rank=rank,
            world=world,
            clips=context.data.seconds_by_clip(self.subsets),
        )
        # On the models' device, which is also the one that processes can exchange sums from.
        transform = None
        if self.components is not None:
            transform = PrincipalComponents(self.components, whiten=self.whiten, device=context.device)
        model = self.estimator(random_state=fold_seed(context.seed, self.name, "fit") % 2**31, device=context.device)
        prototypes = PrototypeSet(model, transform).fit(frames)
        if if_main_process():
            prototypes.save(folder)
        ddp_barrier()
        # Read back, as a resumed run does: both then label with the same numbers to the last bit.
        return PrototypeSet.load(folder, context.device)

    def _label(self, store: EmbeddingStore, prototypes: PrototypeSet, folder: Path) -> PosteriorStore:
        if if_main_process():
            PosteriorStore(folder, store.frames, prototypes.components, dtype=self.dtype)
        ddp_barrier()
        posteriors = PosteriorStore.open(folder)
        rank, world = distributed_share()
        # Shares are cut before what is done is taken out: others may be writing already.
        clips = posteriors.missing(store.ids()[rank::world])
        for start in range(0, len(clips), self.batch_clips):
            posteriors.extend(
                (clip, prototypes.posteriors(torch.from_numpy(store[clip]), self.temperature).cpu())
                for clip in clips[start : start + self.batch_clips]
            )
        ddp_barrier()
        posteriors.refresh()
        return posteriors
