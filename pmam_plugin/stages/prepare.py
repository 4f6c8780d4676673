"""The first stages: data, what a front end measures on them, and weights that somebody else has trained."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from safetensors.torch import load_file
from speechbrain.utils.distributed import if_main_process, run_on_main
from torch import Tensor, nn

from pmam_plugin.brains.records import hand_on
from pmam_plugin.checkpoints.atst import load_atst_frame
from pmam_plugin.checkpoints.beats import load_beats
from pmam_plugin.checkpoints.encoder import load_encoder
from pmam_plugin.checkpoints.passt import load_passt
from pmam_plugin.checkpoints.pretrained_sed import load_pretrained_sed
from pmam_plugin.checkpoints.sedt import load_sp_sedt
from pmam_plugin.checkpoints.yamnet import load_yamnet
from pmam_plugin.config import configurable
from pmam_plugin.data import prepare
from pmam_plugin.data.manifest import TRAINING_SUBSETS
from pmam_plugin.encoders import ATSTFrame, BEATsEncoder, FrameMobileNetEncoder, FramePaSSTEncoder, PaSSTEncoder
from pmam_plugin.encoders.frozen import FrozenEncoder
from pmam_plugin.encoders.yamnet import YAMNetFrames
from pmam_plugin.errors import InputError
from pmam_plugin.features import FrontEnds, SEDTMel
from pmam_plugin.models import SEDT, Backbone
from pmam_plugin.nn.query_decoder import SetNetwork
from pmam_plugin.nn.resnet import SpectrogramResNet
from pmam_plugin.stages.context import RunContext, Stage, StageResult
from pmam_plugin.stages.loading import OnGrid, clip_batches

M = TypeVar("M", bound="Pretrainable")

LOADERS: dict[str, tuple[type | tuple[type, ...], Any]] = {
    "passt": (PaSSTEncoder, load_passt),
    "atst-frame": (ATSTFrame, load_atst_frame),
    "beats": (BEATsEncoder, load_beats),
    "pretrained-sed": ((BEATsEncoder, ATSTFrame, FramePaSSTEncoder, FrameMobileNetEncoder), load_pretrained_sed),
    "imagenet": (SpectrogramResNet, SpectrogramResNet.load_imagenet),
    "sp-sedt": (SetNetwork, load_sp_sedt),
    "yamnet": (YAMNetFrames, load_yamnet),
    "folder": (FrozenEncoder, load_encoder),
}


class Pretrainable(OnGrid, Protocol):
    """A model, or the part of one, that stages before fine-tuning fill and hand on.

    :class:`~pmam_plugin.models.Backbone` and every :class:`~pmam_plugin.models.SoundEventModel` are.

    Attributes:
        pretrained_name: of the artifact.
    """

    pretrained_name: str

    @property
    def frontend(self) -> FrontEnds:
        """Waveform to features."""

    def modules(self) -> Iterator[nn.Module]:
        """Torch's own."""

    def pretrained_state(self) -> dict[str, Tensor]:
        """What is handed on."""

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Start from it."""


def copy_with_artifact(model: M, context: RunContext, before: re.Pattern[str] | None = None) -> M:
    """A copy of a :class:`Pretrainable` that starts from what the stages before have left, if anything.

    Args:
        model: is not changed.
        context: of the run.
        before: what the first stage of such a name, and all after it, have left is passed over.

    Raises:
        InputError: they have left the weights of another kind of model.
    """
    model = copy.deepcopy(model)
    name = model.pretrained_name
    path = context.artifacts.get(name)
    if path is None and context.artifacts.keys() & {Backbone.pretrained_name, SEDT.pretrained_name}:
        raise InputError(
            f"{context.folder}: earlier stages have left weights of another model than {type(model).__name__}; give "
            "all stages the same one, and another output_folder"
        )
    if before is not None:
        earlier = itertools.takewhile(lambda record: not before.fullmatch(record.stage), context.records)
        left = [context.folder / record.artifacts[name] for record in earlier if name in record.artifacts]
        path = left[-1] if left else None
    if path is not None:
        model.load_pretrained(load_file(path))
    return model


def hand_on_model(model: Pretrainable, folder: Path) -> dict[str, Path]:
    """Write what later stages start from, and return it as an artifact."""
    name = model.pretrained_name
    return {name: hand_on(folder / f"{name}.safetensors", model.pretrained_state())}


@configurable
class Prepare(Stage):
    """Look at the data, write manifests, and refuse what cannot be trained on. Runs every time; it is quick.

    Args:
        data_folder: in DESED's layout (audio/, metadata/), or a plain folder of recordings.
        onset_rounding: in which frame of a model's grid an event begins: ``nearest`` (PMAM) or ``floor``, the one that
            holds the onset (ATST-SED and the DCASE baseline).
        options: passed to :func:`pmam_plugin.data.prepare` (subsets, selection set, limits).
    """

    always = True
    name, folder = "prepare", "manifests"

    def __init__(
        self, data_folder: str, onset_rounding: Literal["nearest", "floor"] = "nearest", **options: Any
    ) -> None:
        self.data_folder, self.onset_rounding, self.options = data_folder, onset_rounding, options

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        settings = {"seed": context.seed, **self.options}
        run_on_main(prepare, [self.data_folder, folder], settings)
        context.prepared = prepare(self.data_folder, folder, skip_prep=True, **settings)
        context.onset_rounding = self.onset_rounding
        token = f"{context.prepared.digest(*TRAINING_SUBSETS, 'selection')}, onsets {self.onset_rounding}"
        return StageResult({}, dict(context.prepared.report), token=token, test_token=context.prepared.digest("test"))


@configurable
class MeasureBands(Stage):
    """Measure the mean and the deviation of every mel band on training clips, for front ends that standardise.

    One measurement serves tagging, pre-training and fine-tuning (the SEDT reference has a different one for each,
    around the same frozen backbone). Padding is left out.

    Args:
        model: whose front ends are fitted.
    """

    name = "measure_bands"

    def __init__(self, model: Pretrainable) -> None:
        self.model = model

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        model = copy_with_artifact(self.model, context)
        fitted = [part for part in model.frontend.named().values() if isinstance(part, SEDTMel)]
        if not fitted:
            raise ValueError("the model has no front end that standardises; leave this stage out")
        if if_main_process():
            for part in fitted:
                part.fit(self._waves(context))
        return StageResult(hand_on_model(model, folder))

    def _waves(self, context: RunContext) -> Iterator[Tensor]:
        for batch in clip_batches(context, self.model, TRAINING_SUBSETS, batch_clips=16):
            yield from (wave[None] for wave in batch.sounds())


@configurable
class LoadWeights(Stage):
    """Load published weights before anything is trained.

    Args:
        backbone: the model, or the part of one, that holds what the weights fit.
        checkpoint: the downloaded file; None lets ``imagenet`` be downloaded by timm.
        kind: ``passt``, ``atst-frame``, ``beats``, ``pretrained-sed``, ``yamnet`` (encoders), ``folder`` (a frozen
            encoder, from the model folder that holds it), ``imagenet`` (a ResNet) or ``sp-sedt`` (a set network).
    """

    name = "load_weights"

    def __init__(self, backbone: Pretrainable, checkpoint: str | None, kind: str) -> None:
        if kind not in LOADERS:
            raise ValueError(f"kind is {' or '.join(LOADERS)}, not {kind!r}")
        self.backbone, self.checkpoint, self.kind = backbone, checkpoint, kind

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        backbone = copy_with_artifact(self.backbone, context)
        fitting, load = LOADERS[self.kind]
        part = next((part for part in backbone.modules() if isinstance(part, fitting)), None)
        if part is None:
            names = [kind.__name__ for kind in (fitting if isinstance(fitting, tuple) else (fitting,))]
            raise ValueError(f"the model holds no {' or '.join(names)} that {self.kind} weights would fit")
        report = str(load(part, self.checkpoint) or "") if if_main_process() else ""
        name = "" if self.checkpoint is None else Path(self.checkpoint).name
        return StageResult(hand_on_model(backbone, folder), {"checkpoint": name, "report": report})
