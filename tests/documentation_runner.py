"""Runs the documentation's code blocks: every page as independent as in a process of its own, and there at once.

What runs as it stands: Python and YAML blocks (YAML is built by HyperPyYAML), ``pmam``, other Python scripts, plain
shell commands. What would take minutes runs small:

* ``pmam soundscapes`` makes a few clips;
* a recipe command is parsed, its experiment built with the overrides it names and tiny ones for the rest, and its first
  stage (the data) run; whole runs of every experiment are in tests/recipes. ``torchrun``'s arguments are parsed too;
* ``pmam train`` looks at its data, lays them out, writes its experiment and runs the first stage; the demo's model
  stands for the one it would leave;
* ``make`` targets are looked at with ``make -n``. What ``make demo`` would run is then run, whole but tiny, to make the
  results that the pages work with;
* an s3prl problem trains for a few steps; benchmarks show their ``--help``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import multiprocessing
import os
import re
import runpy
import shutil
import subprocess
import sys
import traceback
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

from pmam_plugin.stages import annotated
from pmam_plugin.stages.experiment import read_experiment
from tests.documentation import Block, commands, words
from tests.recipes.tiny import SETTINGS
from tests.support import ROOT

RECIPE = "recipes/DESED/train.py"
CLIPS = {"strong": "8", "weak": "8", "unlabelled": "14", "selection": "3", "validation": "4", "seed": "1"}
STEPS = {"train.total_steps": "4", "train.log_step": "4", "train.eval_step": "4", "train.save_step": "4"}
PROBLEM = {**STEPS, "device": "cpu", "num_workers": "0", "target_dir": "results/hear"}
ONE = ("pretrain_epochs", "pretrain_steps", "finetune_2_epochs", "finetune_epochs", "finetune_steps")
WHOLE = {**SETTINGS, **dict.fromkeys(ONE, "1"), "em_iterations": "3"}
IMPORTS = """
    hyperpyyaml matplotlib.pyplot onnxruntime pandas scipy.ndimage sklearn.decomposition soundfile speechbrain tqdm.auto
    pmam_plugin.cli pmam_plugin.hub pmam_plugin.inference pmam_plugin.integrations.speechbrain pmam_plugin.stages
    pmam_plugin.report.detections
