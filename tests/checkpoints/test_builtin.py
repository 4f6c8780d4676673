"""The small model that comes with the package: ten household sounds, real ones."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from pmam_plugin import SoundEventDetector, load_model
from pmam_plugin.checkpoints.card import knowledge
from pmam_plugin.checkpoints.hub_folder import fetch_model
from pmam_plugin.evaluation.metrics import evaluate_events
from pmam_plugin.files import read_json
from tests.support import shared

MEGABYTE = 1_000_000
CLIPS = 48
FLOOR = 0.4  # of segment F1, micro (1 s), on real recordings that no training heard

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
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 10 * MEGABYTE
    trained = {name for name, _ in load_model().model.named_parameters()}
    tensors = load_file(folder / "model.safetensors")
    assert {tensors[name].dtype for name in trained} == {torch.float16}


def test_it_is_there_without_any_connection():
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["12", "FrameDetector"], done.stderr


def test_it_finds_real_sounds_where_they_are():
    detector = SoundEventDetector.from_pretrained(device="cpu")
    data = shared("realmini")
    assert set(detector.labels) == set((data / "metadata/classes.txt").read_text().split())
    truth = pd.read_csv(data / "metadata/validation/validation.tsv", sep="\t").dropna()
    clips = sorted(truth.filename.unique())[:CLIPS]
    found = detector.detect_batch([data / "audio/validation/validation" / clip for clip in clips])
    truth, seconds = truth[truth.filename.isin(clips)], dict.fromkeys(clips, 10.0)
    figures = evaluate_events(found, truth, seconds, bootstrap=0)
    assert figures["segment_f1_micro"] > FLOOR
    # The same events laid over the next clip: what is found has to do with what is heard.
    elsewhere = found.assign(filename=[clips[(clips.index(name) + 1) % CLIPS] for name in found.filename])
    chance = evaluate_events(elsewhere, truth, seconds, bootstrap=0)
    assert chance["segment_f1_micro"] < figures["segment_f1_micro"] / 2


def test_in_a_quiet_room_it_hears_nothing():
    detector = SoundEventDetector.from_pretrained(device="cpu")
    random = np.random.default_rng(0)
    time = np.arange(160_000) / 16_000
    rooms = [
        np.zeros(160_000, np.float32),
        1e-3 * random.standard_normal(160_000).astype(np.float32),
        (3e-3 * np.sin(2 * np.pi * 50 * time) + 3e-4 * random.standard_normal(160_000)).astype(np.float32),
    ]
    assert detector.detect_batch(rooms, 16_000).empty
    # Real rooms: clips that no training heard, household ambience without an annotated event.
    data = shared("realmini")
    truth = pd.read_csv(data / "metadata/validation/validation.tsv", sep="\t")
    quiet = sorted(set(truth.filename) - set(truth.dropna().filename))
    assert len(quiet) == 5
    assert detector.detect_batch([data / "audio/validation/validation" / clip for clip in quiet]).empty


def test_its_card_says_plainly_what_it_is():
    folder = fetch_model("builtin")
    text = (folder / "README.md").read_text(encoding="utf-8")
    for said in (
        "CC BY-NC",
        "TensorFlow Authors",
        "Apache License, Version 2.0",
        "research and evaluation",
        "## Limits",
    ):
        assert said in text
    card = ModelCard(text).data
    assert card.license == "cc-by-nc-4.0"
    assert "real recordings" in card.eval_results[0].dataset_name
    assert {"PSDS1", "PSDS2"} <= {result.metric_name for result in card.eval_results}


def test_its_figures_and_its_card_are_those_of_one_run():
    folder = fetch_model("builtin")
    config = read_json(folder / "config.json")
    provenance = config["provenance"]
    card = ModelCard((folder / "README.md").read_text(encoding="utf-8")).data
    figures = {result.metric_args["key"]: result.metric_value for result in card.eval_results}
    assert figures["event_f1_macro"] == pytest.approx(provenance["metrics"]["event_f1_macro"], abs=1e-6)
    assert provenance["configuration"]["file"] == "builtin.yaml"
    assert {"package", "seed", "environment"} <= set(provenance)
    assert all(label in knowledge(config) for label in config["labels"])
