"""Train several configurations over several seeds and compare their test figures.

    python benchmarks/compare.py atst --data_folder PATH [--seeds 1 2 3] [--jobs 2] [--device cuda]

A comparison is a file of ``benchmarks/comparisons/``: a title and rows, each a recipe file with overrides. Every run is
the recipe in a process of its own, in ``<output>/<row>/<seed>``; finished runs are only read, so the command can be
repeated, and ``--only-table`` trains nothing. Figures are those of the model each run selected, from the test set:
mean over seeds with its 95 % t-interval, each seed, and the gain over the rows a row is held against, seed by seed.
``<output>/summary.json`` holds everything that is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
COMPARISONS = ROOT / "benchmarks" / "comparisons"
METRICS = ("psds1_mean", "psds1", "psds2", "event_f1_macro", "segment_f1_macro", "clip_f1_macro")
# Key of metrics.json -> what the table calls it.
PROCESSINGS = {"validation": "median filter", "segments": "bounding boxes (SEBB)"}
TAIL_LINES = 15


@dataclass(frozen=True)
class Row:
    """One configuration.

    Attributes:
        name: in the table.
        hparams: recipe file.
        overrides: keys of the recipe file, with values.
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
    """A title and rows."""

    title: str
    rows: tuple[Row, ...]


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


