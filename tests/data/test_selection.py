"""What is held out, chosen on and forgotten."""

import cProfile
import shutil
from pathlib import Path

import pytest

from pmam_plugin.data import Clip, prepare
from pmam_plugin.data.holdout import excerpt_source, split_clips
from pmam_plugin.errors import InputError
from tests.data.corpus import EVENTS, noise, prepare_tiny, table


def test_the_held_out_part_has_its_share_of_every_class_and_its_own_recordings(tmp_path):
    rows = []
    for number in range(60):
        for part in range(2):
            name = f"Yrec{number}_{part}.000_{part + 1}.000.wav"
            noise(tmp_path / "c/audio/train/strong_label_real" / name, seconds=0.05)
            rows.append((name, 0, 0.04, ("Cat", "Dog", "Dog", "Rare")[min(3, number % 20)]))
    table(tmp_path / "c/metadata/train/strong.tsv", EVENTS, rows)
    data = prepare(tmp_path / "c", tmp_path / "out", hold_out=0.2, test="none", seed=3)
    held, kept = data.manifests["selection"], data.manifests["strong"]
    assert 20 <= len(held) <= 32
    assert {event.label for clip in held for event in clip.events} == {"Cat", "Dog", "Rare"}
    assert not {excerpt_source(clip) for clip in held} & {excerpt_source(clip) for clip in kept}
    again = prepare(tmp_path / "c", tmp_path / "again", hold_out=0.2, test="none", seed=3)
    other = prepare(tmp_path / "c", tmp_path / "other", hold_out=0.2, test="none", seed=4)
    assert again.manifests == data.manifests
    assert other.manifests != data.manifests


def test_labels_are_forgotten_alike_in_every_class_and_the_clips_stay_unlabelled(tmp_path):
    rows = []
    for number in range(40):
        noise(tmp_path / "c/audio/train/strong_label_real" / f"{number}.wav", seconds=0.05)
        rows.append((f"{number}.wav", 0, 0.04, "Cat" if number < 32 else "Dog"))
    table(tmp_path / "c/metadata/train/strong.tsv", EVENTS, rows)
    settings = {"selection": "none", "test": "none", "seed": 3}
    data = prepare(tmp_path / "c", tmp_path / "quarter", labelled={"strong": 0.25}, **settings)
    strong, plain = data.manifests["strong"], data.manifests["unlabelled"]
    assert (len(strong), len(plain)) == (10, 30)
    assert [event.label for clip in strong for event in clip.events].count("Dog") == 2
    assert all(clip.events is None and clip.labels is None for clip in plain)
    assert data.report["labels_forgotten"] == {"strong": 30}
    assert data.labels == ("Cat", "Dog")
    whole = prepare(tmp_path / "c", tmp_path / "whole", labelled={"strong": 1.0}, **settings)
    assert {clip.path for clip in whole.manifests["strong"]} == {clip.path for clip in (*strong, *plain)}
    with pytest.raises(InputError, match=r"labelled: unlabelled: 0\.5 is no share"):
        prepare(tmp_path / "c", tmp_path / "wrong", labelled={"unlabelled": 0.5}, **settings)


def test_recordings_of_the_test_set_do_not_train(corpus, tmp_path):
    for folder in ("train/weak", "validation/validation", "train/unlabel_in_domain"):
        noise(corpus / "audio" / folder / "Yabc_0.000_1.000.wav")
    with (corpus / "metadata/train/weak.tsv").open("a") as file:
        file.write("Yabc_0.000_1.000.wav\tCat\n")
    with (corpus / "metadata/validation/validation.tsv").open("a") as file:
        file.write("Yabc_0.000_1.000.wav\t0\t1\tCat\n")
    data = prepare_tiny(corpus, tmp_path / "out")
    assert data.counts["weak"] == 4
    assert data.counts["test"] == 4
    assert data.report["subsets"]["weak"]["also_evaluated_on"] == 1
    assert data.report["subsets"]["unlabelled"]["also_evaluated_on"] == 1


def test_the_first_preferred_selection_set_that_the_data_have_is_taken(corpus, tmp_path):
    for part, name in (("train", "synthetic21_train"), ("validation", "synthetic21_validation")):
        noise(corpus / f"audio/{part}/{name}/soundscapes_16k/7.wav")
        noise(corpus / f"audio/{part}/{name}/soundscapes_16k/7_events/foreground.wav")
        table(corpus / f"metadata/{part}/{name}/soundscapes.tsv", EVENTS, [("7.wav", 0.1, 0.9, "Dog")])
    data = prepare_tiny(corpus, tmp_path / "out")
    assert data.counts == {"strong": 10, "synthetic": 1, "weak": 4, "unlabelled": 5, "selection": 1, "test": 3}
    assert [clip.id for clip in data.manifests["selection"]] == ["7"]
    assert data.report["selection"] == "synthetic_validation"
    shutil.copytree(corpus, tmp_path / "synthetic")
    shutil.rmtree(tmp_path / "synthetic/audio/train/strong_label_real")
    shutil.copytree(corpus, tmp_path / "real")
    shutil.rmtree(tmp_path / "real/audio/validation/synthetic21_validation")
    real_first, synthetic_first = ("hold_out", "synthetic_validation"), ("synthetic_validation", "hold_out")
    for root, selection, taken in (
        (corpus, "hold_out", "held out of strong"),
        (corpus, real_first, "held out of strong"),
        (corpus, synthetic_first, "synthetic_validation"),
        (tmp_path / "synthetic", real_first, "synthetic_validation"),
        (tmp_path / "real", synthetic_first, "held out of strong"),
    ):
        assert prepare_tiny(root, tmp_path / "held", selection=selection).report["selection"] == taken


def test_a_split_s_work_grows_as_its_clips_do():
    """Counted, not timed: eight times the recordings are less than nine times the calls."""

    def calls(count: int) -> int:
        clips = [Clip(f"{n}", Path(f"{n}.wav"), 10.0, labels=(f"class {n % 10}",)) for n in range(count)]
        profile = cProfile.Profile()
        profile.runcall(split_clips, clips, 0.2, 0)
        return sum(entry.callcount for entry in profile.getstats())

    assert calls(3200) < 9 * calls(400)


def test_the_last_recording_of_a_class_is_not_held_out(tmp_path):
    sounds = [("Dog",), ("Dog", "Cat"), ("Dog", "Cat"), ("Owl", "Dog"), ("Dog",)]
    clips = [Clip(f"{number}", tmp_path / f"{number}.wav", 10.0, labels=labels) for number, labels in enumerate(sounds)]
    for seed in range(20):
        kept, held = split_clips(clips, 0.4, seed)
        assert {label for clip in kept for label in clip.labels or ()} == {"Dog", "Cat", "Owl"}
        assert {label for clip in held for label in clip.labels or ()} == {"Dog", "Cat"}
        assert len(kept) == 3
    different = [Clip(name, tmp_path / name, 10.0, labels=(name,)) for name in "abc"]
    assert len(split_clips(different, 0.3, 0)[1]) == 1
