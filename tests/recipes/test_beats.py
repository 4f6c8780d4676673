"""Experiments on BEATs, whose layers are few and narrow here."""

import json

import pytest
import torch
from safetensors.torch import load_file

from pmam_plugin.checkpoints import load_model
from tests.checkpoints.beats_files import SMALL, published_tensors
from tests.recipes.tiny import flags, run_recipe
from tests.support import ROOT

DEPTH = 9  # so that there is a block among those of the top
NARROW = f"depth: {DEPTH}, dim: 32, heads: 2, patch_dim: 8, position_kernel: 8, layer: {DEPTH}"
CHANGES = {
    "beats": f"""
beats: {{{NARROW}}}
cnn: {{channels: [4, 4, 4, 4, 4, 4, 4]}}
backbone:
    encoder: {{dim: 8}}
    context: {{input_dim: 8, hidden: 8}}
detector:
    head: {{dim: 16}}
finetune_1:
    plan: {{batch: {{strong: 2, weak: 2, unlabelled: 2}}}}
""",
    "pmam_beats": f"""
encoder:
    transformer: {{{NARROW}, pooling_heads: 2}}
    cnn: {{channels: [4, 8], pooling: [[2, 8], [2, 16]]}}
    dim: 16
context: {{dim: 16, depth: 1, heads: 2}}
detector:
    head: {{dim: 16, token_dim: 32, tag_heads: 2}}
number_of_prototypes: 4
iterations: 1
first_layer: block_1
em_iterations: 3
pretrain: {{tag_heads: 2, lora: {{blocks: [8], rank: 2, alpha: 1.0}}}}
pretrain_batch: {{strong: 2, weak: 2, unlabelled: 2}}
pretrain_epochs: 1
pretrain_steps: 2
finetune_2_epochs: 1
batch: {{strong: 2, weak: 2, unlabelled: 2}}
""",
}


def run(name, corpus, folder, checkpoint):
    (folder / "narrow.yaml").write_text(f"base: {ROOT}/hparams/{name}.yaml\n{CHANGES[name]}")
    settings = {"data_folder": corpus, "output_folder": folder / "run", "beats_checkpoint": checkpoint}
    settings |= {"finetune_1_epochs": 1, "finetune_steps": 1, "bootstrap": 5, "device": "cpu", "precision": "fp32"}
    return run_recipe([str(folder / "narrow.yaml"), *flags(settings)])


@pytest.mark.parametrize("name", CHANGES)
def test_it_starts_from_the_published_file_and_ends_with_a_detector(name, corpus, tmp_path):
    published = published_tensors(**{**SMALL, "depth": DEPTH})
    cfg = {"deep_norm": True, "relative_position_embedding": True, "gru_rel_pos": True}
    torch.save({"cfg": cfg, "model": published}, tmp_path / "beats.pt")
    done = run(name, corpus, tmp_path, tmp_path / "beats.pt")
    assert done.returncode == 0, done.stderr[-3000:]
    stages = json.loads((tmp_path / "run" / "metrics.json").read_text())["stages"]
    assert f"{10 + 20 * DEPTH} tensors loaded" in stages["load_weights"]["report"]
    model = load_model(tmp_path / "run" / "model").model
    assert model.frame_rate == (25.0 if name == "pmam_beats" else 15.625)
    trained = load_file(tmp_path / "run" / "stages" / "load_weights" / "backbone.safetensors")
    place = "encoder.transformer.transformer." if name == "pmam_beats" else "encoder.atst.transformer."
    published_mlp = published["encoder.layers.0.fc1.weight"]
    torch.testing.assert_close(trained[f"{place}blocks.0.mlp.fc1.weight"], published_mlp)
    top = f"{place}blocks.8.attn.qkv.weight"
    now = model.backbone.state_dict()[top]
    assert torch.equal(now, trained[top]) == (name == "beats"), "frozen there, adapted here"
