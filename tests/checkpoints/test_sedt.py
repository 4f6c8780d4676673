from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from pmam_plugin.checkpoints.sedt import (
    import_any_sedt,
    import_sedt,
    import_sedt_tagger,
    import_sp_sedt,
    load_sp_sedt,
)
from pmam_plugin.config import from_config, to_config
from pmam_plugin.errors import InputError
from pmam_plugin.models.sedt import pretrained_part
from pmam_plugin.models.sp_sedt import crop_patches
from tests.checkpoints.sedt_reference import Layout, resnet_forward, sedt_forward, sp_sedt_forward

LABELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def layout() -> Layout:
    return Layout()


@pytest.fixture(scope="module")
def sedt_state(layout: Layout) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return layout.sedt()


def save(path: Path, state: dict[str, torch.Tensor], **extra: object) -> Path:
    torch.save({"model": {"state_dict": state}, "optimizer": {}, "epoch": 3, **extra}, path)
    return path


def compare(model, state: dict[str, torch.Tensor], frames: int, tolerance: float = 1e-4) -> None:
    spectrogram = torch.randn(2, 64, frames)
    model.span_frames = frames  # the reference counts positions and boxes within whatever it is given
    with torch.no_grad():
        output = model({"mel": spectrogram}).output
    for clip in range(2):
        expected = sedt_forward(state, spectrogram[clip])
        torch.testing.assert_close(output.layer_logits[:, clip], expected["logits"], atol=tolerance, rtol=0)
        torch.testing.assert_close(output.layer_boxes[:, clip], expected["boxes"], atol=tolerance, rtol=0)
        torch.testing.assert_close(output.tags()[clip], expected["tags"], atol=tolerance, rtol=0)


def test_an_imported_model_says_what_the_reference_says(tmp_path: Path, sedt_state) -> None:
    model, report = import_sedt(save(tmp_path / "sedt.pt", sedt_state), LABELS)
    compare(model, sedt_state, frames=70)
    assert not model.training
    assert report.loaded == len(sedt_state) + 1  # the query embedding becomes two tensors
    assert report.renamed["input_proj.weight"] == "network.input_projection.weight"


@pytest.mark.slow
def test_the_full_size_layout_has_374_tensors_and_the_same_outputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    full = Layout((3, 4, 6, 3), True, dim=256, encoder=3, decoder=3, feedforward=2048, queries=20, classes=10)
    state = full.sedt()
    assert len(state) == 374
    assert state["transformer.encoder.layers.0.self_attn.in_proj_weight"].shape == (768, 256)
    model, report = import_sedt(save(tmp_path / "sedt.pt", state))
    compare(model, state, frames=496)
    assert model.labels[0] == "Alarm_bell_ringing"
    assert report.layout == "SEDT"


def test_an_imported_pretext_says_what_the_reference_says(tmp_path: Path, layout: Layout) -> None:
    torch.manual_seed(1)
    state = layout.sp_sedt()
    model, report = import_sp_sedt(save(tmp_path / "sp.pt", state), patches=3)
    assert report.loaded == len(state)
    assert model.legacy_double_query
    spectrogram, bounds = torch.randn(2, 64, 70), torch.tensor([[[0, 30], [10, 60], [40, 70]]] * 2)
    model.span_frames = 70
    with torch.no_grad():
        output = model({"mel": spectrogram}, bounds=bounds).output
    assert output.layer_features is not None
    patches = crop_patches(spectrogram, bounds, model.patch_frames)
    for clip in range(2):
        expected = sp_sedt_forward(state, spectrogram[clip], patches[clip])
        torch.testing.assert_close(output.layer_logits[:, clip], expected["logits"], atol=1e-4, rtol=0)
        torch.testing.assert_close(output.layer_boxes[:, clip], expected["boxes"], atol=1e-4, rtol=0)
        torch.testing.assert_close(output.layer_features[:, clip], expected["features"], atol=1e-4, rtol=0)


def test_imported_pre_training_starts_a_detector(tmp_path: Path, layout: Layout, sedt_state) -> None:
    pretext, _ = import_sp_sedt(save(tmp_path / "sp.pt", layout.sp_sedt()), patches=3)
    model, _ = import_sedt(save(tmp_path / "sedt.pt", sedt_state), LABELS)
    model.load_pretrained(pretrained_part(pretext))
    assert torch.equal(model.network.event_queries, pretext.network.event_queries)


