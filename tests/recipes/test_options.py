"""SpeechBrain's run options reach the stages, and those of its options that bite do not."""

import csv
import importlib.util
from pathlib import Path

import pytest
import torch
from speechbrain.utils.run_opts import RunOptions

from pmam_plugin.errors import InputError
from pmam_plugin.stages import RunContext, run_stages
from pmam_plugin.stages.runner import StageResult
from tests.recipes.tiny import arguments, run_recipe, tiny_corpus
from tests.support import ROOT

YAML = "hparams/pmam_small.yaml"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("recipe", ROOT / "recipes/DESED/train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny_corpus(tmp_path_factory.mktemp("data") / "corpus")


def chosen(recipe, *flags, **hparams):
    return recipe.run_options(RunOptions.from_command_line_args(["x.yaml", *flags])[1], hparams)


def test_the_command_line_comes_before_the_yaml(recipe):
    assert chosen(recipe, precision="bf16") == {"precision": "bf16"}
    assert chosen(recipe, "--precision=fp32", precision="bf16") == {"precision": "fp32"}
    assert chosen(recipe, "--device", "cpu", device="cuda:1", precision=None) == {"device": "cpu"}
    assert chosen(recipe, "--debug", "--max_grad_norm", "2") == {"debug": True, "max_grad_norm": 2.0}


def test_a_limit_of_updates_is_a_number(recipe):
    assert chosen(recipe, "--optimizer_step_limit", "5") == {"optimizer_step_limit": 5}
    with pytest.raises(InputError, match="must be a number of updates"):
        chosen(recipe, "--optimizer_step_limit", "many")


@pytest.mark.parametrize("bound", ["-1", "0", "nan"])
def test_a_bound_that_would_reverse_or_stop_all_updates_is_refused(recipe, bound):
    with pytest.raises(InputError, match="must be positive"):
        chosen(recipe, f"--max_grad_norm={bound}")


class Noting:
    """A stage that counts its runs."""

    always, name, folder = False, "noting", "noting"

    def __init__(self):
        self.runs = 0

    def run(self, context, folder):
        self.runs += 1
        return StageResult()


@pytest.mark.parametrize("option", ["max_grad_norm", "grad_accumulation_factor", "optimizer_step_limit"])
def test_an_option_that_changes_updates_runs_the_stages_again(tmp_path, monkeypatch, option):
    monkeypatch.setattr("pmam_plugin.stages.runner.describe", lambda stage: stage.name)
    stage = Noting()
    for options, runs in (({}, 1), ({"noprogressbar": True}, 1), ({option: 2}, 2), ({option: 2}, 2), ({option: 3}, 3)):
        run_stages([stage], RunContext(tmp_path, 1, options), overwrite=True)
        assert stage.runs == runs, options


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
