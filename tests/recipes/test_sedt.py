"""SEDT, SP-SEDT and CTrans, each as a tiny run, and the published sizes built from their YAML."""

import itertools
import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from pmam_plugin import SoundEventDetector
from pmam_plugin.checkpoints import load_model
from tests.recipes.tiny import SETTINGS, flags, run_recipe

COMMON = {name: SETTINGS[name] for name in ("seed", "device", "precision", "bootstrap")}
SEDT = {
    "dim": "16",
    "widths": "[8, 8, 16, 16]",
    "encoder_layers": "1",
    "decoder_layers": "2",
    "tagger_epochs": "1",
    "tagger_steps": "3",
    "tagger_batch": "{strong: 2, weak: 2}",
    "finetune_1_epochs": "2",
    "finetune_2_epochs": "2",
    "finetune_steps": "5",
    "batch": "{strong: 2, weak: 2, unlabelled: 1}",
}
PATCHES = {"patch_epochs": "1", "patch_steps": "10", "patch_batch": "{unlabelled: 2}"}
TINY = {
    "sp_sedt_small": {
        **SEDT,
        **PATCHES,
        "skip_stages": "[]",
        "consistency_weight": "1.0",
        "evaluate": "{events: model}",
    },
    "sedt_small": SEDT,
    "sedt": {},
    "sp_sedt": {},
    "ctrans_small": {"encoder_layers": "1", "finetune_1_epochs": "2", "finetune_steps": "5"},
}


def run(name, corpus, output, **changes):
    settings = {"data_folder": corpus, "output_folder": output, **COMMON, **TINY[name], **changes}
    return run_recipe([f"hparams/{name}.yaml", *flags(settings)])


def record(output, stage):
    return json.loads((output / "stages" / stage / "record.json").read_text())


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """SP-SEDT with every stage: tagging, patches, fine-tuning with a mean teacher, one-to-many."""
    output = tmp_path_factory.mktemp("runs") / "sp_sedt"
    done = run("sp_sedt_small", corpus, output)
    assert done.returncode == 0, done.stderr[-3000:]
    return output


def test_sp_sedt_leaves_figures_and_a_detector_of_any_length(whole, corpus):
    metrics = json.loads((whole / "metrics.json").read_text())
    assert set(metrics["test"]) == {"student", "teacher"}
    assert 0 <= metrics["test"]["student"]["event_f1_macro"] <= 1
    for figures in metrics["events"].values():  # of the model's own list, which has no scores to draw curves from
        assert 0 <= figures["event_f1_macro"] <= 1
        assert "psds1" not in figures
    assert set(metrics["events"]) == {"student", "teacher"}
    assert "own events" in (whole / "report.html").read_text()
    detector = SoundEventDetector.from_pretrained(whole / "model")
    clip = next((corpus / "audio/validation/validation").glob("*.wav"))
    assert list(detector.detect(clip).columns) == ["filename", "onset", "offset", "event_label", "score"]


def test_each_stage_trains_its_part_and_hands_it_on(whole):
    measured, tagged, patched = (
        load_file(whole / "stages" / stage / "pretrained.safetensors")
        for stage in ("measure_bands", "pretrain_tagger", "pretrain_patches")
    )
    tuned = load_file(whole / "stages/finetune_1/best_student.safetensors")
    backbone, decoder = "network.backbone.body.conv1.0.weight", "network.decoder.layers.0.linear1.weight"
    assert float(measured["frontend.front_ends.mel.std"].min()) > 1, "bands are measured in decibels"
    for later in (tagged, patched, tuned):
        assert bool((later["frontend.front_ends.mel.mean"] == measured["frontend.front_ends.mel.mean"]).all())
    assert not bool((tagged[backbone] == measured[backbone]).all())
    assert bool((tagged[decoder] == measured[decoder]).all())
    assert bool((patched[backbone] == tagged[backbone]).all()), "the pretext task leaves the backbone alone"
    running = "network.backbone.body.bn1.running_mean"
    assert bool((patched[running] == tagged[running]).all()), "and its statistics too"
    assert not bool((patched[decoder] == tagged[decoder]).all())
    assert not bool((tuned[backbone] == patched[backbone]).all())
    assert "mean_average_precision" in record(whole, "pretrain_tagger")["curves"]
    assert {"patch_iou", "patch_class", "patch_l1", "patch_feature"} <= record(whole, "pretrain_patches")[
        "curves"
    ].keys()


def test_fine_tuning_records_every_term_of_the_set_loss(whole):
    terms = {"set_class", "set_l1", "set_iou", "set_clip", "set_auxiliary", "consistency"}
    for stage in ("finetune_1", "finetune_2"):
        assert terms <= record(whole, stage)["curves"].keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sedt_small", "ctrans_small"])
def test_the_others_run_by_the_same_command(name, corpus, tmp_path):
    done = run(name, corpus, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(json.loads((tmp_path / "metrics.json").read_text())["test"]) == {"student", "teacher"}
    load_model(tmp_path / "model")
    assert not (tmp_path / "stages/pretrain_patches").exists()


def test_imagenet_weights_that_cannot_be_had_are_one_sentence(corpus, tmp_path):
    sizes = {"resnet": "resnet10t", "dim": "16", "encoder_layers": "1", "decoder_layers": "1"}
    done = run(
        "sedt", corpus, tmp_path, **sizes, batch="{strong: 1, weak: 1}", checkpoint=tmp_path / "none.safetensors"
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "none.safetensors" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_the_published_size_starts_from_imagenet_and_updates_in_every_stage(corpus, tmp_path):
    torch.manual_seed(0)
    # With its last norms at zero, as timm starts them, a frozen block would be silent; trained ones are not.
    weights = timm.create_model("resnet50", zero_init_last=False).state_dict()
    save_file(weights, tmp_path / "resnet50.safetensors")
    once = {"tagger_epochs": 1, "tagger_steps": 1, "patch_epochs": 1, "patch_steps": 1, "finetune_steps": 1}
    batches = {"tagger_batch": "{weak: 2}", "patch_batch": "{unlabelled: 1}", "batch": "{strong: 1, weak: 1}"}
    flags = {**once, **batches, "finetune_1_epochs": 1}
    done = run("sp_sedt", corpus, tmp_path / "run", **flags, imagenet_checkpoint=tmp_path / "resnet50.safetensors")
    assert done.returncode == 0, done.stderr[-3000:]
    states = [
        load_file(tmp_path / "run/stages" / name)
        for name in (
            "load_weights/pretrained.safetensors",
            "pretrain_tagger/pretrained.safetensors",
            "pretrain_patches/pretrained.safetensors",
            "finetune_1/best_student.safetensors",
        )
    ]
    stem, deep = "network.backbone.body.conv1.weight", "network.backbone.body.layer4.0.conv2.weight"
    query, norm = "network.event_queries", "network.backbone.body.bn1.running_mean"
    assert bool((states[0][stem] == weights["conv1.weight"]).all())

    def changes(name):
        return [not bool((before[name] == after[name]).all()) for before, after in itertools.pairwise(states)]

    assert changes(stem) == [True, False, False], "fine-tuning leaves the stem as tagging made it"
    assert changes(deep) == [True, False, True]
    assert changes(query) == [False, True, True]
    assert changes(norm) == [False, False, False], "ImageNet's statistics stay"