"""


class Page:
    """A page being run, in the current folder.

    Args:
        name: of the page.
        whole: run recipes to their end.
    """

    def __init__(self, name: str, whole: bool = False) -> None:
        self.name, self.whole = name, whole
        self.namespace: dict[str, Any] = {"__name__": "__main__"}

    def run(self, block: Block) -> None:
        """Run a block; raises whatever goes wrong."""
        {"python": self._python, "bash": self._shell, "yaml": self._yaml, "text": lambda block: None}[block.language](
            block
        )

    def _python(self, block: Block) -> None:
        # Empty lines in front, so that tracebacks name the line of the page.
        exec(compile("\n" * (block.line - 1) + block.code, self.name, "exec"), self.namespace)

    def _yaml(self, block: Block) -> None:
        from hyperpyyaml import load_hyperpyyaml

        load_hyperpyyaml(block.code)

    def _shell(self, block: Block) -> None:
        for command in commands(block.code):
            self.command(command)

    def command(self, command: str) -> None:
        """Run one line of a shell block; an exit status that is not 0 is an error."""
        try:
            self._command(command, *words(command))
        except SystemExit as error:
            if error.code:
                raise RuntimeError(f"{command}: exit status {error.code}") from error

    def _command(self, command: str, first: str, *arguments: str) -> None:
        rest = list(arguments)
        if first == "pmam":
            from pmam_plugin.cli import main

            if rest[0] == "train":
                with mock.patch("pmam_plugin.stages.annotated.train_annotated", first_stage):
                    return main(rest)
            main([*rest, *missing(rest, CLIPS)] if rest[0] == "soundscapes" else rest)
        elif first == "python":
            self._script(rest)
        elif first == "torchrun":
            from torch.distributed.run import get_args_parser

            arguments = get_args_parser().parse_args(rest)
            self._script([arguments.training_script, *arguments.training_script_args])
        elif first == "make":
            self._make(rest)
        else:
            done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
            print(done.stdout + done.stderr)
            if done.returncode:
                raise RuntimeError(f"{command}: exit status {done.returncode}")

    def _script(self, arguments: list[str]) -> None:
        if arguments[0] == RECIPE:
            self._recipe(arguments[1:])
        elif arguments[0] == "-m":
            is_problem = arguments[1] == "pmam_plugin.upstream"
            options = PROBLEM if is_problem else {}
            run_as_main(arguments[1], [*arguments[2:], *missing(arguments[2:], options)], module=True)
            # s3prl ends with status 0 whatever happens.
            if is_problem and not list(Path("results").rglob("evaluate/**/result.yaml")):
                raise RuntimeError("the problem left no result")
        elif arguments[0].startswith("benchmarks/"):
            run_as_main(arguments[0], ["--help"])
        else:
            run_as_main(arguments[0], arguments[1:])

    def _recipe(self, arguments: list[str]) -> None:
        from recipes.DESED import train as recipe

        text = read_experiment(Path(recipe.find_hparams(arguments[0])))
        known = {name: value for name, value in WHOLE.items() if re.search(rf"^{name}:", text, re.M)}
        arguments = [*arguments, *missing(arguments, {**known, "device": "cpu"}), "--noprogressbar"]
        if self.whole:
            status = recipe.main(arguments)
            if status:
                raise RuntimeError(f"{RECIPE} {' '.join(arguments)}: exit status {status}")
            return
        hparams, run_opts, *_ = recipe.load_experiment(arguments)
        folder, seed = Path(hparams["output_folder"]), int(hparams["seed"])
        stages = recipe.without(hparams["stages"], hparams.get("skip_stages") or [])
        recipe.run_stages(stages[:1], recipe.RunContext(folder, seed, run_opts))

    def _make(self, targets: list[str]) -> None:
        dry = subprocess.run(
            ["make", "-n", f"VENV={sys.prefix}", *targets], cwd=ROOT, capture_output=True, text=True, check=True
        )
        print(dry.stdout)
        if self.whole:
            for line in dry.stdout.splitlines():
                program = words(line)[0] if line else ""
                if program.startswith(sys.prefix) and re.search(r"bin/pmam |train\.py", line):
                    self.command(line.removeprefix(f"{sys.prefix}/bin/"))


def first_stage(folder: Path, out: Path, unlabelled: Path | None, *rest: Any, **options: Any) -> annotated.Trained:
    """What ``pmam train`` does before anything is trained."""
    run = annotated._Run(out, "cpu", 1, {}, True)
    survey = annotated.survey_folder(folder, 0.08)
    more = None if unlabelled is None else annotated.survey_folder(unlabelled, 0.08, unlabelled=True)
    laid = annotated.lay_out(survey, out / "corpus", more)
    subsets = [name for name in ("strong", "unlabelled") if name in laid.recordings]
    run.settings |= {"data_folder": str(laid.folder.resolve()), "subsets": subsets}
    run.through("prepare")
    shutil.copytree("results/pmam_demo/model", out / "model", dirs_exist_ok=True)
    return annotated.Trained(out, "", 0.0)


def missing(arguments: list[str], options: dict[str, str]) -> list[str]:
    """Those of ``options`` that the arguments do not give, as arguments."""
    given = {argument.removeprefix("--").partition("=")[0] for argument in arguments if argument.startswith("--")}
    return [part for name, value in options.items() if name not in given for part in (f"--{name}", value)]


def run_as_main(script: str, arguments: list[str], module: bool = False) -> None:
    """Run a script or module as Python's command line would."""
    sys.argv = [script, *arguments]
    try:
        if module:
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(script).resolve().parent))
            runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        if error.code:
            raise


def run_page(blocks: list[Block], name: str, folder: Path, whole: bool) -> list[dict[str, Any]]:
    """Run a page's blocks here; see :class:`Runner`."""
    import torch

    torch.set_num_threads(2)
    os.chdir(folder)
    page, results = Page(name, whole), []
    for block in blocks:
        output, error = io.StringIO(), None
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                page.run(block)
            except BaseException:
                error = traceback.format_exc()
        results.append({"line": block.line, "error": error, "output": output.getvalue()[-4000:]})
        if error is not None:
            break
    return results


def fork(*job: Any) -> list[dict[str, Any]]:
    """:func:`run_page` in a fork of this process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(run_page, *job).result()


def import_all() -> None:
    """What the pages need, once for all of them."""
    for name in IMPORTS.split():
        importlib.import_module(name)


class Runner:
    """A process with all imports done, and a fork of it for every page: a fresh interpreter in no time.

    Args:
        environment: of that process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=import_all)
        with mock.patch.dict(os.environ, environment):
            self._pool.submit(int)  # starts the process, which inherits the environment as it is now

    def __call__(self, blocks: list[Block], name: str, folder: Path, whole: bool = False) -> list[dict[str, Any]]:
        """Run blocks one after the other in one namespace; ends at the first that fails.

        Args:
            blocks: of one page.
            name: of the page, for tracebacks.
            folder: working directory.
            whole: run recipes to their end.

        Returns:
            For every block that was started ``line, error, output``; ``error`` is None or a traceback.
        """
        return self._pool.submit(fork, blocks, name, folder, whole).result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()
