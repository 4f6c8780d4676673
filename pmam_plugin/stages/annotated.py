"""From an annotator's folder to a detector within a given time: the recipe, sized by what this machine can do.

Nothing is trained here that the recipe would not train. The experiment ``annotated.yaml`` is laid out for the data and
the time, written in full to ``hyperparams.yaml``, and run; ``recipes/DESED/train.py`` goes on with that file.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pmam_plugin.brains.plan import TrainingPlan
from pmam_plugin.checkpoints.encoder import encoder_of
from pmam_plugin.checkpoints.hub_folder import model_folder
from pmam_plugin.checkpoints.yamnet import load_yamnet
from pmam_plugin.config import rebuilt
from pmam_plugin.data.annotated import SELECTION_SHARE, TEST_SHARE, LaidOut, lay_out
from pmam_plugin.data.survey import Survey, describe_survey, survey_folder
from pmam_plugin.encoders.frozen import FrozenEncoder
from pmam_plugin.encoders.yamnet import YAMNetFrames
from pmam_plugin.errors import InputError, told
from pmam_plugin.files import write_text
from pmam_plugin.inference.encoded import EncodedWindows
from pmam_plugin.report.page import duration_text
from pmam_plugin.stages.context import RunContext, StageRecord
from pmam_plugin.stages.experiment import build_experiment, described, experiment_file, lay_over, read_experiment
from pmam_plugin.stages.finetune import FineTune
from pmam_plugin.stages.pretrain import Pretrain
from pmam_plugin.stages.prototypes import EStep
from pmam_plugin.stages.report import run_verdict
from pmam_plugin.stages.runner import run_stages
from pmam_plugin.stages.settings import without

logger = logging.getLogger(__name__)

_EXPERIMENT = "annotated.yaml"
_CURVE = "learning_curve"
# Shares of the time: encoding what is learned from, and what must stay free at the end.
_ENCODING, _RESERVE = 0.35, 0.12
_LABELLED = 0.8  # of what can be encoded, at most
_FEWEST_UPDATES = 120  # below that a fine-tuning is no fine-tuning: other things are left out first
_FEWEST_EPOCHS = 4
_WORTH = 0.5  # seconds without labels per labelled one, from which pre-training is tried
_PROBE_UPDATES = (1, 2, 12)
_HEARD_TWICE = 2.0  # windows of a recording that is scored overlap by half
_CURVE_EVALUATION = 0.5  # of the time of the evaluation: a point of the learning curve has no intervals
_CURVE_RESERVE = 0.5  # of what must stay free at the end: after the learning curve there is but the report

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """What is left of a training.

    Attributes:
        folder: holds ``model/``, ``report.html``, ``metrics.json``, ``hyperparams.yaml``.
        verdict: how good the model is, and which class needs more examples.
        seconds: that it took.
    """

    folder: Path
    verdict: str
    seconds: float


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    epochs: int  # of a fine-tuning
    steps: int  # updates of an epoch
    pretrained: bool  # whether pre-training is tried
    fits: bool  # whether all of it fits into the time
    minutes: float  # that a fine-tuning may take: machines get slower while they are shared


def sized(free: float, update: float, epoch: float, epochs: int, steps: int, worth: bool) -> Size:
    """The largest training that fits into ``free`` seconds, at most the one that is planned.

    With pre-training: two rounds of it, about a fine-tuning together; two fine-tunings, of which the better is kept;
    one more for the learning curve, whose further points take what is left in the end. Without: one and one. What there
    is no time for is left out, first pre-training, then the learning curve, then updates.

    Args:
        free: s.
        update: s of an update.
        epoch: s of what else an epoch takes (checkpoint, validation).
        epochs, steps: planned; an epoch is ``steps`` updates.
        worth: whether pre-training is worth a try.
    """
    planned = epochs * steps
    for pretrained, runs in ((True, 4), (False, 2), (False, 1)):
        if pretrained and not worth:
            continue
        for fewer in sorted({epochs, max(1, epochs // 2), min(epochs, _FEWEST_EPOCHS)}, reverse=True):
            updates = min(planned, int((free / runs - fewer * epoch) / update))
            if updates >= min(planned, _FEWEST_UPDATES):
                return Size(fewer, max(1, updates // fewer), pretrained, True, free / runs / 60)
    fewest = min(epochs, _FEWEST_EPOCHS)
    left = free - fewest * epoch
    steps, fits = max(1, int(left / update) // fewest), left >= fewest * update
    return Size(fewest, steps, False, fits, max(free, fewest * (epoch + update)) / 60)


class _Clock:
    def __init__(self, minutes: float) -> None:
        self.begin, self.total = time.monotonic(), 60.0 * minutes

    @property
    def used(self) -> float:
        return time.monotonic() - self.begin

    @property
    def left(self) -> float:
        return self.total - self.used


def train_annotated(
    folder: Path,
    out: Path,
    unlabelled: Path | None = None,
    minutes: float = 10.0,
    encoder: str | None = None,
    device: str | None = None,
    seed: int = 1,
    changes: Mapping[str, Any] | None = None,
    tell: Tell = lambda _: None,
    quiet: bool = True,
) -> Trained:
    """Look at the data, hold out recordings, train, choose thresholds, measure and report, within ``minutes``.

    Args:
        folder: recordings of any length with their labels beside them.
        out: where everything goes; a folder of an earlier call is gone on with.
        unlabelled: a folder of further recordings.
        minutes: that all of it may take.
        encoder: a YAMNet's file, or a model folder, whose encoder of frames is taken; None takes the package's YAMNet.
        device: where to compute.
        seed: of everything random, and of which recordings are held out.
        changes: keys of ``annotated.yaml`` to set, beside those that are sized here.
        tell: is told what goes on, a line at a time.
        quiet: without SpeechBrain's progress bars.

    Raises:
        InputError: data that cannot be trained on, an encoder that is none, or a time that is too short.
    """
    clock = _Clock(minutes)
    run = _Run(out, device, seed, dict(changes or {}), quiet)
    run.start_from(encoder)
    survey = survey_folder(folder, 1.0 / run.sketch()["encoder"].frame_rate, logger.info)
    for line in describe_survey(survey):
        tell(line)
    more = None
    if unlabelled is not None:
        more = survey_folder(unlabelled, 0.0, logger.info, unlabelled=True)
        for line in describe_survey(more):
            tell(line)
    laid = _laid_out(survey, more, run, clock, tell)
    run.settings["data_folder"] = str(laid.folder.resolve())
    run.through("embed")
    tell(f"sound encoded: {duration_text(clock.used)} of {duration_text(clock.total)} used")
    run.size(clock, tell)
    run.through("evaluate")
    tell(f"trained and measured: {duration_text(clock.used)} used{run.start()}")
    run.size_curve(clock, tell)
    run.through("report")
    return Trained(out, run_verdict(run.context), clock.used)


def _laid_out(survey: Survey, more: Survey | None, run: _Run, clock: _Clock, tell: Tell) -> LaidOut:
    """The corpus, no larger than what can be encoded in its share of the time."""
    capacity = _ENCODING * clock.total * run.encoding_speed()
    versions = 1 + int(run.sketch()["copies"])
    held_out = TEST_SHARE + SELECTION_SHARE
    labelled = survey.seconds(survey.labelled) * ((1 - held_out) * versions + held_out * _HEARD_TWICE)
    share = min(1.0, _LABELLED * capacity / labelled) if labelled else 1.0
    room = max(0.0, capacity - labelled * share)
    laid = lay_out(survey, run.folder / "corpus", more, share=share, unlabelled_seconds=room, seed=run.seed)
    counts = laid.recordings
    tell(
        f"learning from {counts.get('strong', 0)} recordings and {counts.get('unlabelled', 0)} without labels, "
        f"choosing on {counts.get('selection', 0)}, measuring on {counts.get('test', 0)}; none is in two of these"
    )
    if share < 1 or laid.left_out:
        tell(f"  {laid.left_out} recordings do not fit into {clock.total / 60:g} minutes; --minutes gives more")
    if laid.unmeasured:
        tell(f"  not measured, since too few recordings have it: {', '.join(laid.unmeasured)}")
    run.settings["subsets"] = [name for name in ("strong", "unlabelled") if counts.get(name)]
    if "unlabelled" in counts:
        run.settings["most_clips"] = {"unlabelled": max(1, int(room / 10))}
    return laid


class _Run:
    """The experiment as it stands, and how far it has been run."""

    def __init__(self, folder: Path, device: str | None, seed: int, changes: dict[str, Any], quiet: bool) -> None:
        self.folder, self.seed, self.quiet, self.device = folder, seed, quiet, device
        self.file = experiment_file(_EXPERIMENT)
        self.base = read_experiment(self.file)
        self.settings: dict[str, Any] = {"seed": seed, "output_folder": str(folder.resolve()), **changes}
        self.encoded = EncodedWindows()
        self.minutes: float | None = None
        self.starts = 1  # of the fine-tuning: with pre-training and without, or one
        self.context: RunContext

    def start_from(self, encoder: str | None) -> None:
        """Take another encoder than the package's YAMNet; what is none is refused at once."""
        if encoder is not None:
            self.settings["encoder_checkpoint"] = encoder
            if model_folder(encoder).is_dir() and not isinstance(found := encoder_of(encoder), YAMNetFrames):
                part = experiment_file("parts/encoder.yaml")
                self.base = lay_over(self.base, part.read_text(encoding="utf-8"), str(part))
                # As far up as layer_10 of YAMNet's 14, which knows most of the labels.
                layers = found.layers or ("frozen",)
                self.settings["first_layer"] = layers[round(len(layers) * 10 / 14) - 1]
                return
        sketch = self.sketch()
        load_yamnet(sketch["encoder"].encoder, sketch["encoder_checkpoint"])

    def sketch(self) -> dict[str, Any]:
        """The experiment built for a single class, before there are data: to know the model's grid and speed."""
        return self._built(self._text({"data_folder": ".", "labels": ["any"]}))

    def encoding_speed(self) -> float:
        """Seconds of sound that the frozen encoder takes in a second, measured on noise."""
        backbone = self.sketch()["backbone"].eval()
        frozen = next(part for part in backbone.modules() if isinstance(part, FrozenEncoder))
        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        backbone.to(device)
        seconds, clips = 10, 2
        wave = 0.1 * torch.randn(clips, seconds * backbone.sample_rate, device=device)
        with torch.inference_mode():
            frozen.encoder(backbone.frontend(wave[:1]), tokens=False).frames.cpu()
            begin = time.monotonic()
            frozen.encoder(backbone.frontend(wave), tokens=False).frames.cpu()
        return seconds * clips / (time.monotonic() - begin)

    def through(self, last: str) -> None:
        """Run the stages up to the one of that name; what is done already is skipped."""
        text = self._text({})
        hparams = self._built(text)
        write_text(self.folder / "hyperparams.yaml", described(self.file, self.base) + text)
        options: dict[str, Any] = {"precision": hparams["precision"], "noprogressbar": self.quiet}
        if self.device:
            options["device"] = self.device
        if self.minutes is not None:
            options["stage_minutes"] = self.minutes
        self.context = RunContext(self.folder, self.seed, options, cache_audio=False, encoded=self.encoded)
        stages = without(hparams["stages"], hparams.get("skip_stages") or [])
        names = [stage.name for stage in stages]
        # Sizes are measured anew by every call: what an earlier one made of others, or of other labels, gives way.
        run_stages(stages[: names.index(last) + 1], self.context, overwrite=True)

    def size(self, clock: _Clock, tell: Tell) -> None:
        """Choose updates, and whether pre-training is tried, by how long an update takes here."""
        plan, update, epoch = self._probe()
        manifests = self.context.data.manifests
        seconds = {name: sum(clip.seconds for clip in manifest) for name, manifest in manifests.items()}
        worth = seconds.get("unlabelled", 0.0) >= _WORTH * seconds["strong"]
        free = clock.left - _RESERVE * clock.total - self._scoring_seconds()
        size = sized(free, update, epoch, plan.epochs, int(plan.steps_per_epoch), worth)
        self.minutes, self.starts = size.minutes, 2 if size.pretrained else 1
        self.settings |= {"finetune_epochs": size.epochs, "finetune_steps": size.steps}
        if size.pretrained:
            share = size.epochs * size.steps / (plan.epochs * int(plan.steps_per_epoch))
            self.settings["pretrain_steps"] = max(1, round(self.sketch()["pretrain_steps"] * share))
        else:
            stages = without(self.sketch()["stages"], [])
            self.skip(*(stage.name for stage in stages if isinstance(stage, EStep | Pretrain)))
        why = "" if size.pretrained else " (no time for it)" if worth else " (too little sound without labels)"
        pays = "tried: the selection recordings decide whether it pays" if size.pretrained else "not tried"
        tell(f"fine-tuning in {size.epochs * size.steps} updates; PMAM pre-training {pays}{why}")
        if not size.fits:
            tell(f"  {clock.total / 60:g} minutes are too few for these data here; it will take longer")

    def size_curve(self, clock: _Clock, tell: Tell) -> None:
        """Keep as many points of the learning curve as there is time for."""
        once = self._record("finetune").seconds / self.starts + _CURVE_EVALUATION * self._record("evaluate").seconds
        fit = int((clock.left - _CURVE_RESERVE * _RESERVE * clock.total) / max(once, 1e-3))
        shares = list(self.sketch()["curve_shares"])
        kept = shares[max(0, len(shares) - fit) :] if fit > 0 else []
        if kept:
            self.settings["curve_shares"] = kept
            tell(f"learning curve: again with {', '.join(f'{100 * share:.0f} %' for share in kept)} of the labels")
        else:
            self.skip(_CURVE)
            tell("learning curve: no time for it")

    def start(self) -> str:
        """Which start was kept, where there were two."""
        notes = self._record("finetune").notes
        if "start" not in notes:
            return ""
        scores = (notes[f"selection_{name}"] for name in ("pretrained", "not_pretrained"))
        with_it, without_it = (f"{score:.2f}" for score in scores)
        kept = "kept" if notes["start"] == "pretrained" else "left"
        return f"; pre-training {kept}: on the selection recordings {with_it} with it, {without_it} without"

    def skip(self, *stages: str) -> None:
        """Leave stages out."""
        self.settings["skip_stages"] = [*self.settings.get("skip_stages", []), *stages]

    def _record(self, stage: str) -> StageRecord:
        return next(record for record in self.context.records if record.stage == stage)

    def _probe(self) -> tuple[TrainingPlan, float, float]:
        """The plan of the fine-tuning, the seconds of an update, and those of what else an epoch takes.

        Without validation, which is rare in a training and would drown the updates of so short a one.
        """
        finetune: FineTune = self._built(self._text({}))["finetune"]
        place = self.folder / "stages" / "probe"
        manifests = {name: found for name, found in self.context.data.manifests.items() if name != "selection"}
        context = replace(self.context, prepared=replace(self.context.data, manifests=manifests), records=[])
        spent = []
        for updates in _PROBE_UPDATES:  # the first run also imports
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            short = rebuilt(finetune, plan=rebuilt(finetune.plan, epochs=1, steps_per_epoch=updates))
            begin = time.monotonic()
            short.run(context, place)
            spent.append(time.monotonic() - begin)
        shutil.rmtree(place)
        _, some, many = _PROBE_UPDATES
        update = max(1e-3, (spent[2] - spent[1]) / (many - some))
        return finetune.plan, update, max(0.0, spent[1] - some * update)

    def _scoring_seconds(self) -> float:
        """What scoring the test and selection recordings will take."""
        seconds = sum(sum(self.context.data.durations(name).values()) for name in ("selection", "test"))
        return _HEARD_TWICE * seconds / self.encoding_speed()

    def _text(self, changes: Mapping[str, Any]) -> str:
        settings = {**self.settings, **changes}
        lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())
        return lay_over(self.base, lines, str(self.file), may_add=False)

    def _built(self, text: str) -> dict[str, Any]:
        try:
            return build_experiment(text, str(self.file))
        except Exception as error:
            reason = told(error)
            raise InputError(reason) if reason else error from None
