"""s3prl's HEAR problems, end to end, on tones."""

import subprocess
import sys

import pytest
import yaml

from tests.upstream.corpora import event_corpus, scene_corpus
from tests.upstream.models import patch_detector, write_folder

pytest.importorskip("s3prl", reason="s3prl is not installed")
pytestmark = pytest.mark.slow


def run_problem(problem, folder, target, *options):
    """Run a problem in a process of its own, as users do; returns the test result."""
    command = [sys.executable, "-m", "pmam_plugin.upstream", problem, "--target_dir", str(target)]
    command += ["--build_upstream.name", "pmam_local", "--build_upstream.path_or_url", str(folder)]
    command += ["--device", "cpu", "--num_workers", "0", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    [result] = target.glob("evaluate/valid_best/test/result.yaml")
    return yaml.safe_load(result.read_text())


def test_sound_event_detection_runs_to_a_test_score(tmp_path):
    corpus = event_corpus(tmp_path / "corpus", {"train": 10, "valid": 3, "test": 3})
    folder = write_folder(tmp_path / "model", patch_detector())
    # The only validation comes late: a first one without any event would score NaN, which nothing ever beats.
    steps = 40
    options = ["--prepare_data.dataset_root", corpus, "--train.total_steps", steps, "--train.log_step", steps]
    options += ["--train.eval_step", steps, "--train.save_step", steps, "--build_optimizer.conf.lr", 0.01]
    result = run_problem("HearDcase2016Task2", folder, tmp_path / "run", *options)
    assert 0.3 < float(result["event_onset_200ms_fms"]) <= 1.0
    assert 0.0 <= float(result["segment_1s_er"]) < 0.8


def test_scene_classification_runs_to_a_test_score(tmp_path):
    corpus = scene_corpus(tmp_path / "corpus")
    folder = write_folder(tmp_path / "model", patch_detector())
    steps = 15
    options = ["--prepare_data.dataset_root", corpus, "--prepare_data.test_fold", 0, "--train.total_steps", steps]
    options += ["--train.log_step", steps, "--train.eval_step", steps, "--train.save_step", steps]
    options += ["--train.gradient_accumulate", 1, "--build_optimizer.conf.lr", 0.01]
    result = run_problem("HearESC50", folder, tmp_path / "run", *options)
    assert float(result["top1_acc"]) >= 2 / 3
