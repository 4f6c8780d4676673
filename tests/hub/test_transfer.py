"""Push and pull over real HTTP, from a small Hub on the loopback device."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from pmam_plugin import SoundEventDetector, hub
from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json, write_json
from tests.hub_server import READ, WRITE, FakeHub, HubClient
from tests.upstream.models import noise, patch_detector, write_folder

PUBLISHED = {
    "README.md",
    "config.json",
    "model.safetensors",
    "hyperparams.yaml",
    "expert.py",
    "requirements.txt",
    ".gitattributes",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def server():
    with FakeHub() as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def client(server, home):
    client = HubClient(server.endpoint, home)
    yield client
    client.close()


def detected(source, revision=None):
    """Events of a fixed waveform, by the model from ``source``."""
    detector = SoundEventDetector.from_pretrained(source, revision=revision, device="cpu")
    return detector.scores(noise(1.0), 16000).to_numpy()


def test_a_pushed_model_comes_back_and_detects_the_same(folder, server, client, tmp_path):
    commit = client(hub.push, folder, "org/round", token=WRITE)
    assert set(server.repositories["org/round"].content(commit)) == PUBLISHED
    pulled = client(hub.pull, "org/round", tmp_path / "pulled")
    assert {path.name for path in pulled.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    for name in ("config.json", "model.safetensors"):
        assert (pulled / name).read_bytes() == (folder / name).read_bytes()
    assert (client(detected, "org/round") == detected(folder)).all()


def test_a_model_in_memory_is_published_and_loaded(client):
    client(hub.push_model, patch_detector(), "org/memory", provenance={"seed": 7}, token=WRITE)
    loaded = client(hub.load_model, "org/memory")
    assert loaded.config["provenance"] == {"seed": 7}
    expected = patch_detector().state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())


def republish(source, repository):
    """What people write who know the Hub from other libraries."""
    detector = SoundEventDetector.from_pretrained(source, device="cpu", token=READ)
    return detector.push_to_hub(repository, token=WRITE, license="mit", dataset="tones", half=True)


def test_a_detector_is_fetched_and_published_by_its_own_methods(folder, server, client, tmp_path):
    client(hub.push, folder, "org/source", private=True, token=WRITE)
    commit = client(republish, "org/source", "org/copy")
    files = server.repositories["org/copy"].content(commit)
    card = ModelCard(files["README.md"].decode()).data
    assert (card.license, card.model_name, card.eval_results[0].dataset_name) == ("mit", "copy", "tones")
    assert len(files["model.safetensors"]) < 0.6 * (folder / "model.safetensors").stat().st_size
    config = json.loads(files["config.json"])
    assert config["provenance"] == read_json(folder / "config.json")["provenance"]
    assert abs(client(detected, "org/copy", commit) - detected(folder)).max() < 0.01


def test_a_saved_detector_is_the_same_again(folder, tmp_path):
    detector = SoundEventDetector.from_pretrained(folder, device="cpu")
    assert detector.save_pretrained(tmp_path / "saved") == tmp_path / "saved"
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "saved" / name).read_bytes() == (folder / name).read_bytes()
    assert "## Limits" in (tmp_path / "saved/README.md").read_text()


def test_a_commit_or_branch_pins_the_model(folder, client, tmp_path):
    first = client(hub.push, folder, "org/pinned", token=WRITE)
    other = patch_detector()
    other.head.classifier.bias.data += 1
    client(hub.push, write_folder(tmp_path / "second", other), "org/pinned", token=WRITE)
    client(hub.push, folder, "org/pinned", revision="old", message="the first again", token=WRITE)
    newest, pinned, branch = (client(detected, "org/pinned", revision) for revision in (None, first, "old"))
    assert (pinned == branch).all()
    assert (newest != pinned).any()


def forbid_connections():
    """As HF_HUB_OFFLINE=1 does when the process starts."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True


def test_a_pinned_model_in_the_cache_is_used_without_the_hub(folder, server, client, home, tmp_path):
    commit = server.add("org/offline", folder)
    first = client(detected, "org/offline", commit)
    cut_off = HubClient("http://127.0.0.1:9", home)
    for prepare in (int, forbid_connections):  # nobody answers; then nothing is even asked
        cut_off(prepare)
        assert (cut_off(detected, "org/offline", commit) == first).all()
        with pytest.raises(InputError, match="not in the cache, and the Hub cannot be reached"):
            cut_off(hub.pull, "org/other", tmp_path / "other")
        with pytest.raises(InputError, match=r"switched off by HF_HUB_OFFLINE|connection to the Hub failed"):
            cut_off(hub.push, folder, "org/other", token=WRITE)
    cut_off.close()


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "the Hub knows no such token; log in"),
        ("hf_wrong", "the Hub knows no such token; log in"),
        (READ, "this token may not write there"),
    ],
)
def test_publishing_needs_a_token_that_may_write(folder, server, client, token, message):
    with pytest.raises(InputError, match=f"^org/closed: {message}"):
        client(hub.push, folder, "org/closed", token=token)
    assert "org/closed" not in server.repositories


