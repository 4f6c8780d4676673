"""What the stages of a run are made with, as plain values, and whether what lies in its folder was made with it."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pmam_plugin.config import to_config
from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json
from pmam_plugin.stages.context import RunContext, Stage

# Run options, beside precision and debug, that change what a stage learns.
_DECISIVE = ("max_grad_norm", "grad_accumulation_factor", "optimizer_step_limit")
# Settings of the stage that prepares the data which are no reason to train again: its data have a fingerprint.
_PLACE, _TEST = "data_folder", "test"
_UNSET = "the default"


def flatten(stages: Iterable[Any]) -> Iterator[Stage]:
    """Stages of nested lists, in order."""
    for stage in stages:
        if isinstance(stage, list | tuple):
            yield from flatten(stage)
        elif stage is not None:
            yield stage


def without(stages: Sequence[Any], skipped: Sequence[str]) -> list[Stage]:
    """Stages but those named in ``skipped`` (``[estep_1, pretrain_1, ...]`` trains without pre-training).

    Raises:
        ValueError: a name that no stage bears.
    """
    flat = list(flatten(stages))
    unknown = sorted(set(skipped) - {stage.name for stage in flat})
    if unknown:
        raise ValueError(f"skip_stages names {unknown[0]!r}; the stages are {', '.join(s.name for s in flat)}")
    return [stage for stage in flat if stage.name not in skipped]


def settings_of(stages: Sequence[Any], context: RunContext) -> Iterator[tuple[Stage, dict[str, Any]]]:
    """Every stage with what it runs with: common settings (``run``), the data's, the stages before it, its own."""
    data: dict[str, Any] = {}
    after: list[str] = []
    for stage in flatten(stages):
        described = describe(stage)
        if stage.always:
            data[stage.name] = described
        yield stage, {"run": common_settings(context), **data, "after": list(after), stage.name: described}
        after.append(stage.name)


def refuse_changes(stages: Sequence[Any], context: RunContext) -> None:
    """Look whether what lies in the run's folder was made with these settings; nothing is written.

    Raises:
        InputError: it was not, and would have to be deleted; the sentence names what differs.
    """
    for stage, settings in settings_of(stages, context):
        left = left_of(context.folder / stage.folder)
        if stage.always or left is None:
            continue
        before = left.get("settings") or settings
        ignored = (_PLACE,) if stage.reports else (_PLACE, _TEST)
        change = difference(_but_for(ignored, before, stage.name), _but_for(ignored, settings, stage.name))
        if change:
            raise InputError(refusal(context.folder, stage.name, f"with {change}"))


def _but_for(ignored: Sequence[str], settings: Mapping[str, Any], own: str) -> dict[str, Any]:
    """Settings but for those of the data that are named."""
    kept: dict[str, Any] = {}
    for name, value in settings.items():
        data = isinstance(value, Mapping) and name not in ("run", own)
        kept[name] = {key: item for key, item in value.items() if key not in ignored} if data else value
    return kept


def refusal(folder: Path, name: str, how: str) -> str:
    """The sentence that says why a stage's files stay, and what to do."""
    return (
        f"{folder}: {name} was run {how}; give another output_folder, or --overwrite to delete it and what follows "
        "and run them again"
    )


def common_settings(context: RunContext) -> dict[str, Any]:
    """What all stages of a run are trained with."""
    options = {name: context.run_opts[name] for name in _DECISIVE if name in context.run_opts}
    # What was asked for, not what became of it: a run may go on on another kind of machine.
    debug = bool(context.run_opts.get("debug"))
    return {"seed": context.seed, "precision": context.precision.asked, "debug": debug, **options}


def left_of(folder: Path) -> dict[str, Any] | None:
    """What a finished or a begun run of a stage has noted."""
    files = (folder / "record.json", folder / "unfinished.json")
    return next((dict(read_json(file)) for file in files if file.exists()), None)


def describe(value: Any) -> Any:
    """JSON-able description of everything an object was built from; the same objects give the same description.

    An object that does not depend on all of its arguments says in ``decisive`` on which.
    """
    if isinstance(value, functools.partial):
        return {"call": describe(value.func), "args": describe(list(value.args)), **describe(value.keywords)}
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    arguments = getattr(value, "decisive", getattr(value, "_arguments", None))
    if arguments is not None:
        return {"type": type(value).__name__, **{name: describe(item) for name, item in arguments.items()}}
    if isinstance(value, Mapping):
        return {str(name): describe(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if type(value).__module__.startswith("pmam_plugin.") and not isinstance(value, torch.nn.Module):
        return {"type": type(value).__name__, **describe(vars(value))}
    return to_config(value)


def difference(before: Any, now: Any, place: str = "") -> str:
    """The first entry in which two descriptions differ, as ``place: value, now value``; empty where they agree."""
    before, now = (json.loads(json.dumps(value, default=str)) for value in (before, now))
    if isinstance(before, dict) and isinstance(now, dict) and before.get("type") == now.get("type"):
        for key in [*before, *(key for key in now if key not in before)]:
            change = difference(before.get(key, _UNSET), now.get(key, _UNSET), f"{place}.{key}" if place else key)
            if change:
                return change
        return ""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        changes = (difference(*pair, f"{place}[{index}]") for index, pair in enumerate(zip(before, now, strict=True)))
        return next(filter(None, changes), "")
    return "" if before == now else f"{place}: {_short(before)}, now {_short(now)}"


def _short(value: Any) -> str:
    value = value.get("type", value) if isinstance(value, dict) else value
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
