import json

import pytest

from pmam_plugin.checkpoints import save_model
from pmam_plugin.encoders.atst import ATSTFrame
from pmam_plugin.postprocessing import PostProcessing, Scoring
from tests.support import run
from tests.tiny_models import tiny_detector


@pytest.fixture
def model(tmp_path) -> str:
    rule = PostProcessing("soft", {"bell": 0.1, "dog": 0.2, "speech": 0.3})
    origin = {
        "seed": 3,
        "settings": {"dim": 16},
        "note": "Only \x1b[31mbells",
        "metrics": {"psds1": 0.125, "per_class": {}},
    }
    return str(save_model(tmp_path / "model", tiny_detector(), Scoring(rule), origin))


def test_a_model_is_described_in_lines(model, capsys):
    assert run("info", model) == 0
    text = capsys.readouterr().out
    for fact in (
        "FrameDetector",
        "bell, dog, speech",
        "16000",
        "weak_mask=soft",
        "median_seconds=(bell=0.1",
        "context_1",
    ):
        assert fact in text
    facts = dict(line.split("  ", 1) for line in text.splitlines())
    found = [facts[name].strip() for name in ("seed", "settings", "figures")]
    assert found == ["3", "dim=16", "PSDS1: 12.5 %"]
    assert next(iter(facts)) == "note"
    assert "per_class" not in text


def test_a_configuration_cannot_command_the_terminal(model, capsys):
    assert run("info", model) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("Only ?[31mbells")


def test_a_model_is_described_in_json(model, capsys):
    assert run("info", model, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] == sum(parameter.numel() for parameter in tiny_detector().parameters())
    assert facts["labels"] == ["bell", "dog", "speech"]


def test_an_encoder_alone_is_described_too(tmp_path, capsys):
    save_model(tmp_path, ATSTFrame(dim=16, depth=1, heads=2))
    assert run("info", tmp_path) == 0
    assert "ATSTFrame" in capsys.readouterr().out
