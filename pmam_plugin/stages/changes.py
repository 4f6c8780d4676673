"""What a run's settings are, and whether what lies in its folder was made with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json
from pmam_plugin.stages.context import RunContext, Stage
from pmam_plugin.stages.description import describe, difference

# Run options, beside precision and debug, that change what a stage learns.
_DECISIVE = ("max_grad_norm", "grad_accumulation_factor", "optimizer_step_limit")
# Settings of the stage that prepares the data which are no reason to train again: its data have a fingerprint.
_PLACE, _TEST = "data_folder", "test"


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
        ignored = (_PLACE,) if getattr(stage, "reports", False) else (_PLACE, _TEST)
        change = difference(_without(before, stage.name, ignored), _without(settings, stage.name, ignored))
        if change:
            raise InputError(refusal(context.folder, stage.name, f"with {change}"))


def _without(settings: Mapping[str, Any], own: str, ignored: Sequence[str]) -> dict[str, Any]:
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


def flatten(stages: Iterable[Any]) -> Iterable[Any]:
    """Stages of nested lists, in order."""
    for stage in stages:
        if isinstance(stage, list | tuple):
            yield from flatten(stage)
        elif stage is not None:
            yield stage
