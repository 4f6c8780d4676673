"""Experiments on YAMNet, at tiny size but for the network itself."""

import json

import pytest

from pmam_plugin.checkpoints import load_model
from tests.checkpoints.test_yamnet import write_keras
from tests.recipes.tiny import flags, run_recipe

SETTINGS = {"finetune_epochs": "1", "finetune_steps": "2", "bootstrap": "10", "device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    write_keras(folder)
    return folder / "yamnet.h5"


def experiment(name, corpus, output, **changes):
    settings = {"data_folder": corpus, "output_folder": output, **SETTINGS, **changes}
    given = {key: value for key, value in settings.items() if value is not None}
    return run_recipe([f"hparams/{name}.yaml", *flags(given)])


def test_a_detector_learns_on_stored_embeddings_and_leaves_with_its_encoder(corpus, published, tmp_path):
    done = experiment("yamnet", corpus, tmp_path, encoder_checkpoint=published)
    assert done.returncode == 0, done.stderr[-3000:]
    stages = json.loads((tmp_path / "metrics.json").read_text())["stages"]
    assert stages["embed"]["clips"] == 8 + 8 + 3
    assert "54 tensors loaded" in stages["load_weights"]["report"]
    loaded = load_model(tmp_path / "model")
    assert loaded.model.frame_rate == 12.5
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 10e6


@pytest.mark.parametrize(
    ("yaml", "few"),
    [
        ("yamnet_v2", {"second_epochs": "1"}),
        ("sedt_yamnet", {"finetune_1_epochs": "1", "finetune_epochs": None, "patch_epochs": "1", "patch_steps": "1"}),
    ],
)
def test_other_methods_start_from_it_too(corpus, published, tmp_path, yaml, few):
    done = experiment(yaml, corpus, tmp_path, encoder_checkpoint=published, **few)
    assert done.returncode == 0, done.stderr[-3000:]
    assert load_model(tmp_path / "model").model.sample_rate == 16000


def test_without_the_published_file_a_sentence_says_where_it_is(corpus, tmp_path):
    done = experiment("yamnet", corpus, tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: yamnet.h5: no such file; download it from https://")
