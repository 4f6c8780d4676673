"""The whole recipe at tiny size: results, resumption, several processes, bad input."""

import json
import shutil

import pandas as pd
import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from pmam_plugin import SoundEventDetector
from pmam_plugin.checkpoints import load_model
from pmam_plugin.data import class_list
from pmam_plugin.evaluation import read_scores
from tests.recipes.tiny import arguments, run_recipe
from tests.support import ROOT

YAML = "hparams/pmam_small.yaml"
STAGES = ["prepare", "estep_1", "pretrain_1", "estep_2", "pretrain_2", "finetune_1", "finetune_2", "evaluate", "report"]


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    """An unbroken run."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    done = run_recipe(arguments(YAML, corpus, output))
    assert done.returncode == 0, done.stderr[-3000:]
    return output, done


def figures(output):
    metrics = json.loads((output / "metrics.json").read_text())
    return {name: metrics[name] for name in ("test", "segments", "selection", "selected", "selected_processing")}


def test_a_run_leaves_what_it_promises(finished, corpus):
    output, done = finished
    metrics = json.loads((output / "metrics.json").read_text())
    for candidate in ("student", "teacher"):
        values = metrics["test"][candidate]
        for name in (
            "psds1",
            "psds2",
            "psds1_mean",
            "event_f1_macro",
            "event_f1_micro",
            "segment_f1_macro",
            "clip_f1_macro",
        ):
            assert 0 <= values[name] <= 1
            low, high = values[f"{name}_ci"]
            assert 0 <= low <= high <= 1
    assert list(metrics["stages"]) == [*STAGES[:-2]]
    assert metrics["stages"]["estep_1"]["components"] == 4
    loaded = load_model(output / "model")
    assert list(loaded.model.labels) == class_list(corpus)
    assert (loaded.scoring.postprocessing.segments is not None) == (metrics["selected_processing"] == "segments")
    assert len(list((output / "scores").glob("*.tsv"))) == 4
    page = (output / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert str(output / "report.html") in done.stdout
    for log in ("log.txt", "env.log", "hyperparams.yaml", "stages/finetune_2/train_log.txt"):
        assert (output / log).exists()


def test_the_card_of_a_run_says_how_good_the_model_is_and_where_it_comes_from(finished, corpus):
    output, _ = finished
    text = (output / "model/README.md").read_text()
    card = ModelCard(text)
    assert card.data.library_name == "pmam_plugin"
    assert {"sound-event-detection", "speechbrain", "s3prl"} <= set(card.data.tags)
    assert {"PSDS1", "PSDS2"} <= {result.metric_name for result in card.data.eval_results}
    assert card.data.eval_results[0].dataset_name == "audio/validation/validation of the run's data, 4 clips"
    provenance = load_model(output / "model").config["provenance"]
    assert provenance["configuration"]["file"] == "pmam_small.yaml"
    assert provenance["configuration"]["settings"]["dim"] == 16
    assert {"commit", "seed", "constraints", "environment", "fingerprint", "data"} <= set(provenance)
    assert "## Use" in text
    assert "## Limits" in text
    assert "dim 16" in text
    for folder in (output, corpus, ROOT):  # a published folder tells nothing about the machine
        assert str(folder) not in text + json.dumps(provenance)


def test_the_figures_were_computed_from_the_scores_that_the_model_gives(finished, corpus):
    output, _ = finished
    detector = SoundEventDetector.from_pretrained(output / "model", device="cpu")
    evaluated = read_scores(output / "scores")
    assert len(evaluated) == 4
    for name, table in evaluated.items():
        clip = next((corpus / "audio/validation/validation").glob(f"{name}.*"))
        pd.testing.assert_frame_equal(detector.scores(clip), table, atol=1e-5, check_dtype=False)


@pytest.mark.slow
def test_a_second_run_does_nothing_but_the_table(finished, corpus):
    output, _ = finished
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")}
    done = run_recipe(arguments(YAML, corpus, output))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("(done before)") == len(STAGES) - 1
    assert before == {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")}


def test_other_settings_are_refused_before_anything_is_touched(finished, corpus):
    """But for the logs, and the copy of the script that SpeechBrain makes."""
    output, _ = finished

    def written():
        files = (path for path in output.rglob("*") if path.is_file() and path.suffix not in (".txt", ".log", ".py"))
        return {path: path.stat().st_mtime_ns for path in files}

    before = written()
    done = run_recipe(arguments(YAML, corpus, output, finetune_2_epochs="3"))
    assert done.returncode == 1
    sentence = done.stderr.splitlines()[-1]
    assert "finetune_2 was run with finetune_2.plan.epochs: 2, now 3" in sentence
    assert "--overwrite" in sentence
    assert written() == before


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_the_same(finished, corpus, tmp_path):
    whole, _ = finished
    output = tmp_path / "killed"
    argv = [*arguments(YAML, corpus, output), "--ckpt_interval_steps", "1"]
    for stage in STAGES:
        killed = run_recipe([stage, *argv], "tests/recipes/killed_run.py")
        assert killed.returncode == -9, f"{stage} was not killed: {killed.stderr[-2000:]}"
        assert not (output / "report.html").exists()
    done = run_recipe(argv)
    assert done.returncode == 0, done.stderr[-3000:]
    assert figures(output) == figures(whole)
    for name in (
        "model/model.safetensors",
        "stages/pretrain_2/backbone.safetensors",
        "stages/finetune_2/teacher.safetensors",
    ):
        ours, theirs = load_file(output / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        assert all(bool((ours[key] == theirs[key]).all()) for key in ours), name


@pytest.mark.slow
def test_two_processes_run_all_stages_and_fit_the_same_mixture(finished, corpus, tmp_path):
    whole, _ = finished
    output = tmp_path / "two"
    argv = [*arguments(YAML, corpus, output), "--distributed_backend", "gloo"]
    done = run_recipe(argv, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert figures(output)["test"].keys() == {"student", "teacher"}
    ours, theirs = (load_file(run / "prototypes/1/prototypes.safetensors") for run in (output, whole))
    for name in ours:
        scale = theirs[name].abs().max()
        # On equal frames it is 1e-5 (tests/prototypes); here other batches also round embeddings to float16 elsewhere.
        assert float((ours[name] - theirs[name]).abs().max() / scale) < 1e-4, name


@pytest.mark.slow
def test_without_pretraining_the_same_command_trains_the_baseline(corpus, tmp_path):
    output = tmp_path / "baseline"
    skipped = "[estep_1, pretrain_1, estep_2, pretrain_2]"
    done = run_recipe(arguments(YAML, corpus, output, skip_stages=skipped))
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (output / "prototypes").exists()
    assert (output / "metrics.json").exists()


def test_mistakes_are_one_sentence(corpus, tmp_path):
    wrong = {
        "no such folder": arguments(YAML, tmp_path / "nowhere", tmp_path / "out"),
        "no such file; the repository's experiments": arguments("hparams/none.yaml", corpus, tmp_path / "out"),
    }
    for sentence, argv in wrong.items():
        done = run_recipe(argv)
        assert done.returncode == 1
        assert sentence in done.stderr.splitlines()[-1]
        assert done.stderr.splitlines()[-1].startswith("error: ")


def test_a_clip_that_breaks_after_preparation_is_named(corpus, tmp_path):
    broken = tmp_path / "corpus"
    shutil.copytree(corpus, broken)
    for path in sorted((broken / "audio/train/weak").glob("*.wav"))[:4]:
        path.write_bytes(b"RIFF")
    done = run_recipe(arguments(YAML, broken, tmp_path / "out"))
    assert done.returncode == 1
    assert "unreadable" in done.stderr.splitlines()[-1]
