"""Only what happens on this side of the transport; the Hub itself is played by a server in the tests of hub.py."""

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors
from speechbrain.utils.fetching import FetchConfig

from pmam_plugin import SoundEventDetector, load_model
from pmam_plugin.checkpoints import hub_folder, save_model
from pmam_plugin.checkpoints.hub_folder import fetch_model
from pmam_plugin.errors import InputError
from pmam_plugin.hub import write_companions
from pmam_plugin.integrations.speechbrain import PretrainedDetector
from pmam_plugin.upstream import UpstreamExpert
from pmam_plugin.upstream.registry import pmam_hub
from tests.tiny_models import tiny_detector


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_model(tmp_path / "model", tiny_detector())


def fake(monkeypatch, answer) -> list[dict]:
    calls: list[dict] = []

    def snapshot_download(repository, **arguments):
        calls.append({"repository": repository, **arguments})
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_a_folder_is_taken_as_it_is(folder, monkeypatch):
    calls = fake(monkeypatch, RuntimeError("must not be called"))
    assert fetch_model(folder) == folder
    assert fetch_model(str(folder / "config.json")) == folder
    assert calls == []


def test_a_local_folder_wins_over_a_repository_of_the_same_name(folder, monkeypatch):
    calls = fake(monkeypatch, RuntimeError("must not be called"))
    monkeypatch.chdir(folder.parent.parent)
    assert fetch_model(f"{folder.parent.name}/model").resolve() == folder
    assert calls == []


def test_only_the_three_files_are_fetched_at_the_revision(folder, monkeypatch):
    calls = fake(monkeypatch, folder)
    assert fetch_model("org/name", revision="v1", token="secret") == folder
    assert [calls[0][name] for name in ("repository", "revision", "token")] == ["org/name", "v1", "secret"]
    assert calls[0]["allow_patterns"] == ["config.json", "model.safetensors", "README.md"]


ENTRIES = {
    "detector": lambda source, **fetching: SoundEventDetector.from_pretrained(source, device="cpu", **fetching),
    "module": load_model,
    "s3prl": lambda source, **fetching: UpstreamExpert(source, **fetching),
    "s3prl by name": lambda source, **fetching: pmam_hub(source, **fetching),
    "SpeechBrain": lambda source, **fetching: PretrainedDetector.from_hparams(source, **fetching),
}
entries = pytest.mark.parametrize("load", [pytest.param(load, id=name) for name, load in ENTRIES.items()])


@entries
def test_where_files_are_kept_and_whether_to_fetch_pass_through_every_entry(load, folder, monkeypatch, tmp_path):
    write_companions(folder)
    calls = fake(monkeypatch, folder)
    asked = {"token": "secret", "cache_dir": tmp_path, "local_files_only": True, "force_download": True}
    load("org/name", **asked)
    assert [{name: call[name] for name in asked} for call in calls] == [asked]


@entries
def test_every_entry_says_that_the_cache_is_incomplete(load, folder, monkeypatch):
    write_companions(folder)
    (folder / "model.safetensors").unlink()
    fake(monkeypatch, folder)
    with pytest.raises(InputError, match=r"^org/name: the cache holds only a part .*model\.safetensors.* connect once"):
        load("org/name", local_files_only=True)


@entries
def test_every_entry_names_a_mistyped_folder_as_such(load, folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    fake(monkeypatch, errors.LocalEntryNotFoundError("offline"))
    with pytest.raises(InputError, match=rf"no folder here \({folder.parent.name} holds model\)"):
        load(f"{folder.parent.name}/modle")
    with pytest.raises(InputError, match=r"^\./modle: no such model folder"):
        load("./modle")


def test_speechbrains_own_settings_of_a_download_mean_the_same(folder, monkeypatch, tmp_path):
    write_companions(folder)
    calls = fake(monkeypatch, folder)
    theirs = FetchConfig(token=True, revision="v1", allow_network=False, huggingface_cache_dir=str(tmp_path))
    PretrainedDetector.from_hparams("org/name", fetch_config=theirs)
    expected = {"token": True, "revision": "v1", "local_files_only": True, "cache_dir": str(tmp_path)}
    assert expected.items() <= calls[0].items()
    assert "hyperparams.yaml" in calls[0]["allow_patterns"]


def test_s3prls_refresh_fetches_again(folder, monkeypatch):
    calls = fake(monkeypatch, folder)
    pmam_hub("org/name@v1", refresh=True)
    assert (calls[0]["force_download"], calls[0]["revision"]) == (True, "v1")


def test_a_cache_that_holds_a_part_is_told_from_a_repository_that_lacks_it(folder, monkeypatch):
    (folder / "model.safetensors").unlink()
    fake(monkeypatch, folder)
    with pytest.raises(InputError, match=r"only a part of it \(model\.safetensors is missing\); connect once"):
        fetch_model("org/name", local_files_only=True)
    for answer, said in ((True, "holds only a part"), (False, "the repository has no model.safetensors")):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub, "file_exists", lambda *_, there=answer, **__: there)
        with pytest.raises(InputError, match=said):
            fetch_model("org/name")


@pytest.mark.parametrize("name", ["./missing", "/missing/model", "missing", "a/b/c", "https://example.org/x"])
def test_what_is_neither_folder_nor_repository_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake(monkeypatch, RuntimeError("must not be called"))
    with pytest.raises(InputError, match="no such model folder"):
        fetch_model(name)


def _http(kind: type[Exception]) -> Exception:
    """As the transport raises it, but without a response, whose type differs from version to version."""
    error = kind.__new__(kind)
    error.args = ("first line\nsecond line",)
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (_http(errors.RepositoryNotFoundError), "neither a folder here nor a repository"),
        (_http(errors.GatedRepoError), "access has to be requested"),
        (_http(errors.RevisionNotFoundError), "no such revision"),
        (_http(errors.HfHubHTTPError), "cannot be fetched"),
        (errors.LocalEntryNotFoundError("offline"), "the Hub cannot be reached"),
        (errors.OfflineModeIsEnabled("offline"), "the Hub cannot be reached"),
        (OSError("disk full\nreally"), "disk full really"),
    ],
)
def test_each_failure_is_one_sentence(error, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    fake(monkeypatch, error)
    with pytest.raises(InputError, match=message) as caught:
        fetch_model("org/name", revision="main")
    assert str(caught.value).startswith("org/name@main: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_repository_without_a_model_folder_is_refused(name, folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (folder / name).unlink()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "file_exists", lambda *_, **__: False)
    fake(monkeypatch, folder)
    with pytest.raises(InputError, match=rf"org/name: the repository has no {name}"):
        fetch_model("org/name")


def test_the_built_in_model_is_found_or_its_absence_said(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(hub_folder, "_BUILTIN_FOLDER", folder)
    assert fetch_model("builtin") == folder
    monkeypatch.setattr(hub_folder, "_BUILTIN_FOLDER", tmp_path / "none")
    with pytest.raises(InputError, match="no built-in model"):
        fetch_model("builtin")
