"""The demonstration model that comes with the package."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from pmam_plugin import SoundEventDetector, load_model
from pmam_plugin.checkpoints.hub_folder import fetch_model
from pmam_plugin.demo.sounds import SOUNDS
from pmam_plugin.demo.soundscapes import soundscape
from pmam_plugin.evaluation.metrics import evaluate_events
from pmam_plugin.files import read_json

MEGABYTE = 1_000_000
CLIPS = 12
FLOOR = 0.25  # of event F1, micro (200 ms, 20 %), on soundscapes that no training saw

OFFLINE = """
import socket

def forbidden(*arguments, **named):
    raise AssertionError("a connection was asked for")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = forbidden
import numpy
from pmam_plugin import SoundEventDetector, load_model
print(len(SoundEventDetector.from_pretrained().scores(numpy.zeros(16000, numpy.float32), 16000).columns))
print(type(load_model().model).__name__)
"""


def test_it_is_small_and_in_half_precision():
    folder = fetch_model("builtin")
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2 * MEGABYTE
    trained = {name for name, _ in load_model().model.named_parameters()}
    tensors = load_file(folder / "model.safetensors")
    assert {tensors[name].dtype for name in trained} == {torch.float16}


def test_it_is_there_without_any_connection():
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["12", "FrameDetector"], done.stderr


def test_it_finds_the_sounds_it_was_trained_on_in_new_soundscapes():
    detector = SoundEventDetector.from_pretrained(device="cpu")
    assert set(detector.labels) == set(SOUNDS)
    waves, rows = [], []
    for clip in range(CLIPS):
        wave, events = soundscape(np.random.default_rng(1000 + clip))
        waves.append(wave)
        rows += [(f"recording_{clip + 1}", event.onset, event.offset, event.label) for event in events]
    truth = pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])
    seconds = {f"recording_{clip + 1}": 10.0 for clip in range(CLIPS)}
    found = detector.detect_batch(waves, 16_000)
    figures = evaluate_events(found, truth, seconds, bootstrap=0)
    assert figures["event_f1_micro"] > FLOOR
    # The same events laid over the next clip: what is found has to do with what is heard.
    number = found["filename"].str.removeprefix("recording_").astype(int)
    elsewhere = found.assign(filename=[f"recording_{value % CLIPS + 1}" for value in number])
    chance = evaluate_events(elsewhere, truth, seconds, bootstrap=0)
    assert chance["event_f1_micro"] < figures["event_f1_micro"] / 3
    assert chance["segment_f1_micro"] < figures["segment_f1_micro"] * 0.75


def test_its_card_says_plainly_what_it_is():
    folder = fetch_model("builtin")
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "A demonstration, not for real recordings" in text
    assert "synthesised" in text
    assert "## Limits" in text
    card = ModelCard(text).data
    assert card.license == "apache-2.0"
    assert "built-in corpus" in card.eval_results[0].dataset_name
    assert {"PSDS1", "PSDS2"} <= {result.metric_name for result in card.eval_results}


def test_its_figures_and_its_card_are_those_of_one_run():
    folder = fetch_model("builtin")
    provenance = read_json(folder / "config.json")["provenance"]
    card = ModelCard((folder / "README.md").read_text(encoding="utf-8")).data
    figures = {result.metric_args["key"]: result.metric_value for result in card.eval_results}
    assert figures["event_f1_macro"] == pytest.approx(provenance["metrics"]["event_f1_macro"], abs=1e-6)
    assert provenance["configuration"]["file"] == "pmam_demo.yaml"
    assert {"commit", "seed", "environment"} <= set(provenance)
