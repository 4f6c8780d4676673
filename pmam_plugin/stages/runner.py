"""Runs a list of stages once each: skips what is done, resumes what was killed, redoes what has changed.

A stage's fingerprint covers everything it was built from (read off the objects themselves), the fingerprint of the
stage before it, and the data; the test set counts for stages that report on it only, and the version of the package for
none. Its folder holds ``record.json`` once it is finished, and nothing else decides whether it runs again. What would
have to be deleted to run it again, because settings or data have changed, is deleted only when that was asked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from pmam_plugin.data import Prepared
from pmam_plugin.data.cache import DEFAULT_GIGABYTES, default_cache_folder
from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json, write_json
from pmam_plugin.inference.encoded import EncodedWindows
from pmam_plugin.nn.precision import Precision, choose_precision
from pmam_plugin.stages.description import describe, difference
from pmam_plugin.stages.sharing import SharedStages

logger = logging.getLogger(__name__)

# Run options, beside precision and debug, that change what a stage learns.
_FORMATS = ("precision", "eval_precision")
_DECISIVE = ("max_grad_norm", "grad_accumulation_factor", "optimizer_step_limit")
# Settings of the stage that prepares the data which are no reason to train again: its data have a fingerprint.
_PLACE, _TEST = "data_folder", "test"


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
    workers: int = 0
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
    """``record.json`` of a finished stage; ``settings`` are what it ran with, see :func:`settings_of`."""

    stage: str
    fingerprint: str
    seconds: float
    artifacts: dict[str, str]
    notes: dict[str, Any]
    curves: dict[str, list[list[float]]]
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: bool = False


class Stage(Protocol):
    """One step of an experiment; configurable, so that its fingerprint can be read off.

    Attributes:
        name: unique in the run.
        folder: where its files go, below the output folder.
        always: run even when nothing has changed (preparing data, which looks at the files).

    A stage that reports on the test set says so by a true attribute ``reports``. One that cannot work on every kind of
    data has a method ``check(context)``, which raises :class:`InputError`; it is called once the data are prepared,
    before any stage that takes long.
    """

    name: str
    folder: str
    always: bool

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """Do the work; files in ``folder`` are from an earlier, killed attempt with the same settings."""


def run_stages(stages: Sequence[Any], context: RunContext, overwrite: bool = False) -> list[StageRecord]:
    """Run stages in order, skipping finished ones.

    Args:
        stages: stages and (nested) lists of stages.
        context: is filled as stages finish.
        overwrite: delete and run again what was run with other settings or data; otherwise that is an error.

    Returns:
        One record per stage.

    Raises:
        InputError: see :func:`refuse_changes`; or the data have changed, or a stage cannot work with them.
    """
    if not overwrite:
        refuse_changes(stages, context)
    chain, test, checked = _digest(_common(context)), "", False
    remaining = list(_flatten(stages))
    for stage, settings in settings_of(stages, context):
        remaining.pop(0)
        if stage.always:
            record, result = _run(stage, context, context.folder / stage.folder, chain, settings)
            chain, test = _digest(chain, result.token), result.test_token
        else:
            for waiting in [] if checked else [stage, *remaining]:
                getattr(waiting, "check", lambda _: None)(context)
            checked = True
            described = settings[stage.name]
            chain = _digest(chain, described, *([test] if getattr(stage, "reports", False) else []))
            record = _skip_take_over_or_run(stage, context, chain, settings, remaining, overwrite)
        context.artifacts |= {name: context.folder / path for name, path in record.artifacts.items()}
        context.records.append(record)
    return context.records


def settings_of(stages: Sequence[Any], context: RunContext) -> Iterator[tuple[Stage, dict[str, Any]]]:
    """Every stage with what it runs with: common settings (``run``), the data's, the stages before it, its own."""
    data: dict[str, Any] = {}
    after: list[str] = []
    for stage in _flatten(stages):
        described = describe(stage)
        if stage.always:
            data[stage.name] = described
        yield stage, {"run": _common(context), **data, "after": list(after), stage.name: described}
        after.append(stage.name)


def refuse_changes(stages: Sequence[Any], context: RunContext) -> None:
    """Look whether what lies in the run's folder was made with these settings; nothing is written.

    Raises:
        InputError: it was not, and would have to be deleted; the sentence names what differs.
    """
    for stage, settings in settings_of(stages, context):
        left = _left(context.folder / stage.folder)
        if stage.always or left is None:
            continue
        before = left.get("settings") or settings
        ignored = (_PLACE,) if getattr(stage, "reports", False) else (_PLACE, _TEST)
        change = difference(_without(before, stage.name, ignored), _without(settings, stage.name, ignored))
        if change:
            raise InputError(_refusal(context.folder, stage.name, f"with {change}"))


