"""`pmam train`: a folder of generated sounds with Audacity tracks becomes a detector, a report and a sentence."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from pmam_plugin.checkpoints import load_model, save_model
from pmam_plugin.data import load_prepared
from pmam_plugin.encoders.beats import BEATsEncoder
from pmam_plugin.errors import InputError
from pmam_plugin.features import KaldiMel
from pmam_plugin.stages.annotated import Size, sized, train_annotated
from pmam_plugin.stages.experiment import read_experiment
from recipes.DESED import train as recipe
from tests.sedt_models import tiny_sedt
from tests.support import ROOT

RATE = 16_000
TINY = {
    "finetune_epochs": 1, "finetune_steps": 4, "pretrain_epochs": 1, "pretrain_steps": 2, "bootstrap": 10,
    "number_of_prototypes": 3, "components": 4, "batch": {"strong": 4, "unlabelled": 2}, "curve_shares": [0.5],
    "pretrain_batch": {"strong": 2, "unlabelled": 2}, "precision": "fp32",
}  # fmt: skip


def beeps(folder, count, seed, labelled=True):
    """Recordings of 3 to 13 s of noise with tones (Beep) and hisses (Hiss)."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        seconds = 3 + 5 * (number % 3)
        wave, rows, time = random.normal(0, 0.01, seconds * RATE), "", 0.4
        while time < seconds - 1:
            label, length = ("Beep", "Hiss")[random.integers(2)], random.uniform(0.3, 0.8)
            first, samples = round(time * RATE), round(length * RATE)
            tone = 0.3 * np.sin(2 * np.pi * 900 * np.arange(samples) / RATE)
            wave[first : first + samples] += tone if label == "Beep" else random.normal(0, 0.2, samples)
            rows += f"{time:.6f}\t{time + length:.6f}\t{label}\n"
            time += length + random.uniform(0.3, 1.5)
        soundfile.write(folder / f"r{number}.wav", wave, RATE)
        if labelled:
            (folder / f"r{number}.txt").write_text(rows)
    return folder


def test_a_model_without_an_encoder_of_frames_is_refused_before_anything_is_looked_at(tmp_path):
    save_model(tmp_path / "other", tiny_sedt())
    with pytest.raises(
        InputError, match="other: SEDT has no encoder of frames to start from; give a detector of frames"
    ):
        train_annotated(tmp_path / "nowhere", tmp_path / "out", encoder=str(tmp_path / "other"))


def test_a_folder_becomes_a_model_a_report_and_a_sentence(tmp_path):
    told: list[str] = []
    done = train_annotated(
        beeps(tmp_path / "in", 6, 1),
        tmp_path / "out",
        beeps(tmp_path / "more", 3, 2, labelled=False),
        minutes=30,
        device="cpu",
        changes=TINY,
        tell=told.append,
    )
    assert done.verdict.startswith("On 1 recording it has not heard before (")
    assert "With 50 % of the labelled recordings it reached " in done.verdict
    text = "\n".join(told)
    assert "6 labelled recordings" in text
    assert "learning from 4 recordings and 3 without labels" in text
    assert "PMAM pre-training tried" in text
    assert re.search(r"; pre-training (kept|left): on the selection recordings 0\.\d\d with it, 0\.\d\d without", text)
    assert load_model(tmp_path / "out" / "model").model.labels == ("Beep", "Hiss")
    assert "On 1 recording it has not heard before" in (tmp_path / "out" / "report.html").read_text()
    stages = json.loads((tmp_path / "out" / "metrics.json").read_text())["stages"]
    assert stages["finetune"]["start"] in ("pretrained", "not pretrained")
    # Whole recordings are on one side only.
    data = load_prepared(tmp_path / "out" / "corpus", tmp_path / "out" / "manifests")
    sides = [{clip.path.name for clip in data.manifests[name]} for name in ("strong", "selection", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 6
    # The experiment is written in full: the recipe goes on with it, and finds everything done.
    experiment = read_experiment(tmp_path / "out" / "hyperparams.yaml")
    assert "finetune_steps: 4" in experiment
    assert "base:" not in experiment
    records = recipe_records(tmp_path / "out" / "hyperparams.yaml")
    assert [name for name, skipped in records.items() if not skipped] == ["prepare"]


def test_an_imported_encoder_is_a_start_and_without_more_sound_there_is_no_pre_training(tmp_path):
    told: list[str] = []
    start = BEATsEncoder(depth=1, dim=16, heads=2, patch_dim=8, position_kernel=8, position_groups=2)
    save_model(tmp_path / "start", start)
    done = train_annotated(
        beeps(tmp_path / "in", 6, 1),
        tmp_path / "out",
        minutes=30,
        encoder=str(tmp_path / "start"),
        device="cpu",
        changes={**TINY, "batch": {"strong": 4}},
        tell=told.append,
    )
    assert "PMAM pre-training not tried (too little sound without labels)" in "\n".join(told)
    assert done.verdict.startswith("On 1 recording it has not heard before (")
    stages = json.loads((tmp_path / "out" / "metrics.json").read_text())["stages"]
    assert list(stages) == ["prepare", "load_weights", "embed", "finetune"]
    trained = load_model(tmp_path / "out" / "model").model.backbone
    assert [type(part) for part in trained.frontend.named().values()] == [KaldiMel]
    for name, value in trained.encoder.encoder.state_dict().items():
        torch.testing.assert_close(value, start.state_dict()[name], rtol=1e-3, atol=1e-3)  # stored as float16


def recipe_records(file):
    """Stages that the recipe runs for an experiment, and whether it finds them done."""
    hparams, options, _ = recipe.load_experiment([str(file), "--device", "cpu"])
    stages = recipe.without(hparams["stages"], hparams["skip_stages"])
    context = recipe.RunContext(Path(hparams["output_folder"]), hparams["seed"], options, cache_audio=False)
    return {record.stage: record.skipped for record in recipe.run_stages(stages, context)}


def test_what_there_is_no_time_for_is_left_out_in_order():
    def tried(free, worth=True):
        return sized(free, update=0.1, epoch=1.0, epochs=12, steps=50, worth=worth)

    assert tried(1000) == Size(12, 50, True, True, minutes=1000 / 4 / 60)
    assert tried(1000, worth=False) == Size(12, 50, False, True, minutes=1000 / 2 / 60)
    assert tried(150) == Size(12, 21, True, True, minutes=0.625)  # four trainings: 12 s for epochs, 25 s for updates
    assert tried(60) == Size(12, 15, False, True, minutes=0.5)
    assert tried(17) == Size(4, 32, False, True, minutes=17 / 60)
    assert (tried(3).fits, tried(3).steps) == (False, 1)


@pytest.mark.parametrize("place", ["hparams", "pmam_plugin/hparams"])
def test_experiments_are_in_the_repository_and_in_the_package(place):
    assert (ROOT / place / "annotated.yaml").is_file()
