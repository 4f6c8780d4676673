"""Only what happens on this side of the transport; the Hub itself is played by a server in the tests of hub.py."""

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

from pmam_plugin.checkpoints import hub_folder, save_model
from pmam_plugin.checkpoints.hub_folder import fetch_model
from pmam_plugin.errors import InputError
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
    assert calls == [
        {
            "repository": "org/name",
            "revision": "v1",
            "token": "secret",
            "allow_patterns": ["config.json", "model.safetensors", "README.md"],
        }
    ]


def test_where_files_are_kept_and_whether_to_fetch_are_passed_on(folder, monkeypatch, tmp_path):
    calls = fake(monkeypatch, folder)
    fetch_model("org/name", cache_dir=tmp_path, local_files_only=True, force_download=True)
    assert {"cache_dir": tmp_path, "local_files_only": True, "force_download": True}.items() <= calls[0].items()


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


def test_a_mistyped_folder_is_told_what_there_is(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    fake(monkeypatch, errors.LocalEntryNotFoundError("offline"))
    with pytest.raises(InputError, match=rf"no folder here \({folder.parent.name} holds model\)"):
        fetch_model(f"{folder.parent.name}/modle")


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
