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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import ddp_barrier, if_main_process

from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json, write_json
from pmam_plugin.nn.cpu import keep_freed_memory
from pmam_plugin.stages.context import RunContext, Stage, StageRecord, StageResult
from pmam_plugin.stages.settings import common_settings, flatten, left_of, refusal, refuse_changes, settings_of
from pmam_plugin.stages.sharing import SharedStages

logger = logging.getLogger(__name__)


def run_stages(stages: Sequence[Any], context: RunContext, overwrite: bool = False) -> list[StageRecord]:
    """Run stages in order, skipping finished ones.

    Args:
        stages: stages and (nested) lists of stages.
        context: is filled as stages finish.
        overwrite: delete and run again what was run with other settings or data; otherwise that is an error.

    Returns:
        One record per stage.

    Raises:
        InputError: settings or data have changed (see :func:`~pmam_plugin.stages.settings.refuse_changes`), or a stage
            cannot work with these data.
    """
    keep_freed_memory()
    if not overwrite:
        refuse_changes(stages, context)
    chain, test, checked = _digest(common_settings(context)), "", False
    remaining = list(flatten(stages))
    for stage, settings in settings_of(stages, context):
        remaining.pop(0)
        if stage.always:
            record, result = _run(stage, context, context.folder / stage.folder, chain, settings)
            chain, test = _digest(chain, result.token), result.test_token
        else:
            for waiting in [] if checked else [stage, *remaining]:
                waiting.check(context)
            checked = True
            described = settings[stage.name]
            chain = _digest(chain, described, *([test] if stage.reports else []))
            record = _skip_take_over_or_run(stage, context, chain, settings, remaining, overwrite)
        context.artifacts |= {name: context.folder / path for name, path in record.artifacts.items()}
        context.records.append(record)
    return context.records


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
    left = left_of(context.folder / stage.folder)
    if left is None or left.get("fingerprint") == fingerprint:
        return
    if not overwrite:
        raise InputError(refusal(context.folder, stage.name, "on other data, or after stages with other settings"))
    ddp_barrier()
    if if_main_process():
        logger.info("%s: settings or inputs have changed since its last run; starting anew", stage.name)
        for stale in (stage, *remaining):
            _delete(context.folder / stale.folder, context.folder)
    ddp_barrier()


def _delete(folder: Path, root: Path) -> None:
    """A stage's folder, and what it has put elsewhere."""
    for artifact in (left_of(folder) or {}).get("artifacts", {}).values():
        path = root / artifact
        if folder in path.parents:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _run(
    stage: Stage, context: RunContext, folder: Path, fingerprint: str, settings: Mapping[str, Any]
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


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]
