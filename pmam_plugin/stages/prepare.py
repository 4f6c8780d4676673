"""The first stages: data, and weights that somebody else has trained."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import ddp_barrier, if_main_process

from pmam_plugin.brains.base import save_tensors
from pmam_plugin.checkpoints.atst import load_atst_frame
from pmam_plugin.checkpoints.passt import load_passt
from pmam_plugin.config import configurable
from pmam_plugin.data import prepare
from pmam_plugin.encoders import ATSTFrame, PaSSTEncoder
from pmam_plugin.models import Backbone
from pmam_plugin.stages.runner import RunContext, StageResult

LOADERS: dict[str, tuple[type, Any]] = {
    "passt": (PaSSTEncoder, load_passt),
    "atst-frame": (ATSTFrame, load_atst_frame),
}


@configurable
class Prepare:
    """Look at the data, write manifests, and refuse what cannot be trained on. Runs every time; it is quick.

    Args:
        data_folder: in DESED's layout (audio/, metadata/), or a plain folder of recordings.
        options: passed to :func:`pmam_plugin.data.prepare` (subsets, selection set, limits).
    """

    always = True
    name, folder = "prepare", "manifests"

    def __init__(self, data_folder: str, **options: Any) -> None:
        self.data_folder, self.options = data_folder, options

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.runner.Stage`."""
        if if_main_process():
            prepare(self.data_folder, folder, seed=context.seed, **self.options)
        ddp_barrier()
        context.prepared = prepare(self.data_folder, folder, seed=context.seed, skip_prep=True, **self.options)
        return StageResult({}, dict(context.prepared.report), token=context.prepared.fingerprint)


@configurable
class LoadWeights:
    """Load published weights into the encoder before anything is trained.

    Args:
        backbone: whose encoder is filled.
        checkpoint: the downloaded file.
        kind: format of the file, as in ``pmam import-checkpoint --kind``.
    """

    always = False
    name, folder = "load_weights", "stages/load_weights"

    def __init__(self, backbone: Backbone, checkpoint: str, kind: str) -> None:
        if kind not in LOADERS:
            raise ValueError(f"kind is {' or '.join(LOADERS)}, not {kind!r}")
        self.backbone, self.checkpoint, self.kind = backbone, checkpoint, kind

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.runner.Stage`."""
        backbone = copy.deepcopy(self.backbone)
        encoder_class, load = LOADERS[self.kind]
        encoder = next((part for part in backbone.encoder.modules() if isinstance(part, encoder_class)), None)
        if encoder is None:
            raise ValueError(f"the encoder holds no {encoder_class.__name__} that {self.kind} weights would fit")
        report = load(encoder, self.checkpoint)
        path = folder / "backbone.safetensors"
        if if_main_process():
            save_tensors(path, backbone.state_dict())
        ddp_barrier()
        return StageResult({"backbone": path}, {"checkpoint": Path(self.checkpoint).name, "report": str(report)})


def without(stages: Sequence[Any], skipped: Sequence[str]) -> list[Any]:
    """Stages but those named in ``skipped`` (``[estep_1, pretrain_1, ...]`` trains without pre-training).

    Raises:
        ValueError: a name that no stage bears.
    """
    flat = [item for stage in stages for item in (stage if isinstance(stage, list) else [stage]) if item is not None]
    unknown = sorted(set(skipped) - {stage.name for stage in flat})
    if unknown:
        raise ValueError(f"skip_stages names {unknown[0]!r}; the stages are {', '.join(s.name for s in flat)}")
    return [stage for stage in flat if stage.name not in skipped]
