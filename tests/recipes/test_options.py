"""SpeechBrain's run options reach the stages, and those of its options that bite do not."""

import csv
import re
from pathlib import Path

import pytest
import torch
import yaml
from speechbrain.utils.run_opts import RunOptions

from pmam_plugin.errors import InputError
from pmam_plugin.stages import RunContext, run_stages
from pmam_plugin.stages.context import Stage, StageResult
from recipes.DESED import train as recipe
from tests.recipes.tiny import arguments, run_recipe
from tests.support import ROOT

YAML = "hparams/pmam_small.yaml"


def chosen(*flags, **hparams):
    return recipe.run_options(RunOptions.from_command_line_args(["x.yaml", *flags])[1], hparams)


def test_the_command_line_comes_before_the_yaml():
    assert chosen(precision="bf16") == {"precision": "bf16"}
    assert chosen("--precision=fp32", precision="bf16") == {"precision": "fp32"}
    assert chosen("--device", "cpu", device="cuda:1", precision=None) == {"device": "cpu"}
    assert chosen("--debug", "--max_grad_norm", "2") == {"debug": True, "max_grad_norm": 2.0}


def test_a_limit_of_updates_is_a_number():
    assert chosen("--optimizer_step_limit", "5") == {"optimizer_step_limit": 5}
    with pytest.raises(InputError, match="must be a number of updates"):
        chosen("--optimizer_step_limit", "many")


@pytest.mark.parametrize("bound", ["-1", "0", "nan"])
def test_a_bound_that_would_reverse_or_stop_all_updates_is_refused(bound):
    with pytest.raises(InputError, match="must be positive"):
        chosen(f"--max_grad_norm={bound}")


class Noting(Stage):
    """A stage that counts its runs."""

    name = "noting"

    def __init__(self):
        self.runs = 0

    def run(self, context, folder):
        self.runs += 1
        return StageResult()


@pytest.mark.parametrize("option", ["max_grad_norm", "grad_accumulation_factor", "optimizer_step_limit"])
def test_an_option_that_changes_updates_runs_the_stages_again(tmp_path, monkeypatch, option):
    monkeypatch.setattr("pmam_plugin.stages.settings.describe", lambda stage: stage.name)
    stage = Noting()
    for options, runs in (({}, 1), ({"noprogressbar": True}, 1), ({option: 2}, 2), ({option: 2}, 2), ({option: 3}, 3)):
        run_stages([stage], RunContext(tmp_path, 1, options), overwrite=True)
        assert stage.runs == runs, options


# Every run option that README and docs name, with where it must arrive.
GIVEN = {
    "--device=cpu": ("device", "cpu"),
    "--precision=fp32": ("precision", "fp32"),
    "--eval_precision=fp32": ("eval_precision", "fp32"),
    "--debug": ("debug", True),
    "--debug_persistently": ("debug_persistently", True),
    "--noprogressbar": ("noprogressbar", True),
    "--max_grad_norm=2.5": ("max_grad_norm", 2.5),
    "--grad_accumulation_factor=2": ("grad_accumulation_factor", 2),
    "--optimizer_step_limit=7": ("optimizer_step_limit", 7),
    "--ckpt_interval_minutes=3": ("ckpt_interval_minutes", 3.0),
    "--distributed_backend=gloo": ("distributed_backend", "gloo"),
}
KEYS = {"cache_audio": "somewhere", "cache_gigabytes": 3, "num_workers": 2, "skip_stages": "[report]", "seed": 11}


