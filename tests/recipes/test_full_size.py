"""The paper's configuration at full size takes real optimiser steps in every stage, on a CPU."""

import json

import pytest
import torch
from safetensors.torch import load_file

from pmam_plugin.demo.soundscapes import Counts, build_corpus
from tests.official_passt import OfficialPaSST
from tests.recipes.tiny import flags, run_recipe


@pytest.mark.slow
def test_every_stage_of_the_paper_trains_at_full_size(tmp_path):
    corpus, output = tmp_path / "corpus", tmp_path / "run"
    # Clips a little longer than a sliding window, so that there are several windows but few seconds to encode.
    counts = Counts(strong=1, weak=1, unlabelled=2, selection=1, validation=1)
    build_corpus(corpus, counts, seed=3, seconds=5.5, sample_rate=32000)
    torch.manual_seed(0)
    official = OfficialPaSST().state_dict()
    assert len(official) == 159
    torch.save(
        {name: tensor + 0.02 * torch.randn_like(tensor) for name, tensor in official.items()}, tmp_path / "passt.pt"
    )
    one = "{strong: 1, weak: 1, unlabelled: 1}"
    settings = {
        "data_folder": corpus,
        "output_folder": output,
        "prepare": "{clip_seconds: 5.5}",
        "passt_checkpoint": tmp_path / "passt.pt",
        "pretrain_batch": one,
        "batch": one,
        "pretrain_steps": 1,
        "finetune_steps": 1,
        "pretrain_epochs": 1,
        "finetune_1_epochs": 1,
        "finetune_2_epochs": 1,
        "em_iterations": 3,
        "bootstrap": 5,
        "device": "cpu",
    }
    done = run_recipe(["hparams/pmam.yaml", *flags(settings), "--debug", "--debug_persistently"], threads=2)
    assert done.returncode == 0, done.stderr[-3000:]

    def weights(stage, name="backbone"):
        return load_file(output / "stages" / stage / f"{name}.safetensors")

    def changed(before, after, pattern):
        names = [name for name in before if pattern in name and before[name].is_floating_point()]
        assert names
        return [name for name in names if not torch.equal(before[name], after[name])]

    start, first, second = weights("load_weights"), weights("pretrain_1"), weights("pretrain_2")
    assert torch.equal(
        start["encoder.transformer.transformer.blocks.9.attn.qkv.weight"],
        torch.load(tmp_path / "passt.pt")["blocks.9.attn.qkv.weight"],
    )
    for before, after in ((start, first), (first, second)):
        assert not any("lora" in name for name in after)
        assert not changed(before, after, "blocks.3."), "blocks below 8 are frozen"
        assert changed(before, after, "blocks.9.attn.qkv.weight"), "LoRA trains the top blocks and is merged"
        assert changed(before, after, "context.")
        assert changed(before, after, "encoder.cnn.")
    heads, everything = weights("finetune_1", "best_student"), weights("finetune_2", "best_student")
    inside = {name.removeprefix("backbone."): tensor for name, tensor in heads.items()}
    assert not changed(second, inside, "context."), "fine-tuning 1 leaves the body alone"
    assert changed(heads, everything, "blocks.3.mlp")
    assert changed(heads, everything, "context.")
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["stages"]["estep_1"]["components"] == 30
    assert set(metrics["test"]) == {"student", "teacher"}
