"""ATST-SED, ATST-SEDv2, the CRNN, PMAM with v2 fine-tuning and ATST-Frame's pre-training, each as a tiny run."""

import json

import pytest
from safetensors.torch import load_file

from pmam_plugin.checkpoints import load_model
from pmam_plugin.checkpoints.atst import import_atst_frame
from tests.recipes.tiny import SETTINGS, flags, run_recipe

# Ten updates, so that the curves have a point.
COMMON = {name: SETTINGS[name] for name in ("seed", "device", "precision", "bootstrap")} | {"finetune_steps": "5"}
BATCH = "{strong: 2, weak: 2, unlabelled: 2}"
ATST = {"dim": "16", "depth": "2", "finetune_1_epochs": "1", "finetune_2_epochs": "2"}
CONTRAST = {"projector_hidden": "16", "projected_dim": "8", "mix_threshold": "0.7"}
TINY = {
    "atst_sed_small": ATST,
    "atst_sed_v2_small": {**ATST, **CONTRAST, "mix_domain": "features"},
    "atst_frame_small": {**ATST, "pretrain_epochs": "2", "pretrain_steps": "3", "pretrain_batch": BATCH},
    "crnn_small": {"finetune_1_epochs": "2"},
    "crnn_v2_small": {"finetune_1_epochs": "2", **CONTRAST},
    "pmam_v2_small": {**SETTINGS, **CONTRAST, "finetune_steps": "5"},
}


def run(name, corpus, output, **changes):
    settings = {"data_folder": corpus, "output_folder": output, **COMMON, **TINY[name], **changes}
    done = run_recipe([f"hparams/{name}.yaml", *flags(settings)])
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((output / "metrics.json").read_text())


@pytest.mark.parametrize(
    "name",
    [name if name == "atst_sed_v2_small" else pytest.param(name, marks=pytest.mark.slow) for name in TINY],
)
def test_a_tiny_run_leaves_figures_and_a_model_without_training_heads(name, corpus, tmp_path):
    metrics = run(name, corpus, tmp_path)
    assert set(metrics["test"]) == {"student", "teacher"}
    assert 0 <= metrics["test"]["student"]["psds1_mean"] <= 1
    load_model(tmp_path / "model")
    names = load_file(tmp_path / "model" / "model.safetensors").keys()
    assert not [tensor for tensor in names if "projector" in tensor or "predictor" in tensor]
    last = "finetune_2" if (tmp_path / "stages" / "finetune_2").exists() else "finetune_1"
    curves = json.loads((tmp_path / "stages" / last / "record.json").read_text())["curves"]
    assert ("contrast" in curves) == ("v2" in name)


@pytest.mark.slow
def test_the_first_stage_freezes_the_transformer_and_the_second_trains_it(corpus, tmp_path):
    run("atst_frame_small", corpus, tmp_path)
    stages = tmp_path / "stages"
    pretrained, encoder = load_file(stages / "pretrain_atst/backbone.safetensors"), "encoder.atst."
    first, second = (load_file(stages / stage / "best_student.safetensors") for stage in ("finetune_1", "finetune_2"))
    for name in (name for name in pretrained if name.startswith(encoder)):
        assert bool((pretrained[name] == first[f"backbone.{name}"]).all()), f"{name} is frozen in stage 1"
    qkv = f"backbone.{encoder}blocks.1.attn.qkv.weight"
    assert not bool((first[qkv] == second[qkv]).all())
    # What pre-training leaves is a checkpoint that other runs can start from.
    loaded, report = import_atst_frame(stages / "pretrain_atst/atst_frame.safetensors")
    assert report.layout == "bare ATST-Frame encoder"
    state = loaded.state_dict()
    assert all(
        bool((state[name.removeprefix(encoder)] == pretrained[name]).all()) for name in pretrained if encoder in name
    )
