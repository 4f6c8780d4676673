import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pmam_plugin.checkpoints import load_model, load_module, load_weights, save_model
from pmam_plugin.encoders.atst import ATSTFrame
from pmam_plugin.encoders.base import Windows
from pmam_plugin.errors import InputError
from pmam_plugin.postprocessing import PostProcessing, Scoring
from tests.tiny_models import LABELS, tiny_detector


@pytest.fixture
def folder(tmp_path) -> Path:
    rule = PostProcessing("soft", {"bell": 0.1, "dog": 0.2, "speech": 0.3})
    return save_model(tmp_path / "model", tiny_detector(), Scoring(rule), {"seed": 3, "data": "none"})


def edit(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def edit_weights(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_a_folder_holds_configuration_weights_and_card(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["format_version"] == 1
    assert config["architecture"] == "FrameDetector"
    assert config["labels"] == list(LABELS)
    assert (config["sample_rate"], config["clip_seconds"], config["frame_rate"]) == (16_000, 2.0, 25.0)
    assert config["provenance"] == {"seed": 3, "data": "none"}
    card = (folder / "README.md").read_text()
    assert "bell, dog, speech" in card
    assert "pmam detect" in card
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_what_was_saved_comes_back(folder):
    model, loaded = tiny_detector(), load_model(folder)
    assert not loaded.model.training
    features = model.frontend(torch.randn(2, 32_000))
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model(features).frames, model(features).frames, atol=0, rtol=0)
    assert loaded.scoring.postprocessing.median_seconds == {"bell": 0.1, "dog": 0.2, "speech": 0.3}
    assert loaded.config["architecture"] == "FrameDetector"


def test_a_file_of_the_folder_names_it_too(folder):
    assert load_model(folder / "config.json").model.labels == LABELS
    assert load_model(str(folder / "model.safetensors")).model.labels == LABELS


def test_options_and_post_processing_may_be_absent(tmp_path):
    loaded = load_model(save_model(tmp_path, tiny_detector()))
    assert (loaded.config["postprocessing"], loaded.config["options"], loaded.scoring.options) == (None, {}, {})
    assert (loaded.scoring.postprocessing.threshold, loaded.scoring.postprocessing.weak_mask) == (0.5, "none")
    loaded = load_model(save_model(tmp_path, tiny_detector(), Scoring(windows=Windows(1.0), temperature=2)))
    assert loaded.scoring.options == {"windows": Windows(1.0), "temperature": 2}
    edit(tmp_path, options={}, postprocessing=None, provenance=None)
    assert load_model(tmp_path).scoring.options == {}


def test_float16_halves_the_parameters_and_keeps_the_statistics(tmp_path):
    model = tiny_detector()
    whole = save_model(tmp_path / "whole", model)
    half = save_model(tmp_path / "half", model, half=True)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (half, whole)]
    assert sizes[0] < 0.75 * sizes[1]
    stored = load_file(half / "model.safetensors")
    assert stored["head.classifier.weight"].dtype == torch.float16
    assert stored["backbone.encoder.stack.stages.0.norm.running_var"].dtype == torch.float32
    loaded = load_model(half).model
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(loaded.head.classifier.weight, model.head.classifier.weight, atol=1e-3, rtol=1e-3)


def test_what_does_not_fit_float16_or_is_not_finite_is_not_saved(tmp_path):
    model = tiny_detector()
    model.head.classifier.bias.data[0] = 1e6
    with pytest.raises(InputError, match=r"head\.classifier\.bias is not finite in float16"):
        save_model(tmp_path / "model", model, half=True)
    model.head.classifier.bias.data[0] = float("nan")
    with pytest.raises(InputError, match="not finite in float32"):
        save_model(tmp_path / "model", model)
    assert not (tmp_path / "model").exists()


def test_saving_again_replaces_the_files_and_leaves_others_alone(folder):
    (folder / "notes.txt").write_text("keep")
    save_model(folder, tiny_detector(seed=1))
    assert (folder / "notes.txt").read_text() == "keep"
    torch.testing.assert_close(load_model(folder).model.state_dict(), tiny_detector(seed=1).state_dict())


def test_shared_and_strided_parameters_are_stored(tmp_path):
    model = tiny_detector()
    model.head.attention.weight = model.head.classifier.weight
    loaded = load_model(save_model(tmp_path, model)).model
    torch.testing.assert_close(loaded.head.attention.weight, model.head.classifier.weight)


def test_an_encoder_alone_can_be_saved_but_is_no_detector(tmp_path):
    encoder = ATSTFrame(dim=16, depth=1, heads=2)
    save_model(tmp_path, encoder)
    assert "pmam detect" not in (tmp_path / "README.md").read_text()
    torch.testing.assert_close(load_module(tmp_path).model.state_dict(), encoder.state_dict())
    with pytest.raises(InputError, match="a part of a model"):
        load_model(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises((InputError, PermissionError), match="model"):
        save_model(tmp_path / "model", tiny_detector())


def test_refused_weights_leave_the_model_as_it_was(folder):
    model = tiny_detector(seed=5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    edit_weights(folder, lambda tensors: tensors.update(extra=torch.ones(2)))
    with pytest.raises(InputError):
        load_weights(model, folder / "model.safetensors")
    torch.testing.assert_close(model.state_dict(), before)


class _Malicious:
    def __reduce__(self):
        return (Path.touch, (Path(os.environ["PMAM_TEST_MARK"]),))


def test_a_pickle_named_as_weights_does_nothing(folder, tmp_path, monkeypatch):
    mark = tmp_path / "executed"
    monkeypatch.setenv("PMAM_TEST_MARK", str(mark))
    pickle.loads(pickle.dumps(_Malicious()))
    assert mark.exists()  # it does work where pickles are loaded
    mark.unlink()
    for content in (pickle.dumps(_Malicious()), pickle.dumps({"weight": _Malicious()})):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(InputError, match="not a whole safetensors file"):
            load_model(folder)
    torch.save({"weight": _Malicious()}, folder / "model.safetensors")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_model(folder)
    assert not mark.exists()


def test_a_configuration_with_code_in_it_is_only_text(folder, tmp_path):
    mark = tmp_path / "executed"
    edit(folder, model={"type": f"!apply:os.mkdir ['{mark}']"}, architecture=f"!apply:os.mkdir ['{mark}']")
    with pytest.raises(InputError, match="unknown architecture"):
        load_model(folder)
    assert not mark.exists()
