"""What a comparison asks for: its file, its rows and its runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json

METRICS = ("psds1_mean", "psds1", "psds2", "event_f1_macro", "segment_f1_macro", "clip_f1_macro")
_FILE_KEYS = ("title", "hparams", "overrides", "control", "seeds", "metrics", "rows")
_TAG = re.compile(r"!(new|name|apply|ref)\b")
_ROW_KEYS = ("name", "hparams", "overrides", "skip_stages", "against", "candidate")


@dataclass(frozen=True)
class Row:
    """One configuration.

    Attributes:
        name: in the table.
        hparams: experiment file.
        overrides: keys of that file, with values.
        skip_stages: names of stages to leave out; None leaves the file's own choice.
        against: rows whose figures it is compared with.
        candidate: whose figures count: ``selected`` (the better one on the selection set), ``student``, ``teacher``.
    """

    name: str
    hparams: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    skip_stages: tuple[str, ...] | None = None
    against: tuple[str, ...] = ()
    candidate: str = "selected"

    @property
    def folder(self) -> str:
        """The name as a folder's."""
        return re.sub(r"[^a-z0-9.]+", "_", self.name.lower()).strip("_")

    def arguments(self) -> list[str]:
        """The recipe's command line, but for what differs between runs of the row."""
        overrides = dict(self.overrides)
        if self.skip_stages is not None:
            overrides["skip_stages"] = list(self.skip_stages)
        flags = [
            [f"--{key}", value if isinstance(value, str) else json.dumps(value)] for key, value in overrides.items()
        ]
        return [self.hparams, *(part for flag in flags for part in flag)]


@dataclass(frozen=True)
class Comparison:
    """A title, rows, the seeds each row is trained with, and the metrics to show."""

    title: str
    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = (1, 2, 3)
    metrics: tuple[str, ...] = METRICS

    def runs(self, output: Path) -> list[Run]:
        """Every row with every seed; seeds outside, so that after one round there is a table to look at."""
        return [Run(row, seed, output) for seed in self.seeds for row in self.rows]


@dataclass(frozen=True)
class Run:
    """One row with one seed."""

    row: Row
    seed: int
    output: Path

    @property
    def folder(self) -> Path:
        """The run's output folder."""
        return self.output / self.row.folder / str(self.seed)

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder.with_name(f"{self.seed}.log")

    @property
    def settings(self) -> Path:
        """The arguments that the folder was trained with."""
        return self.folder.with_name(f"{self.seed}.settings.json")

    @property
    def changed(self) -> bool:
        """Whether the folder was trained with other arguments; the order they were given in makes no difference."""
        return self.settings.exists() and _by_key(read_json(self.settings)) != _by_key(self.row.arguments())


def _by_key(arguments: Sequence[str]) -> tuple[str, dict[str, str]]:
    return arguments[0], dict(zip(arguments[1::2], arguments[2::2], strict=True))


def load_comparison(
    path: Path,
    overrides: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    rows: Sequence[str] = (),
) -> Comparison:
    """Read a comparison.

    The file holds ``title`` and ``rows``, and for all rows, where they have no own, ``hparams``, ``overrides`` (a row's
    are added), ``control`` (the row that others are held against), ``seeds`` and ``metrics``.

    Args:
        path: of the YAML file.
        overrides: of every row, beyond the file's.
        seeds: instead of the file's.
        rows: only rows whose names begin like one of these, and those they are held against.

    Raises:
        InputError: no such file, no YAML, a key that is not known, two rows of one name, or a row to be held against
            that is none.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list) or "title" not in content:
        raise InputError(f"{path}: no comparison; it needs a title and rows")
    _check_keys(f"{path}", content, _FILE_KEYS)
    found = tuple(_row(path, content, entry, overrides or {}) for entry in content["rows"])
    if len({row.folder for row in found}) != len(found):
        raise InputError(f"{path}: two rows bear the same name")
    names = {row.name for row in found}
    missing = [name for row in found for name in row.against if name not in names]
    if missing:
        raise InputError(f"{path}: {missing[0]!r} is to be compared with, but is no row")
    if rows:
        chosen = [row for row in found if row.name.startswith(tuple(rows))]
        if not chosen:
            raise InputError(f"{path}: no row begins with {' or '.join(rows)}; the rows are {', '.join(sorted(names))}")
        wanted = {name for row in chosen for name in (row.name, *row.against)}
        found = tuple(row for row in found if row.name in wanted)
    seeds = seeds or content.get("seeds", (1, 2, 3))
    return Comparison(content["title"], found, tuple(seeds), tuple(content.get("metrics", METRICS)))


def _row(path: Path, content: Mapping[str, Any], entry: Mapping[str, Any], overrides: Mapping[str, Any]) -> Row:
    if not isinstance(entry, dict) or "name" not in entry:
        raise InputError(f"{path}: a row needs a name, got {entry!r}")
    _check_keys(f"{path}: row {entry['name']!r}", entry, _ROW_KEYS)
    hparams = entry.get("hparams", content.get("hparams"))
    if hparams is None:
        raise InputError(f"{path}: row {entry['name']!r} names no experiment; give hparams to it or to the file")
    control = content.get("control")
    default = [] if control in (None, entry["name"]) else [control]
    skipped = entry.get("skip_stages")
    merged = {**content.get("overrides", {}), **entry.get("overrides", {}), **overrides}
    lost = next((key for key, value in merged.items() if not isinstance(value, str) and _TAG.search(str(value))), None)
    if lost is not None:
        raise InputError(
            f"{path}: row {entry['name']!r}: a tag within {lost!r} would stay text; give all of {lost!r} as one string"
        )
    return Row(
        entry["name"],
        hparams,
        merged,
        None if skipped is None else tuple(skipped),
        tuple(entry.get("against", default)),
        entry.get("candidate", "selected"),
    )


def _check_keys(place: str, found: Mapping[str, Any], known: Sequence[str]) -> None:
    strange = sorted(set(found) - set(known))
    if strange:
        raise InputError(f"{place} has no use for {strange[0]!r}; it may hold {', '.join(known)}")
