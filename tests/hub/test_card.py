"""The card: what the Hub reads from it, and what people do."""

import pytest
import yaml
from huggingface_hub import ModelCard

from pmam_plugin.checkpoints.card import knowledge
from pmam_plugin.files import read_json
from pmam_plugin.hub import model_card, write_companions
from tests.hub_server import WRITE, FakeHub
from tests.upstream.models import dual_detector, write_folder


def test_the_hub_reads_license_tags_and_figures(tmp_path):
    config = read_json(write_folder(tmp_path / "model") / "config.json")
    card = ModelCard(model_card(config, "org/name", "apache-2.0", "DESED validation", ["org/data"]))
    data = card.data
    assert (data.license, data.library_name, data.datasets) == ("apache-2.0", "pmam_plugin", ["org/data"])
    assert {"sound-event-detection", "s3prl", "speechbrain", "FrameDetector"} <= set(data.tags)
    assert data.metrics == ["f1", "psds"]
    figures = {result.metric_name: (result.metric_value, result.dataset_name) for result in data.eval_results}
    assert figures["PSDS1"] == (0.25, "DESED validation")
    assert figures["PSDS2"] == (0.5, "DESED validation")
    assert data.eval_results[0].dataset_type == "desed-validation"


def test_people_read_classes_figures_limits_and_provenance(tmp_path):
    config = read_json(write_folder(tmp_path / "model", dual_detector()) / "config.json")
    text = model_card(config, "org/name")
    assert "bell, dog, speech" in text
    assert "| PSDS1 | 25.0 | 20.0 to 30.0 |" in text
    assert "Measured on: generated tones." in text
    assert "leaves its upper band empty" in text  # a model of 32 kHz
    assert "* seed: 3" in text
    assert 'SoundEventDetector.from_pretrained("org/name")' in text
    assert "$" not in text


def test_what_a_model_knows_is_told_the_surest_first():
    classes = {"dog": {"event_f1": 0.2, "segment_f1": 0.5}, "bell": {"event_f1": 0.61}, "hum": {"psds1": 0.3}}
    told = knowledge({"provenance": {"metrics": {"per_class": classes}}})
    assert told.startswith("bell 61 (0), dog 20 (50); of 100")
    assert knowledge({"provenance": {"metrics": {}}}) == knowledge({}) == ""


def test_a_model_without_figures_claims_none(tmp_path):
    config = read_json(write_folder(tmp_path / "model") / "config.json")
    text = model_card({**config, "provenance": {}})
    front = yaml.safe_load(text.split("---")[1])
    assert "model-index" not in front
    assert "license" not in front
    assert "None were recorded" in text


def test_what_the_run_knew_stands_in_the_card_unless_overridden(tmp_path):
    config = read_json(write_folder(tmp_path / "model") / "config.json")
    classes = {"bell": {"events": 3, "psds1": 0.5, "event_f1": None}, "dog": {"psds1": 0.25, "event_f1": 1.0}}
    config["provenance"] |= {"license": "cc0-1.0", "measured_on": "tones, test", "note": "Only tones.", "data": "DESED"}
    config["provenance"]["metrics"]["per_class"] = classes
    text = model_card(config)
    card = ModelCard(text)
    assert (card.data.license, card.data.eval_results[0].dataset_name) == ("cc0-1.0", "tones, test")
    assert "\n> Only tones.\n" in text
    assert "DESED." in text
    assert "| bell | 50.0 | - |" in text
    assert "pmam_local" in text  # not published yet
    named = ModelCard(model_card(config, "org/name", "mit", "bells")).data
    assert (named.license, named.eval_results[0].dataset_name, named.model_name) == ("mit", "bells", "name")


def test_a_card_that_somebody_wrote_or_edited_is_published_as_it_is(tmp_path):
    from pmam_plugin.hub.transfer import _card

    folder = write_folder(tmp_path / "model")
    config = read_json(folder / "config.json")
    assert 'from_pretrained("org/name")' in _card(folder, config, "org/name", None, None, ())
    written = model_card(config)
    (folder / "README.md").write_text(written)
    assert 'from_pretrained("org/name")' in _card(folder, config, "org/name", None, None, ())
    for mine in ("my own words", written.replace("## Limits", "## Limits\n\n* It fears cats.")):
        (folder / "README.md").write_text(mine)
        assert _card(folder, config, "org/name", None, None, ()) == mine


def test_the_companions_name_our_classes_only(tmp_path):
    folder = write_folder(tmp_path / "model")
    assert [path.name for path in write_companions(folder)] == ["hyperparams.yaml", "expert.py", "requirements.txt"]
    lines = (folder / "hyperparams.yaml").read_text().splitlines()
    named = [line.split("!")[1].split(":", 1) for line in lines if "!new:" in line or "!name:" in line]
    assert named
    assert all(target.startswith(("pmam_plugin.", "speechbrain.utils.")) for _, target in named)
    assert not any("!apply" in line for line in lines)


def test_the_older_s3prl_interface_finds_the_upstream_beside_it(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "model")
    write_companions(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(__import__("sys").modules, "expert", raising=False)
    from expert import UpstreamExpert  # type: ignore[import-not-found]

    expert = UpstreamExpert(ckpt=str(folder / "model.safetensors"), model_config=None, refresh=False)
    assert expert.get_downsample_rates("hidden_states") == 640


def test_the_fake_hub_wants_its_token(tmp_path):
    import urllib.error
    import urllib.request

    with FakeHub() as server:
        request = urllib.request.Request(f"{server.endpoint}/api/repos/create", b'{"name": "x"}', method="POST")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request)
        request.add_header("Authorization", f"Bearer {WRITE}")
        assert urllib.request.urlopen(request).status == 200
