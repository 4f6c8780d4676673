"""Train the runs of a comparison: each the recipe in a process of its own, common stages once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pmam_plugin.comparison.plan import Run
from pmam_plugin.errors import InputError
from pmam_plugin.files import write_json

_ROOT = Path(__file__).resolve().parents[2]
_TAIL_LINES = 15


def recipe() -> Path:
    """The recipe's script, below the current folder or in the checkout this package is installed from.

    Raises:
        InputError: neither has it.
    """
    for root in (Path.cwd(), _ROOT):
        if (root / "recipes" / "DESED" / "train.py").is_file():
            return root / "recipes" / "DESED" / "train.py"
    raise InputError("recipes/DESED/train.py: no such file; run comparisons from a checkout of the repository")


def train_all(
    runs: Sequence[Run],
    fixed: Sequence[str],
    tell: Callable[[str], None],
    jobs: int = 1,
    threads: int | None = None,
    overwrite: bool = False,
) -> bool:
    """Train what is not finished, in the order given.

    Args:
        runs: of a comparison.
        fixed: arguments of every run.
        tell: is told in one line of every run that ends.
        jobs: runs at a time.
        threads: of each run; None leaves it to torch.
        overwrite: run again what was trained with other settings.

    Returns:
        Whether none failed.
    """
    script, sound = recipe(), True
    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(lambda run: _train(run, fixed, script, threads, overwrite), runs)
        for run, (failed, text) in zip(runs, results, strict=True):
            sound &= not failed
            if text:
                tell(f"{'FAILED ' if failed else ''}{run.row.name}, seed {run.seed}: {text}")
    return sound


def _train(run: Run, fixed: Sequence[str], script: Path, threads: int | None, overwrite: bool) -> tuple[bool, str]:
    """Whether the run failed, and what to tell of it."""
    finished = (run.folder / "metrics.json").exists()
    if run.changed and not overwrite:
        return True, f"{run.folder} was trained with other settings; choose another --out, or train anew by --overwrite"
    if finished and not overwrite:
        return False, ""
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    arguments = run.row.arguments()
    write_json(run.settings, arguments)
    command = [sys.executable, str(script), *arguments, "--seed", str(run.seed), *fixed]
    command += ["--output_folder", str(run.folder), "--noprogressbar", *(["--overwrite"] if overwrite else [])]
    # Threads that wait must not spin beside other runs.
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "PMAM_SHARED_STAGES": str(run.output / "shared")}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    begin = time.monotonic()
    with open(run.log, "w", encoding="utf-8") as log:
        status = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT).returncode
    if status == 0 and (run.folder / "metrics.json").exists():
        return False, f"{time.monotonic() - begin:.0f} s"
    tail = run.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
    return True, f"exit status {status}; the end of {run.log}:\n" + "\n".join(f"    {line}" for line in tail)
