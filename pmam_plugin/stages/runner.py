"""Runs a list of stages once each: skips what is done, resumes what was killed, redoes what has changed.

A stage's fingerprint covers everything it was built from (read off the objects themselves), the fingerprint of the
stage before it, and the data. Its folder holds ``record.json`` once it is finished, and nothing else decides whether
it runs again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from pmam_plugin import __version__
from pmam_plugin.config import to_config
from pmam_plugin.data import Prepared
from pmam_plugin.data.cache import DEFAULT_GIGABYTES, default_cache_folder
from pmam_plugin.files import read_json, write_json
from pmam_plugin.nn.precision import Precision, choose_precision
from pmam_plugin.stages.sharing import SharedStages

logger = logging.getLogger(__name__)

# Run options, beside precision and debug, that change what a stage learns.
_FORMATS = ("precision", "eval_precision")
_DECISIVE = ("max_grad_norm", "grad_accumulation_factor", "optimizer_step_limit")


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
        workers: processes that read clips ahead.
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
    workers: int = 0
    shared: Path | None = None

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
        token: changes when what the stage produced changes although its settings did not (the data).
    """

    artifacts: dict[str, Path] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    token: str = ""


@dataclass
class StageRecord:
    """``record.json`` of a finished stage."""

    stage: str
    fingerprint: str
    seconds: float
    artifacts: dict[str, str]
    notes: dict[str, Any]
    curves: dict[str, list[list[float]]]
    token: str = ""
    skipped: bool = False


class Stage(Protocol):
    """One step of an experiment; configurable, so that its fingerprint can be read off.

    Attributes:
        name: unique in the run.
        folder: where its files go, below the output folder.
        always: run even when nothing has changed (preparing data, which looks at the files).
    """

    name: str
    folder: str
    always: bool

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """Do the work; files in ``folder`` are from an earlier, killed attempt with the same settings."""


def describe(value: Any) -> Any:
    """JSON-able description of everything an object was built from; the same objects give the same description."""
    if isinstance(value, functools.partial):
        return {"call": describe(value.func), "args": describe(list(value.args)), **describe(value.keywords)}
    arguments = getattr(value, "_arguments", None)
    if arguments is not None:
        return {"type": type(value).__name__, **{name: describe(item) for name, item in arguments.items()}}
    if isinstance(value, Mapping):
        return {str(name): describe(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if type(value).__module__.startswith("pmam_plugin.") and not isinstance(value, torch.nn.Module):
        return {"type": type(value).__name__, **describe(vars(value))}
    return to_config(value)


def run_stages(stages: Sequence[Any], context: RunContext) -> list[StageRecord]:
    """Run stages in order, skipping finished ones.

    Args:
        stages: stages and (nested) lists of stages.
        context: is filled as stages finish.

    Returns:
        One record per stage.
    """
    options = {name: context.run_opts[name] for name in _DECISIVE if name in context.run_opts}
    # What was asked for, not what became of it: a run may go on on another kind of machine.
    debug = bool(context.run_opts.get("debug"))
    chain = _digest(__version__, context.seed, context.precision.asked, debug, *([options] if options else []))
    for stage in _flatten(stages):
        fingerprint = _digest(chain, describe(stage))
        folder = context.folder / stage.folder
        record = _finished(folder, fingerprint, context.folder)
        if record is None and context.shared is not None and not stage.always:
            record = _take_over_or_run(stage, context, folder, fingerprint)
        elif record is None or stage.always:
            record = _run(stage, context, folder, fingerprint)
        else:
            record.skipped = True
            logger.info("%s: done before, skipped", stage.name)
        context.artifacts |= {name: context.folder / path for name, path in record.artifacts.items()}
        context.records.append(record)
        chain = _digest(fingerprint, record.token)
    return context.records


def _take_over_or_run(stage: Stage, context: RunContext, folder: Path, fingerprint: str) -> StageRecord:
    assert context.shared is not None
    shared = SharedStages(context.shared / "stages")
    with shared.turn(fingerprint):
        shared.take(fingerprint, folder)
        record = _finished(folder, fingerprint, context.folder)
        if record is not None:
            logger.info("%s: done by another run, taken over", stage.name)
            return record
        record = _run(stage, context, folder, fingerprint)
        shared.offer(fingerprint, folder)
        return record


def _run(stage: Stage, context: RunContext, folder: Path, fingerprint: str) -> StageRecord:
    marker = folder / "unfinished.json"
    if if_main_process():
        started = read_json(marker) if marker.exists() else {}
        if folder.exists() and started.get("fingerprint") != fingerprint and not stage.always:
            logger.info("%s: settings or inputs have changed since its last run; starting anew", stage.name)
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").unlink(missing_ok=True)
        write_json(marker, {"fingerprint": fingerprint})
    ddp_barrier()
    logger.info("%s: started", stage.name)
    begin = time.monotonic()
    result = stage.run(context, folder)
    ddp_barrier()
    record = StageRecord(
        stage=stage.name,
        fingerprint=fingerprint,
        seconds=round(time.monotonic() - begin, 2),
        artifacts={name: str(path.relative_to(context.folder)) for name, path in result.artifacts.items()},
        notes=result.notes,
        curves=result.curves,
        token=result.token,
    )
    if if_main_process():
        write_json(folder / "record.json", asdict(record))
        marker.unlink(missing_ok=True)
    logger.info("%s: finished in %.1f s", stage.name, record.seconds)
    return record


def _finished(folder: Path, fingerprint: str, root: Path) -> StageRecord | None:
    path = folder / "record.json"
    if not path.exists():
        return None
    record = StageRecord(**read_json(path))
    intact = all((root / artifact).exists() for artifact in record.artifacts.values())
    return record if record.fingerprint == fingerprint and intact else None


def _flatten(stages: Iterable[Any]) -> Iterable[Any]:
    for stage in stages:
        if isinstance(stage, list | tuple):
            yield from _flatten(stage)
        elif stage is not None:
            yield stage


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]