def test_a_private_repository_needs_a_token(folder, server, client, tmp_path):
    client(hub.push, folder, "org/secret", private=True, token=WRITE)
    assert server.repositories["org/secret"].private
    with pytest.raises(InputError, match=r"^org/secret: neither a folder here .* log in .* if it is private$"):
        client(hub.pull, "org/secret", tmp_path / "a")
    assert client(hub.pull, "org/secret", tmp_path / "b", token=READ).is_dir()


def test_what_is_not_there_is_named(folder, server, client, tmp_path):
    server.add("org/there", folder)
    with pytest.raises(InputError, match=r"^org/absent: neither a folder here nor a repository on the Hub"):
        client(hub.pull, "org/absent", tmp_path / "a")
    with pytest.raises(InputError, match=r"^org/there@v9: the repository has no such revision"):
        client(hub.pull, "org/there", tmp_path / "b", "v9")
    with pytest.raises(InputError, match=r"^just-a-name: not a Hub id"):
        client(hub.pull, "just-a-name", tmp_path / "c")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_repository_without_one_of_the_files_is_refused(folder, server, client, tmp_path, missing):
    name = f"org/no-{missing}"
    server.add(name, folder)
    files = server.repositories[name].commits[-1][1]
    del files[missing]
    with pytest.raises(InputError, match=f"^{name}: the repository has no {missing}, so it is not a model folder"):
        client(hub.pull, name, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_a_download_that_breaks_off_is_resumed(folder, server, client, tmp_path):
    server.add("org/flaky", folder)
    server.broken["model.safetensors"] = (1000, 1)
    pulled = client(hub.pull, "org/flaky", tmp_path / "pulled")
    assert (pulled / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert server.broken.pop("model.safetensors") == (1000, 0)


@pytest.mark.slow
def test_a_download_that_never_ends_is_given_up_and_later_done(folder, server, client, tmp_path):
    server.add("org/broken", folder)
    server.broken["model.safetensors"] = (0, 100)
    with pytest.raises(InputError, match=r"^org/broken: .*(peer closed|incomplete).* try again$"):
        client(hub.pull, "org/broken", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    del server.broken["model.safetensors"]
    assert client(hub.pull, "org/broken", tmp_path / "pulled").is_dir()


def test_files_in_the_way_are_not_overwritten(folder, client, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        client(hub.pull, "org/round", tmp_path)


class Explosive:
    """Unpickling this would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_pickle_named_safetensors_does_no_harm(folder, server, client, tmp_path):
    mark = tmp_path / "mark"
    pickled = pickle.dumps(Explosive(mark))
    torch.save({"weights": Explosive(mark)}, tmp_path / "torch.pt")
    for number, weights in enumerate([pickled, (tmp_path / "torch.pt").read_bytes()]):
        server.add(f"org/evil{number}", folder, **{"model.safetensors": weights})
        with pytest.raises(InputError, match="not a whole safetensors file"):
            client(hub.pull, f"org/evil{number}", tmp_path / "pulled")
    assert not mark.exists()
    pickle.loads(pickled)
    assert mark.exists()  # it would have


def test_scripts_in_a_repository_are_never_fetched(folder, server, client, tmp_path):
    evil = b"raise SystemExit('executed')"
    server.add("org/scripts", folder, **{name: evil for name in ("expert.py", "hyperparams.yaml", "custom.py", "m.pt")})
    server.requests.clear()
    client(hub.pull, "org/scripts", tmp_path / "pulled")
    fetched = {path.rpartition("/")[2] for method, path in server.requests if "/resolve/" in path}
    assert fetched <= {"README.md", "config.json", "model.safetensors"}


def test_a_model_that_does_not_fit_is_refused(folder, server, client, tmp_path):
    config = read_json(folder / "config.json")
    tensors = load_file(folder / "model.safetensors")
    evil = tmp_path / "evil"

    def refused(message, config=config, tensors=tensors):
        evil.mkdir(exist_ok=True)
        write_json(evil / "config.json", config)
        save_file(tensors, evil / "model.safetensors")
        name = f"org/unfit{len(server.repositories)}"
        server.add(name, evil)
        with pytest.raises(InputError, match=message) as caught:
            client(hub.load_model, name)
        assert "\n" not in str(caught.value)

    unknown = {"type": "os.system", "command": "true"}
    refused("unknown architecture 'os.system'", {**config, "architecture": "os.system", "model": unknown})
    refused("extra does not belong to", tensors={**tensors, "extra": torch.zeros(1)})
    some = next(iter(tensors))
    refused(f"lacks {some} of", tensors={name: tensor for name, tensor in tensors.items() if name != some})
    refused("of shape", tensors={**tensors, some: torch.zeros(2, 3, 5, 7)})


def test_an_unusable_folder_is_not_published(folder, server, client, tmp_path):
    broken = write_folder(tmp_path / "model")
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is a text file that begins with 'nothing'"):
        client(hub.push, broken, "org/unusable", token=WRITE)
    assert "org/unusable" not in server.repositories
    with pytest.raises(InputError, match="not a Hub id"):
        client(hub.push, folder, "org/name/more", token=WRITE)