def test_a_network_is_filled_with_published_pre_training(tmp_path: Path, layout: Layout) -> None:
    source = save(tmp_path / "sp.pt", layout.sp_sedt())
    pretext, _ = import_sp_sedt(source, patches=3)
    network = from_config(to_config(pretext.network))
    report = load_sp_sedt(network, source)
    assert report.layout == "SP-SEDT"
    expected = pretext.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    smaller = from_config({**to_config(pretext.network), "queries": 2})
    with pytest.raises(InputError, match="event_queries is float32 of shape"):
        load_sp_sedt(smaller, source)


def test_an_imported_tagger_has_the_references_backbone(tmp_path: Path, layout: Layout) -> None:
    torch.manual_seed(2)
    state = layout.tagger()
    torch.save({"model": state, "epoch": 1}, tmp_path / "at.pt")
    model, _ = import_sedt_tagger(tmp_path / "at.pt", LABELS)
    spectrogram = torch.randn(1, 64, 40)
    maps = resnet_forward(state, "body.", spectrogram[0].T[None])
    hidden = (maps.amax(dim=(1, 2)) @ state["weak_label.0.weight"].T + state["weak_label.0.bias"]).relu()
    expected = hidden @ state["weak_label.2.weight"].T + state["weak_label.2.bias"]
    with torch.no_grad():
        torch.testing.assert_close(model({"mel": spectrogram})[0], expected, atol=1e-4, rtol=1e-4)


def test_one_command_takes_all_three_kinds_of_file(tmp_path: Path, layout: Layout, sedt_state) -> None:
    for state, labels, kind in (
        (sedt_state, LABELS, "SEDT"),
        (layout.sp_sedt(), None, "SPSEDT"),
        (layout.tagger(), LABELS, "AudioTagger"),
    ):
        model, _ = import_any_sedt(save(tmp_path / "x.pt", state), labels)
        assert type(model).__name__ == kind
    with pytest.raises(InputError, match="has no classes; leave the labels out"):
        import_any_sedt(save(tmp_path / "x.pt", layout.sp_sedt()), ["Dog"])


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"model": {"state_dict": s}}])
def test_every_nesting_and_a_distributed_prefix_are_read(tmp_path: Path, sedt_state, wrap) -> None:
    prefixed = {f"module.{name}": value for name, value in sedt_state.items()}
    torch.save(wrap(prefixed), tmp_path / "sedt.pt")
    model, _ = import_sedt(tmp_path / "sedt.pt", LABELS)
    assert torch.equal(model.tag_head.bias, sedt_state["weak_class_embed.bias"])


def test_the_averaged_weights_of_a_semi_supervised_run_can_be_taken(tmp_path: Path, sedt_state) -> None:
    teacher = {name: value + 1 for name, value in sedt_state.items()}
    path = save(tmp_path / "semi.pt", sedt_state, ema_model=teacher, args=argparse.Namespace(lr=1e-4))
    assert torch.equal(import_sedt(path, LABELS, teacher=True)[0].tag_head.bias, teacher["weak_class_embed.bias"])
    assert torch.equal(import_sedt(path, LABELS)[0].tag_head.bias, sedt_state["weak_class_embed.bias"])


def test_band_statistics_reach_the_front_end(tmp_path: Path, sedt_state) -> None:
    mean, std = torch.randn(64).double(), torch.rand(64).double() + 0.5
    path = tmp_path / "dcase.json"
    path.write_text(json.dumps({"mean_": mean.tolist(), "mean_of_square_": (std**2 + mean**2).tolist()}))
    model, _ = import_sedt(save(tmp_path / "sedt.pt", sedt_state), LABELS, statistics=path)
    mel = model.frontend.front_ends["mel"]
    torch.testing.assert_close(mel.mean, mean.float())
    torch.testing.assert_close(mel.std, std.float())
    path.write_text(json.dumps({"mean_": [0], "mean_of_square_": [1]}))
    with pytest.raises(InputError, match="bands"):
        import_sedt(tmp_path / "sedt.pt", LABELS, statistics=path)
