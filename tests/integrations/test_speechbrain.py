"""SpeechBrain's way to a model folder gives what ours gives."""

import pickle

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from pmam_plugin import SoundEventDetector
from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json, write_json
from pmam_plugin.hub import write_companions
from tests.upstream.models import noise, patch_detector, write_folder

pytest.importorskip("speechbrain", reason="SpeechBrain is not installed")
from pmam_plugin.integrations.speechbrain import PretrainedDetector


@pytest.fixture
def folder(tmp_path):
    folder = write_folder(tmp_path / "model", patch_detector())
    write_companions(folder)
    return folder


def test_files_give_the_same_events_as_our_own_interface(folder, tmp_path):
    soundfile.write(tmp_path / "noise.wav", 5 * noise(11.0).numpy(), 16000)
    ours = SoundEventDetector.from_pretrained(folder, device="cpu").detect(tmp_path / "noise.wav")
    detector = PretrainedDetector.from_hparams(str(folder), run_opts={"device": "cpu"})
    pd.testing.assert_frame_equal(detector.detect_file(tmp_path / "noise.wav"), ours)
    assert len(ours) > 0
    assert detector.labels == ("bell", "dog", "speech")


def test_batches_follow_speechbrains_relative_lengths(folder):
    detector = PretrainedDetector.from_hparams(folder, run_opts={"device": "cpu"})
    wavs = torch.stack([noise(2.0), torch.cat([noise(1.0, 1), torch.zeros(16000)])])
    lengths = torch.tensor([1.0, 0.5])
    frames = detector(wavs, lengths)
    assert frames.shape == (2, 50, 3)
    assert torch.all(frames[1, 25:] == 0)
    assert torch.all(frames[1, :25] > 0)
    assert torch.allclose(frames[1:, :25], detector(noise(1.0, 1)[None]), atol=1e-5)
    events = detector.detect_batch(wavs, lengths)
    alone = detector._detector.detect(noise(1.0, 1), 16000)
    second = events[events.filename == "recording_2"].reset_index(drop=True)
    pd.testing.assert_frame_equal(second.drop(columns="filename"), alone.drop(columns="filename"))
    assert second.offset.max() <= 1.0


def test_parameters_are_frozen_and_in_evaluation_mode(folder, tmp_path):
    detector = PretrainedDetector.from_hparams(folder, savedir=tmp_path / "saved", run_opts={"device": "cpu"})
    assert not detector.mods.detector.training
    assert not any(parameter.requires_grad for parameter in detector.parameters())
    expected = patch_detector().state_dict()
    state = detector.mods.detector.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def test_a_folder_without_the_yaml_says_how_to_add_it(tmp_path):
    with pytest.raises(InputError, match="write_companions"):
        PretrainedDetector.from_hparams(write_folder(tmp_path / "model"))


def test_weights_that_are_a_pickle_are_refused(folder):
    (folder / "model.safetensors").write_bytes(pickle.dumps(np.zeros(3)))
    with pytest.raises(InputError, match="not a whole safetensors file"):
        PretrainedDetector.from_hparams(folder, run_opts={"device": "cpu"})


def test_a_configuration_of_something_else_is_refused(folder):
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "model": config["model"]["backbone"]})
    with pytest.raises(InputError, match="architecture is 'FrameDetector' but the model is 'Backbone'"):
        PretrainedDetector.from_hparams(folder, run_opts={"device": "cpu"})
    part = {"model": config["model"]["backbone"], "architecture": "Backbone"}
    write_json(folder / "config.json", {**config, **part})
    with pytest.raises(InputError, match="holds Backbone, which is a part of a model and detects nothing alone"):
        PretrainedDetector.from_hparams(folder, run_opts={"device": "cpu"})


def detect_from_hub(source, wave):
    """Events, by SpeechBrain's own interface."""
    detector = PretrainedDetector.from_hparams(source, run_opts={"device": "cpu"})
    return detector.detect_batch(wave[None])


@pytest.mark.slow
def test_a_repository_on_the_hub_is_a_source_too(folder, tmp_path):
    from tests.hub_server import FakeHub, HubClient

    with FakeHub() as server:
        server.add("org/name", folder)
        client = HubClient(server.endpoint, tmp_path / "home")
        fetched = client(detect_from_hub, "org/name", noise(3.0))
        client.close()
    pd.testing.assert_frame_equal(fetched, detect_from_hub(folder, noise(3.0)))


def refusal(source):
    """The sentence that a repository is refused with."""
    try:
        PretrainedDetector.from_hparams(source, run_opts={"device": "cpu"})
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_what_the_hub_does_not_have_is_one_sentence(folder, tmp_path):
    from tests.hub_server import FakeHub, HubClient

    (folder / "hyperparams.yaml").unlink()
    with FakeHub() as server:
        server.add("org/bare", folder)
        client = HubClient(server.endpoint, tmp_path / "home")
        bare, absent = client(refusal, "org/bare"), client(refusal, "org/absent")
        client.close()
    assert bare.startswith("org/bare: the repository has no hyperparams.yaml; publish it with pmam push")
    assert absent.startswith("org/absent: neither a folder here nor a repository on the Hub")