def _without(settings: Mapping[str, Any], own: str, ignored: Sequence[str]) -> dict[str, Any]:
    """Settings but for those of the data that are named."""
    kept: dict[str, Any] = {}
    for name, value in settings.items():
        data = isinstance(value, Mapping) and name not in ("run", own)
        kept[name] = {key: item for key, item in value.items() if key not in ignored} if data else value
    return kept


def _refusal(folder: Path, name: str, how: str) -> str:
    return (
        f"{folder}: {name} was run {how}; give another output_folder, or --overwrite to delete it and what follows "
        "and run them again"
    )


def _common(context: RunContext) -> dict[str, Any]:
    options = {name: context.run_opts[name] for name in _DECISIVE if name in context.run_opts}
    # What was asked for, not what became of it: a run may go on on another kind of machine.
    debug = bool(context.run_opts.get("debug"))
    return {"seed": context.seed, "precision": context.precision.asked, "debug": debug, **options}


def _skip_take_over_or_run(
    stage: Stage,
    context: RunContext,
    fingerprint: str,
    settings: Mapping[str, Any],
    remaining: Sequence[Stage],
    overwrite: bool,
) -> StageRecord:
    folder = context.folder / stage.folder
    record = _finished(folder, fingerprint, context.folder)
    if record is not None:
        record.skipped = True
        logger.info("%s: done before, skipped", stage.name)
        return record
    _make_room(stage, context, fingerprint, remaining, overwrite)
    if context.shared is None:
        return _run(stage, context, folder, fingerprint, settings)[0]
    shared = SharedStages(context.shared / "stages")
    with shared.turn(fingerprint):
        shared.take(fingerprint, folder)
        record = _finished(folder, fingerprint, context.folder)
        if record is not None:
            logger.info("%s: done by another run, taken over", stage.name)
            return record
        record, _ = _run(stage, context, folder, fingerprint, settings)
        shared.offer(fingerprint, folder)
        return record


def _make_room(
    stage: Stage, context: RunContext, fingerprint: str, remaining: Sequence[Stage], overwrite: bool
) -> None:
    """Delete what a run with other settings or data has left of a stage, and of all that follow: it rests on this one.

    Raises:
        InputError: there is something, and nobody said that it may be overwritten.
    """
    left = _left(context.folder / stage.folder)
    if left is None or left.get("fingerprint") == fingerprint:
        return
    if not overwrite:
        raise InputError(_refusal(context.folder, stage.name, "on other data, or after stages with other settings"))
    ddp_barrier()
    if if_main_process():
        logger.info("%s: settings or inputs have changed since its last run; starting anew", stage.name)
        for stale in (stage, *remaining):
            _delete(context.folder / stale.folder, context.folder)
    ddp_barrier()


def _left(folder: Path) -> dict[str, Any] | None:
    """What a finished or a begun run of a stage has noted."""
    files = (folder / "record.json", folder / "unfinished.json")
    return next((dict(read_json(file)) for file in files if file.exists()), None)


def _delete(folder: Path, root: Path) -> None:
    """A stage's folder, and what it has put elsewhere."""
    for artifact in (_left(folder) or {}).get("artifacts", {}).values():
        path = root / artifact
        if folder in path.parents:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _run(
    stage: Stage,
    context: RunContext,
    folder: Path,
    fingerprint: str,
    settings: Mapping[str, Any],
) -> tuple[StageRecord, StageResult]:
    marker = folder / "unfinished.json"
    if if_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").unlink(missing_ok=True)
        write_json(marker, {"fingerprint": fingerprint, "settings": settings})
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
        settings=dict(settings),
    )
    if if_main_process():
        write_json(folder / "record.json", asdict(record))
        marker.unlink(missing_ok=True)
    logger.info("%s: finished in %.1f s", stage.name, record.seconds)
    return record, result


def _finished(folder: Path, fingerprint: str, root: Path) -> StageRecord | None:
    path = folder / "record.json"
    if not path.exists():
        return None
    known = {entry.name for entry in fields(StageRecord)}
    record = StageRecord(**{name: value for name, value in read_json(path).items() if name in known})
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
