"""The E-step: embed every clip, fit the prototypes, write each frame's posterior (PMAM, section on prototypes)."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from torch import Tensor, nn

from pmam_plugin import processes
from pmam_plugin.brains.plan import fold_seed
from pmam_plugin.config import configurable
from pmam_plugin.data import Batch
from pmam_plugin.encoders import Columns, FrozenEncoder
from pmam_plugin.labels import LabelEncoder
from pmam_plugin.models import Backbone
from pmam_plugin.prototypes import ArrayStore, Projection, PrototypeSet, draw_frames, first_embeddings
from pmam_plugin.prototypes.agreement import co_occurrence, normalised_mutual_information
from pmam_plugin.stages.context import RunContext, Stage, StageResult
from pmam_plugin.stages.embed import filled_together
from pmam_plugin.stages.loading import clip_batches
from pmam_plugin.stages.prepare import copy_with_artifact
from pmam_plugin.stages.settings import describe

logger = logging.getLogger(__name__)

# With 30 prototypes at a cosine of .9 to each other, the minimum of PrototypeBCE for a frame of one of them is at a
# probability of .77 for it; at .96 it is .45.
_ALIKE = 0.9


@configurable
class EStep(Stage):
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
        components: dimensions PCA keeps (about the mean); None clusters the embeddings in all their dimensions.
        centre: subtract the embeddings' mean first, because the loss looks at directions only; the reference does not.
        frame_subsampling: one random frame of so many takes part in the fit.
        temperature: of the posteriors; above 1 softens them (they are nearly one-hot in many dimensions).
        batch_clips: clips encoded at a time.
        dtype: of the stored posteriors, ``float16`` or ``uint8``.
    """

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
        centre: bool = True,
        frame_subsampling: int = 10,
        temperature: float = 1.0,
        batch_clips: int = 16,
        dtype: str = "float16",
    ) -> None:
        if first_embeddings not in ("mel", "encoder"):
            raise ValueError(f"first_embeddings is mel or encoder, not {first_embeddings!r}")
        self.iteration, self.backbone, self.estimator = iteration, backbone, estimator
        self.subsets, self.mel_context = tuple(subsets), mel_context
        self.layer = first_layer if iteration == 1 and first_layer is not None else layer
        self.from_mel = first_embeddings == "mel" and iteration == 1
        self.components, self.centre, self.frame_subsampling = components, centre, frame_subsampling
        self.temperature, self.batch_clips, self.dtype = temperature, batch_clips, dtype
        self.name = f"estep_{iteration}"

    @property
    def folder(self) -> str:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        return f"prototypes/{self.iteration}"

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        store = self._embed(context, folder)
        prototypes = self._fit(context, store, folder)
        posteriors = self._label(store, prototypes, folder / "posteriors")
        fitted = context.data.seconds_by_clip(self.subsets)
        # The summary is of the posteriors themselves: uint8 rounds a zero up to 1/512, which would look like entropy.
        exact = self.dtype == "float16"
        summary = prototypes.summary(
            posteriors[clip] if exact else prototypes.posteriors(store[clip], self.temperature) for clip in fitted
        )
        ddp_barrier()
        if if_main_process():
            shutil.rmtree(folder / "embeddings", ignore_errors=True)
            (folder / "drawn.npy").unlink(missing_ok=True)
            (folder / "fit.safetensors").unlink(missing_ok=True)
        logger.info(
            "E-step %d: %d of %d prototypes active, mean posterior entropy %.3f nats, mean cosine between prototypes "
            "%.3f",
            self.iteration,
            summary.active,
            summary.components,
            summary.entropy,
            summary.cosine,
        )
        if summary.cosine > _ALIKE:
            logger.warning(
                "E-step %d: the prototypes point almost the same way (mean cosine %.3f): no prediction can be near one "
                "and far from the others; use centre: true, a normalised layer or components",
                self.iteration,
                summary.cosine,
            )
        weights = [round(float(weight), 6) for weight in prototypes.weights]
        notes: dict[str, Any] = {**asdict(summary), **self._agreement(context, posteriors)}
        notes |= {"weights": weights, "embeddings": "mel" if self.from_mel else self.layer}
        return StageResult({"prototypes": folder, "posteriors": folder / "posteriors"}, notes)

    def _agreement(self, context: RunContext, posteriors: ArrayStore) -> dict[str, float]:
        """Normalised mutual information of prototypes and strong labels (which the fit never sees), if any."""
        data = context.data
        clips = [clip for name in self.subsets for clip in data.manifests.get(name, ()) if clip.events is not None]
        if not clips:
            return {}
        grid = LabelEncoder(data.labels, posteriors.frames / data.clip_seconds, posteriors.frames, data.clip_seconds)
        joint = np.zeros((posteriors.width, len(data.labels) + 1))
        for clip in clips:
            activity = grid.encode_strong(event[:3] for event in clip.events or ())
            gamma = posteriors[clip.id]
            joint += co_occurrence(gamma, activity[: len(gamma)])
        return {"label_information": normalised_mutual_information(joint)}

    def _embed(self, context: RunContext, folder: Path) -> ArrayStore:
        backbone = copy_with_artifact(self.backbone, context)
        backbone.to(context.device).eval()
        subsets, share = [*self.subsets, "selection"], processes.share()
        if context.shared is None:
            folder = folder / "embeddings"
        else:  # other runs may cluster the same embeddings, whatever their seed, in other ways
            folder = context.shared / "embeddings" / self._identity(context, backbone)
        # A frozen encoder has run before, where Embed is among the stages.
        inside = isinstance(backbone.encoder, FrozenEncoder) and self.layer not in backbone.encoder.encoder.layers
        stored = inside and "embeddings" in context.artifacts and not self.from_mel
        example = next(clip_batches(context, backbone, subsets, 1, stored=stored))
        frames, values = self._embeddings(backbone, example.to(context.device))
        own = (values.shape[1], values.grid) if isinstance(values, Columns) else ()
        with filled_together(folder, frames, values.shape[2], "float16", *own) as store:
            for batch in clip_batches(
                context, backbone, subsets, self.batch_clips, skip=set(store.ids()), share=share, stored=stored
            ):
                _, values = self._embeddings(backbone, batch.to(context.device))
                # Padding is no sound: it is neither fitted nor labelled.
                lengths = (~batch.padding(frames)).sum(dim=1).tolist()
                store.extend(batch.ids, values.values if isinstance(values, Columns) else values, lengths)
        return store

    def _identity(self, context: RunContext, backbone: Backbone) -> str:
        """A digest of all that the embeddings depend on: sound, settings and the weights that they pass."""
        parts = [backbone.frontend, *(() if self.from_mel else (backbone.encoder,))]
        parts += [backbone.context] if self.layer.startswith("context_") and not self.from_mel else []
        layer = ["mel", self.mel_context] if self.from_mel else [self.layer]
        data = context.data
        clips = sorted(
            (clip.id, str(clip.path), clip.content, clip.start, clip.seconds)
            for name in (*self.subsets, "selection")
            for clip in data.manifests.get(name, ())
        )
        settings = [layer, describe(parts), clips, data.clip_seconds, backbone.sample_rate]
        digest = hashlib.sha256(json.dumps(settings, default=str).encode())
        for name, tensor in nn.ModuleList(parts).state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:32]

    @torch.inference_mode()
    def _embeddings(self, backbone: Backbone, batch: Batch) -> tuple[int, Tensor | Columns]:
        """Frames per clip, and the embeddings on them or on a slower grid of the encoder's own."""
        frames = backbone.output_frames(batch.waves.shape[1])
        features = batch.features(backbone.frontend)
        if self.from_mel:
            mel = next(iter(features.values()))
            return frames, first_embeddings(mel, frames, self.mel_context, self.mel_context)
        columns = backbone.columns(features, self.layer)
        return frames, backbone.embed(features, self.layer) if columns is None else columns

    def _fit(self, context: RunContext, store: ArrayStore, folder: Path) -> PrototypeSet:
        if not (folder / "prototypes.json").exists():
            clips = list(context.data.seconds_by_clip(self.subsets))
            seed = fold_seed(context.seed, self.name) % 2**31
            frames = draw_frames(store, clips, self.frame_subsampling, seed, folder / "drawn.npy")
            # On the models' device, which is also the one that processes can exchange sums from.
            seed, device = fold_seed(context.seed, self.name, "fit") % 2**31, context.device
            projection = Projection(self.components, device) if self.components or self.centre else None
            prototypes = PrototypeSet(self.estimator(random_state=seed, device=device), projection)
            prototypes.fit(frames, folder / "fit.safetensors")
            if if_main_process():
                prototypes.save(folder)
            ddp_barrier()
        # Read back, as a resumed run does: both then label with the same numbers to the last bit.
        return PrototypeSet.load(folder, context.device)

    def _label(self, store: ArrayStore, prototypes: PrototypeSet, folder: Path) -> ArrayStore:
        rank, world = processes.share()
        with filled_together(folder, store.frames, prototypes.components, self.dtype) as posteriors:
            # Shares are cut before what is done is taken out: others may be writing already.
            clips = posteriors.missing(store.ids()[rank::world])
            for start in range(0, len(clips), self.batch_clips):
                some = clips[start : start + self.batch_clips]
                posteriors.extend(some, [prototypes.posteriors(store[clip], self.temperature) for clip in some])
        return posteriors