@pytest.mark.parametrize("file", sorted((ROOT / "hparams").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_run_option_works_on_every_experiment(monkeypatch, tmp_path, file):
    """Whatever the YAML says of it or not; what is built of the text is none of its business."""
    monkeypatch.setattr(recipe, "ddp_init_group", lambda _: None)
    monkeypatch.setattr(recipe, "build_experiment", lambda text, _: top_level(text))
    keys = {**KEYS, "output_folder": str(tmp_path / "out"), "data_folder": str(tmp_path)}
    flags = [f"--{name}={value}" for name, value in keys.items()]
    hparams, options, text = recipe.load_experiment([str(file), *flags, *GIVEN])
    assert {name: options[name] for name, _ in GIVEN.values()} == dict(GIVEN.values())
    assert {name: str(hparams[name]).replace("'", "") for name in keys} == {n: str(v) for n, v in keys.items()}
    assert text.count("num_workers: 2") == 1


def top_level(text):
    """Values and lists of an experiment, as text."""
    found = {}
    for key, value in yaml.compose(text, Loader=yaml.SafeLoader).value:
        if isinstance(value, yaml.ScalarNode):
            found[key.value] = value.value
        elif isinstance(value, yaml.SequenceNode) and key.value != "stages":
            found[key.value] = f"[{', '.join(str(item.value) for item in value.value)}]"
    return found


def test_no_run_option_of_the_docs_is_left_out():
    """What stands beside the recipe in README or docs is given above, is a key of experiments, or another program's."""
    pages = [ROOT / "README.md", ROOT / "recipes/DESED/README.md", *(ROOT / "docs").glob("*.md")]
    commands = [
        command for page in pages for command in re.findall(r"recipes/DESED/train\.py(?:.*\\\n)*.*", page.read_text())
    ]
    named = {name for command in commands for name in re.findall(r"--([a-z_]+)", command)}
    keys = {key for path in (ROOT / "hparams").rglob("*.yaml") for key in re.findall(r"(?m)^(\w+):", path.read_text())}
    assert len(named) > 8
    assert (
        named - keys - {name for name, _ in GIVEN.values()} - KEYS.keys() - {"nproc_per_node", "overwrite", "any_key"}
        == set()
    )


def rows():
    return list(csv.DictReader((ROOT / "tests/recipes/DESED.csv").read_text().splitlines()))


def test_every_experiment_has_a_row_of_existing_files():
    listed = [row["Hparam_file"] for row in rows()]
    assert sorted(listed) == sorted(f"hparams/{path.name}" for path in (ROOT / "hparams").glob("*.yaml"))
    for row in rows():
        for column in ("Script_file", "Hparam_file", "Data_prep_file", "Readme_file"):
            assert (ROOT / row[column]).is_file(), row[column]
        name = Path(row["Hparam_file"]).name.replace("_small", "")
        assert name in (ROOT / row["Readme_file"]).read_text(), "the README names it"
        assert {"--debug"} <= set(row["test_debug_flags"].split())


@pytest.mark.slow
def test_the_row_of_the_small_system_holds(corpus, tmp_path):
    """As SpeechBrain's own tester runs it, and once more with checkpoints in SpeechBrain's temporary folder."""
    [row] = [row for row in rows() if row["Hparam_file"] == YAML]
    flags = row["test_debug_flags"].replace("tests/tmp/corpus", str(corpus)).split()
    for temporary in (False, True):
        output = tmp_path / f"run{temporary}"
        given = [*flags]
        if temporary:
            given.remove("--debug_persistently")
            given += ["--skip_stages", "[estep_2, pretrain_2]"]
        done = run_recipe([row["Hparam_file"], *given, f"--output_folder={output}", "--device=cpu", "--bootstrap=10"])
        assert done.returncode == 0, done.stderr[-3000:]
        [names] = [check.split("=", 1)[1].strip('[]"') for check in row["test_debug_checks"].split(" file_exists")]
        for name in names.split(","):
            assert (output / name).is_file(), name


@pytest.mark.slow
def test_options_of_the_command_line_reach_the_updates(corpus, tmp_path):
    output = tmp_path / "run"
    argv = arguments(YAML, corpus, output, skip_stages="[estep_1, pretrain_1, estep_2, pretrain_2, evaluate, report]")
    argv += ["--max_grad_norm", "1e-9", "--optimizer_step_limit", "2"]
    done = run_recipe(argv)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "--precision=fp32" in (output / "log.txt").read_text()
    assert '"updates": 2' in (output / "stages/finetune_2/record.json").read_text()
    state = torch.load(next(output.glob("stages/finetune_2/checkpoints/CKPT*/optimizer.ckpt")), weights_only=True)
    # First moments are tenths of the clipped gradients.
    assert max(float(entry["exp_avg"].abs().max()) for entry in state["state"].values()) < 1e-8
