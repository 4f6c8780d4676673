"""The corpus that s3prl's problem is run on: nothing lost, nothing leaked, times in milliseconds."""

import json

import numpy as np
import pytest
import soundfile

from benchmarks.hear import SPLITS, model_folders, recordings, write_corpus
from pmam_plugin.brains.records import save_tensors
from pmam_plugin.checkpoints import save_model
from pmam_plugin.data.manifest import Clip, Event
from pmam_plugin.data.prepare import prepare
from pmam_plugin.upstream import UpstreamExpert
from tests.upstream.models import noise, patch_detector

SECONDS, RATE = 2, 16000


@pytest.fixture
def data(tmp_path):
    """Ten strong clips, of which the last has no event, and three test clips; each file holds its own tone."""
    root = tmp_path / "data"
    folders = {
        "strong_label_real": ("train", 10, "train/audioset_strong.tsv"),
        "validation": ("validation", 3, "validation/validation.tsv"),
    }
    for number, (name, (part, clips, table)) in enumerate(folders.items()):
        rows = ["filename\tonset\toffset\tevent_label"]
        for clip in range(clips):
            path = root / "audio" / part / name / f"{name}_{clip}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            tone = np.sin(2 * np.pi * (200 + 300 * number + 20 * clip) * np.arange(SECONDS * RATE) / RATE)
            soundfile.write(path, 0.3 * tone, RATE)
            event = "\t\t\t" if clip == clips - 1 else f"\t0.25\t1.5\t{'bell' if clip % 2 else 'dog'}"
            rows.append(path.name + event)
        (root / "metadata" / table).parent.mkdir(parents=True, exist_ok=True)
        (root / "metadata" / table).write_text("\n".join(rows) + "\n")
    return root


def test_every_clip_is_in_the_layout_once_and_in_one_split_only(data, tmp_path):
    prepared = prepare(data, tmp_path / "run/manifests", selection="hold_out", hold_out=0.3)
    write_corpus(tmp_path / "run", data, tmp_path / "corpus")
    heard = {}
    for split, subset in SPLITS.items():
        table = json.loads((tmp_path / "corpus" / f"{split}.json").read_text())
        clips = prepared.manifests[subset].clips
        assert table.keys() == {f"{clip.id}.wav" for clip in clips if clip.events}
        assert all(table.values()), "a recording without events would vanish"
        for name, events in table.items():
            assert [(event["start"], event["end"]) for event in events] == [(250.0, 1500.0)]
            wave, rate = soundfile.read(tmp_path / "corpus/16000" / split / name)
            assert rate == RATE
            assert soundfile.info(tmp_path / "corpus/48000" / split / name).samplerate == 48000
            assert soundfile.info(tmp_path / "corpus/48000" / split / name).frames == 3 * len(wave)
            heard.setdefault(split, []).extend(wave.reshape(-1, SECONDS * RATE))
        assert len(heard[split]) == len(clips)
    tones = {split: {int(np.abs(np.fft.rfft(wave)).argmax()) for wave in waves} for split, waves in heard.items()}
    assert sum(map(len, tones.values())) == len(set.union(*tones.values())) == 13


def test_clips_without_events_follow_those_that_have_some():
    loud = [Clip(str(number), f"{number}.ogg", 1.0, events=(Event(0, 1, "dog"),)) for number in range(2)]
    silent, unknown = Clip("s", "s.ogg", 1.0, events=()), Clip("u", "u.ogg", 1.0)
    assert recordings([silent, *loud, unknown]) == {"0.wav": [loud[0], silent], "1.wav": [loud[1]]}


def test_the_encoder_is_given_untrained_pretrained_and_finetuned(tmp_path):
    model = patch_detector()
    run = tmp_path / "run"
    save_model(run / "model", model)
    for iteration in (1, 2):
        state = {name: tensor if iteration == 2 else tensor * 0 for name, tensor in model.backbone.state_dict().items()}
        save_tensors(run / f"stages/pretrain_{iteration}/backbone.safetensors", state)
    states = {
        name: UpstreamExpert(folder)([noise(0.5)])["last_hidden_state"]
        for name, folder in model_folders(run, tmp_path / "out").items()
    }
    assert list(states) == ["untrained", "pre-trained", "fine-tuned"]
    assert (states["pre-trained"] == states["fine-tuned"]).all()
    assert (states["untrained"] != states["fine-tuned"]).any()
