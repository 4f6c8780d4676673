"""What all stages of a run share, what a stage is, and what it hands back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from pmam_plugin.brains.plan import StageRun, TrainingPlan, fold_seed
from pmam_plugin.data import Prepared
from pmam_plugin.data.cache import DEFAULT_GIGABYTES, default_cache_folder
from pmam_plugin.data.loaders import automatic_workers
from pmam_plugin.errors import InputError
from pmam_plugin.inference.encoded import EncodedWindows
from pmam_plugin.nn.precision import Precision, choose_precision

logger = logging.getLogger(__name__)

_FORMATS = ("precision", "eval_precision")


@dataclass
class RunContext:
    """What all stages of a run share.

    Attributes:
        folder: the output folder.
        seed: of the run.
        run_opts: SpeechBrain's run options (device, precision, debug, ...); a precision of ``auto`` is replaced by what
            suits the device.
        artifacts: what finished stages left, name -> path.
        prepared: the data, once it is prepared.
        onset_rounding: see :class:`~pmam_plugin.labels.LabelEncoder`.
        records: what finished stages reported, in order.
        cache_audio: keep decoded, resampled training clips, so that later epochs and runs do not decode again: true or
            false, or the folder of the cache.
        cache_gigabytes: what the cache may grow to.
        workers: processes that read clips ahead, or ``auto``: what suits the machine; what is read is the same.
        encoded: what a frozen encoder says of the windows that are scored.
        shared: folder of what several runs have in common (finished stages, embeddings); None shares nothing.
    """

    folder: Path
    seed: int
    run_opts: Mapping[str, Any]
    artifacts: dict[str, Path] = field(default_factory=dict)
    prepared: Prepared | None = None
    onset_rounding: Literal["nearest", "floor"] = "nearest"
    records: list[StageRecord] = field(default_factory=list)
    cache_audio: bool | str = True
    cache_gigabytes: float = DEFAULT_GIGABYTES
    workers: int | Literal["auto"] = 0
    shared: Path | None = None
    encoded: EncodedWindows = field(default_factory=EncodedWindows)

    def __post_init__(self) -> None:
        formats = {
            name: choose_precision(self.run_opts[name], self.device) for name in _FORMATS if name in self.run_opts
        }
        self.run_opts = {**self.run_opts, **{name: chosen.short for name, chosen in formats.items()}}
        self.precision: Precision = formats.get("precision", choose_precision("fp32", self.device))
        for name, chosen in formats.items():
            if chosen.warning:
                logger.warning(chosen.warning)
            elif chosen.asked == "auto":
                logger.info("%s: %s", name, chosen)

        if self.workers != "auto" and (not isinstance(self.workers, int) or self.workers < 0):
            raise InputError(f"num_workers is {self.workers!r}; give a number of processes, or auto")
        self.readers = automatic_workers(self.device.type) if self.workers == "auto" else self.workers
        logger.info("%d processes read clips ahead (num_workers: %s)", self.readers, self.workers)

    @property
    def audio_cache(self) -> Path | None:
        """Folder of the waveform cache, which all runs on this machine share."""
        if isinstance(self.cache_audio, str):
            return Path(self.cache_audio)
        return default_cache_folder() if self.cache_audio else None

    @property
    def quiet(self) -> bool:
        """Whether progress bars are off."""
        return bool(self.run_opts.get("noprogressbar"))

    @property
    def device(self) -> torch.device:
        """Where models run."""
        chosen = self.run_opts.get("device")
        return torch.device(chosen or ("cuda" if torch.cuda.is_available() else "cpu"))

    def stage_run(self, name: str, plan: TrainingPlan, folder: Path) -> StageRun:
        """What a stage shares with its Brain; weights that are drawn next follow from seed and stage alone."""
        torch.manual_seed(fold_seed(self.seed, name, "weights"))
        return StageRun(name, plan, folder, self.seed, self.run_opts)

    @property
    def data(self) -> Prepared:
        """The prepared data.

        Raises:
            RuntimeError: no stage has prepared it.
        """
        if self.prepared is None:
            raise RuntimeError("the list of stages must begin with one that prepares the data")
        return self.prepared


@dataclass
class StageResult:
    """What a stage hands back: files for later stages, numbers for the report.

    Attributes:
        artifacts: name -> path below the output folder.
        notes: figures and facts, JSON-able.
        curves: name -> list of (step, value).
        token: of a stage that always runs (it prepares the data): changes when what it hands on to training changes.
        test_token: the same for the test set, which only stages that report on it depend on.
    """

    artifacts: dict[str, Path] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    token: str = ""
    test_token: str = ""


@dataclass
class StageRecord:
    """``record.json`` of a finished stage; ``settings`` as :func:`pmam_plugin.stages.settings.settings_of` has them."""

    stage: str
    fingerprint: str
    seconds: float
    artifacts: dict[str, str]
    notes: dict[str, Any]
    curves: dict[str, list[list[float]]]
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: bool = False


class Stage:
    """One step of an experiment; configurable, so that its fingerprint can be read off.

    Attributes:
        name: unique in the run.
        always: run even when nothing has changed (preparing data, which looks at the files).
        reports: on the test set, whose changes are nothing to other stages.
    """

    _arguments: Mapping[str, Any]  # of the constructor, as configurable remembers them

    name: str
    always = False
    reports = False

    @property
    def folder(self) -> str:
        """Where its files go, below the output folder."""
        return f"stages/{self.name}"

    def check(self, context: RunContext) -> None:
        """Look at the data once they are prepared, before any stage that takes long.

        Raises:
            InputError: the stage cannot work on such data.
        """

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """Do the work; files in ``folder`` are from an earlier, killed attempt with the same settings."""
        raise NotImplementedError