def load_comparison(path: Path, common: Mapping[str, Any] | None = None) -> Comparison:
    """Read a comparison.

    Args:
        path: YAML with ``title``, ``rows`` and, where all rows are held against one, ``baseline``.
        common: overrides of every row.

    Raises:
        ValueError: a key that is not known, two rows of one name, or a baseline that is no row.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    unknown = set(content) - {"title", "rows", "baseline"}
    if unknown:
        raise ValueError(f"{path}: has no use for {sorted(unknown)[0]!r}")
    rows = []
    for entry in content["rows"]:
        strange = set(entry) - {"name", "hparams", "overrides", "skip_stages", "against", "candidate"}
        if strange:
            raise ValueError(f"{path}: row {entry.get('name')!r} has no use for {sorted(strange)[0]!r}")
        default = [content["baseline"]] if content.get("baseline") not in (None, entry["name"]) else []
        skipped = entry.get("skip_stages")
        rows.append(
            Row(
                entry["name"],
                entry["hparams"],
                {**entry.get("overrides", {}), **(common or {})},
                None if skipped is None else tuple(skipped),
                tuple(entry.get("against", default)),
                entry.get("candidate", "selected"),
            )
        )
    if len({row.folder for row in rows}) != len(rows):
        raise ValueError(f"{path}: two rows bear the same name")
    names = {row.name for row in rows}
    missing = [name for row in rows for name in row.against if name not in names]
    if missing:
        raise ValueError(f"{path}: {missing[0]!r} is to be compared with, but is no row")
    return Comparison(content["title"], tuple(rows))


def train(run: Run, fixed: Sequence[str], script: Path, threads: int | None) -> str | None:
    """Train a run that is not finished; returns why it failed, None where it did not."""
    finished = (run.folder / "metrics.json").exists()
    arguments = run.row.arguments()
    if finished and run.settings.exists() and json.loads(run.settings.read_text(encoding="utf-8")) != arguments:
        return f"{run.folder} was trained with other settings; remove it or choose another --output"
    if finished:
        return None
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    run.settings.write_text(json.dumps(arguments), encoding="utf-8")
    command = [sys.executable, str(script), *arguments, "--seed", str(run.seed), *fixed]
    command += ["--output_folder", str(run.folder), "--noprogressbar"]
    # The package need not be installed, and threads that wait must not spin beside other runs.
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_WAIT_POLICY": "passive"}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    begin = time.monotonic()
    with open(run.log, "w", encoding="utf-8") as log:
        status = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT).returncode
    if status == 0 and (run.folder / "metrics.json").exists():
        print(f"{run.row.name}, seed {run.seed}: {time.monotonic() - begin:.0f} s", flush=True)
        return None
    tail = run.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return f"exit status {status}; the end of {run.log}:\n" + "\n".join(f"    {line}" for line in tail)


def train_all(runs: Sequence[Run], fixed: Sequence[str], script: Path, jobs: int, threads: int | None) -> bool:
    """Train what is missing, several runs at a time; returns whether none failed."""
    sound = True
    with ThreadPoolExecutor(jobs) as pool:
        for run, failure in zip(runs, pool.map(lambda run: train(run, fixed, script, threads), runs), strict=True):
            if failure is not None:
                sound = False
                print(f"FAILED {run.row.name}, seed {run.seed}: {failure}", flush=True)
    return sound


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % t-interval of the mean; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def mean(values: Sequence[float]) -> float:
    """Mean; NaN for none."""
    return sum(values) / len(values) if values else math.nan


def figures(run: Run) -> dict[str, Any] | None:
    """What ``metrics.json`` says of a finished run: seconds, updates of fine-tuning, figures by post-processing."""
    path = run.folder / "metrics.json"
    if not path.exists():
        return None
    metrics = json.loads(path.read_text(encoding="utf-8"))
    chosen = metrics["selected"] if run.row.candidate == "selected" else run.row.candidate
    found: dict[str, Any] = {
        processing: {name: metrics[processing][chosen][name] for name in METRICS}
        for processing in PROCESSINGS
        if chosen in metrics.get(processing, {})
    }
    found["seconds"] = sum(stage.get("seconds", 0.0) for stage in metrics["stages"].values())
    tuned = [stage for name, stage in metrics["stages"].items() if name.startswith("finetune")]
    found["updates"] = sum(stage.get("updates", 0) for stage in tuned)
    return found


def gain(values: Mapping[int, float], base: Mapping[int, float]) -> dict[str, Any] | None:
    """How much ``values`` exceed ``base``, seed by seed; None where they share no seed.

    ``relative`` is of the means over the common seeds (NaN over zero), ``difference`` in the metric's own unit.
    """
    seeds = sorted(set(values) & set(base))
    if not seeds:
        return None
    differences = [values[seed] - base[seed] for seed in seeds]
    before = mean([base[seed] for seed in seeds])
    return {
        "relative": mean(differences) / before if before else math.nan,
        "difference": mean(differences),
        "half_width": half_width(differences),
        "differences": dict(zip(seeds, differences, strict=True)),
    }


def summarise(comparison: Comparison, runs: Sequence[Run]) -> dict[str, Any]:
    """Everything that is printed, as JSON-able data."""
    found = {row.name: {run.seed: figures(run) for run in runs if run.row == row} for row in comparison.rows}
    done = {name: {seed: item for seed, item in seeds.items() if item} for name, seeds in found.items()}

    def values(name: str, processing: str, metric: str) -> dict[int, float]:
        return {seed: item[processing][metric] for seed, item in done[name].items() if processing in item}

    def cell(row: Row, processing: str, metric: str) -> dict[str, Any]:
        own = values(row.name, processing, metric)
        gains = {name: gain(own, values(name, processing, metric)) for name in row.against if name in done}
        each = list(own.values())
        return {"mean": mean(each), "half_width": half_width(each), "values": own, "gains": gains}

    rows = {}
    for row in comparison.rows:
        runs_of_row = list(done[row.name].values())
        shown = [key for key in PROCESSINGS if any(key in item for item in runs_of_row)]
        rows[row.name] = {
            "hparams": row.hparams,
            "overrides": dict(row.overrides),
            "skip_stages": row.skip_stages,
            "candidate": row.candidate,
            "missing_seeds": [seed for seed, item in found[row.name].items() if item is None],
            "updates": sorted({item["updates"] for item in runs_of_row}),
            "seconds": mean([item["seconds"] for item in runs_of_row]),
            **{processing: {metric: cell(row, processing, metric) for metric in METRICS} for processing in shown},
        }
    return {"title": comparison.title, "seeds": sorted({run.seed for run in runs}), "rows": rows}


def spread(cell: Mapping[str, Any]) -> str:
    """``mean ± half width`` in percent."""
    half = cell["half_width"]
    return f"{100 * cell['mean']:.2f}" + ("" if math.isnan(half) else f" ± {100 * half:.2f}")


def gain_text(name: str, found: Mapping[str, Any] | None) -> str:
    """One gain: relative, and the paired difference in points."""
    if found is None:
        return ""
    relative = "" if math.isnan(found["relative"]) else f"{100 * found['relative']:+.1f} %, "
    half = "" if math.isnan(found["half_width"]) else f" ± {100 * found['half_width']:.2f}"
    return f"   {relative}{100 * found['difference']:+.2f}{half} points on {name}"


def text_table(summary: Mapping[str, Any]) -> str:
    """A block per metric and post-processing, a line per row."""
    lines = [summary["title"], f"percent; mean ± 95 % t-interval over seeds {summary['seeds']} [each seed]"]
    width = max(len(name) for name in summary["rows"]) + 2
    for processing, title in PROCESSINGS.items():
        shown = {name: row[processing] for name, row in summary["rows"].items() if processing in row}
        for metric in METRICS if shown else ():
            lines += ["", f"{metric}, {title}"]
            for name, cells in shown.items():
                cell = cells[metric]
                each = ", ".join(f"{100 * value:.2f}" for value in cell["values"].values())
                gains = "".join(gain_text(base, found) for base, found in cell["gains"].items())
                lines.append(f"  {name:<{width}}{spread(cell):<16}[{each}]{gains}")
    lines += ["", f"{'':<{width + 2}}updates of fine-tuning   seconds per run   missing seeds"]
    for name, row in summary["rows"].items():
        updates = ", ".join(map(str, row["updates"]))
        missing = ", ".join(map(str, row["missing_seeds"])) or "none"
        lines.append(f"  {name:<{width}}{updates:>22}{row['seconds']:>18.0f}   {missing}")
    return "\n".join(lines)


def markdown_table(summary: Mapping[str, Any]) -> str:
    """One table, a line per row and post-processing."""
    heads = ["", *(metric.replace("_", " ") for metric in METRICS), "seconds"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for processing, title in PROCESSINGS.items():
        for name, row in summary["rows"].items():
            if processing in row:
                cells = [spread(row[processing][metric]) for metric in METRICS]
                seconds = f"{row['seconds']:.0f}" if processing == "validation" else ""
                lines.append(f"| {name}, {title} | {' | '.join(cells)} | {seconds} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    known = sorted(path.stem for path in COMPARISONS.glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", choices=known)
    parser.add_argument("--data_folder", type=Path, required=True, help="in DESED's layout")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rows", nargs="+", help="only rows whose names begin like one of these")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="for every row")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, help="threads of each run")
    parser.add_argument("--device", help="of every run; otherwise the recipe's choice")
    parser.add_argument("--output", type=Path, help="results/compare/<comparison> by default")
    parser.add_argument("--only-table", action="store_true", help="train nothing")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table instead")
    return parser


def main(arguments: Sequence[str] | None = None, script: Path = ROOT / "recipes" / "DESED" / "train.py") -> int:
    """Train what is missing and print the table; returns 1 if a run failed."""
    options = parser().parse_args(arguments)
    comparison = load_comparison(COMPARISONS / f"{options.comparison}.yaml", dict(options.set))
    if options.rows:
        chosen = [row for row in comparison.rows if row.name.startswith(tuple(options.rows))]
        if not chosen:
            sys.exit(f"no row begins like that; the rows are {', '.join(row.name for row in comparison.rows)}")
        comparison = Comparison(comparison.title, tuple(chosen))
    output = (options.output or ROOT / "results" / "compare" / options.comparison).resolve()
    # Seeds outside: after one round through the rows there is a table to look at.
    runs = [Run(row, seed, output) for seed in options.seeds for row in comparison.rows]
    sound = True
    if not options.only_table:
        fixed = ["--data_folder", str(options.data_folder.resolve())]
        fixed += ["--device", options.device] if options.device else []
        sound = train_all(runs, fixed, script, options.jobs, options.threads)
    summary = summarise(comparison, runs)
    output.mkdir(parents=True, exist_ok=True)
    (output / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    print(markdown_table(summary) if options.markdown else text_table(summary))
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
