import json
import logging
import os
import pickle
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from pmam_plugin.data import Clip, Event, Manifest, class_list, prepare, read_clip, recordings
from pmam_plugin.data.holdout import excerpt_source, split_clips
from pmam_plugin.errors import InputError
from pmam_plugin.tables import read_events
from tests.data.corpus import EVENTS, noise, table, tiny_corpus
from tests.support import shared


@pytest.fixture
def corpus(tmp_path):
    return tiny_corpus(tmp_path / "corpus")


def prepare_tiny(corpus: Path, save: Path, **options):
    return prepare(corpus, save, clip_seconds=1.0, **options)


def test_every_subset_becomes_a_manifest_with_its_labels(corpus, tmp_path):
    data = prepare_tiny(corpus, tmp_path / "out", hold_out=0.2)
    assert data.labels == ("Cat", "Dog")
    assert data.counts == {"strong": 8, "weak": 4, "unlabelled": 5, "selection": 2, "test": 3}
    assert {clip.labels for clip in data.manifests["weak"]} == {("Cat", "Dog")}
    assert all(clip.labels is None and clip.events is None for clip in data.manifests["unlabelled"])
    events = data.events("test")
    assert events["filename"].tolist() == ["v0", "v1", "v2"]
    assert data.durations("test") == {"v0": 0.8, "v1": 0.8, "v2": 0.8}
    assert data.seconds_by_clip(["weak", "synthetic"]) == dict.fromkeys(["w0", "w1", "w2", "w3"], 1.0)


def test_a_clip_without_events_keeps_its_row(corpus, tmp_path):
    data = prepare_tiny(corpus, tmp_path / "out", selection="none")
    empty = data.events("strong").set_index("filename").loc["s9"]
    assert np.isnan(empty["onset"])
    assert empty["event_label"] is None


def test_nothing_is_done_again_unless_something_has_changed(corpus, tmp_path):
    save = tmp_path / "out"
    first = prepare_tiny(corpus, save)
    written = (save / "strong.json").stat().st_mtime_ns
    assert prepare_tiny(corpus, save) == first
    assert (save / "strong.json").stat().st_mtime_ns == written
    assert prepare_tiny(corpus, save, skip_prep=True) == first
    noise(corpus / "audio/train/unlabel_in_domain/new.wav")
    second = prepare_tiny(corpus, save)
    assert second.fingerprint != first.fingerprint
    assert second.counts["unlabelled"] == 6
    text = (corpus / "metadata/train/weak.tsv").read_text()
    (corpus / "metadata/train/weak.tsv").write_text(text.replace("Cat,Dog", "Cat"))
    assert prepare_tiny(corpus, save).fingerprint != second.fingerprint


def test_damaged_manifests_are_written_again(corpus, tmp_path):
    save = tmp_path / "out"
    first = prepare_tiny(corpus, save)
    for damage in ('{"w0": {}}', "", (save / "weak.json").read_text().replace("w0", "w")):
        (save / "weak.json").unlink()
        (save / "weak.json").write_text(damage)
        assert prepare_tiny(corpus, save) == first
    (save / "weak.lines.npy").write_bytes(b"no array")
    assert prepare_tiny(corpus, save) == first
    (save / "weak.json").unlink()
    assert prepare_tiny(corpus, save) == first


def test_skip_prep_without_preparation_is_refused(corpus, tmp_path):
    with pytest.raises(InputError, match="no prepared data; run once without skip_prep"):
        prepare(corpus, tmp_path / "out", skip_prep=True)


def test_prepared_data_survive_a_move_of_the_corpus(corpus, tmp_path):
    first = prepare_tiny(corpus, tmp_path / "out")
    moved = corpus.rename(tmp_path / "moved")
    second = prepare_tiny(moved, tmp_path / "out", skip_prep=True)
    assert second.fingerprint == first.fingerprint
    assert all(clip.path.exists() for manifest in second.manifests.values() for clip in manifest)


def test_manifests_hold_no_path_of_the_machine_and_speechbrain_reads_them(corpus, tmp_path):
    prepare_tiny(corpus, tmp_path / "out")
    assert str(tmp_path) not in (tmp_path / "out/strong.json").read_text()
    from speechbrain.dataio.dataset import DynamicItemDataset

    dataset = DynamicItemDataset.from_json(tmp_path / "out/weak.json", replacements={"data_root": corpus})
    with dataset.output_keys_as(["id", "wav", "labels"]):
        assert dataset[0] == {"id": "w0", "wav": str(corpus / "audio/train/weak/w0.wav"), "labels": ["Cat", "Dog"]}


def test_missing_and_unlisted_recordings_are_counted(corpus, tmp_path, caplog):
    (corpus / "audio/train/weak/w1.wav").unlink()
    noise(corpus / "audio/train/weak/stranger.wav")
    with caplog.at_level(logging.WARNING):
        data = prepare_tiny(corpus, tmp_path / "out")
    report = data.report["subsets"]["weak"]
    assert (report["missing"], report["missing_examples"], report["unlisted"]) == (1, ["w1.wav"], 1)
    assert "1 of 4 listed clips are not in" in caplog.text


def test_unreadable_recordings_stop_the_run_only_beyond_the_limit(corpus, tmp_path, caplog):
    (corpus / "audio/train/unlabel_in_domain/u1.wav").write_bytes(b"")
    soundfile.write(corpus / "audio/train/weak/w2.wav", np.full(800, np.nan, np.float32), 8000, subtype="FLOAT")
    whole = (corpus / "audio/train/strong_label_real/s1.wav").read_bytes()
    (corpus / "audio/train/strong_label_real/s1.wav").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"3 of 22 recordings cannot be read, more than max_unreadable = 0\.1"):
        prepare_tiny(corpus, tmp_path / "out", max_unreadable=0.1)
    with caplog.at_level(logging.WARNING):
        data = prepare_tiny(corpus, tmp_path / "out", max_unreadable=0.2, selection="none")
    assert data.report["unreadable"] == 3
    assert data.counts == {"strong": 9, "weak": 3, "unlabelled": 4, "test": 3}
    assert caplog.text.count("left out, unreadable") == 3


def test_a_manifest_cannot_point_outside_of_the_data_folder(tmp_path):
    for wav in ("/etc/passwd", "{data_root}/../secret.wav"):
        (tmp_path / "test.json").write_text(json.dumps({"a": {"wav": wav, "duration": 1.0}}))
        with pytest.raises(InputError, match=r"test\.json, clip 'a'"):
            Manifest.load(tmp_path / "test.json", tmp_path)


def test_a_manifest_reads_the_clips_that_are_asked_for(tmp_path):
    clips = [
        Clip(f"é{number}", tmp_path / f"{number}\udce9.wav", 1.0, events=(Event(0.0, 0.5, "Dog"),) * (number % 3))
        for number in range(2500)
    ]
    Manifest("strong", clips).save(tmp_path / "strong.json", tmp_path)
    loaded = Manifest.load(tmp_path / "strong.json", tmp_path)
    assert list(loaded) == clips
    assert (loaded.clips[1234], loaded.clips[-1], loaded.clips[998:1002]) == (clips[1234], clips[-1], clips[998:1002])
    with pytest.raises(IndexError):
        loaded.clips[2500]
    as_sent = pickle.dumps(loaded)
    assert len(as_sent) < 1000, "a worker process opens the file itself"
    assert pickle.loads(as_sent) == loaded
    Manifest("strong", clips[:3]).save(tmp_path / "strong.json", tmp_path)
    assert loaded.clips[2000] == clips[2000], "written anew, the file that is open stays as it was"
    text = (tmp_path / "strong.json").read_bytes()
    (tmp_path / "strong.json").write_bytes(text.replace(b'"duration"', b'"duratiom"', 1))
    with pytest.raises(InputError, match=r"strong\.json, clip 'é0': not an entry of a manifest"):
        Manifest.load(tmp_path / "strong.json", tmp_path).clips[0]
    (tmp_path / "strong.json").write_bytes(text + b"\n")
    with pytest.raises(InputError, match="was changed since it was written; prepare the data again"):
        Manifest.load(tmp_path / "strong.json", tmp_path)


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


def test_clips_of_one_name_in_several_subsets_get_different_ids(corpus, tmp_path):
    noise(corpus / "audio/train/unlabel_in_domain/w0.wav")
    noise(corpus / "audio/train/unlabel_in_domain/v0.wav")
    data = prepare_tiny(corpus, tmp_path / "out")
    ids = [clip.id for manifest in data.manifests.values() for clip in manifest]
    assert len(set(ids)) == len(ids)
    assert {"v0", "v0@unlabelled", "w0", "w0@unlabelled"} <= set(ids)
    assert "v0" in {clip.id for clip in data.manifests["test"]}


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


def test_folders_may_carry_their_sample_rate_and_files_another_format(corpus, tmp_path):
    folder = corpus / "audio/train/strong_label_real"
    shutil.copytree(folder, folder.with_name("strong_label_real_4k"))
    folder.rename(folder.with_name("strong_label_real_16k"))
    for file in sorted(folder.with_name("strong_label_real_16k").iterdir())[:4]:
        noise(file.with_suffix(".flac"), rate=44100, channels=2)
        file.unlink()
    data = prepare_tiny(corpus, tmp_path / "out", selection="none")
    assert data.report["subsets"]["strong"]["folder"] == "audio/train/strong_label_real_16k"
    assert data.report["subsets"]["strong"]["sample_rates"] == {"8000": 6, "44100": 4}


def test_a_plain_folder_of_recordings_is_unlabelled_and_long_ones_are_cut_into_clips(tmp_path):
    noise(tmp_path / "pile/one.wav", seconds=10.02)
    noise(tmp_path / "pile/deep/two.ogg", seconds=34.0, rate=16000)
    noise(tmp_path / "pile/deep/rest.wav", seconds=20.5)
    data = prepare(tmp_path / "pile", tmp_path / "out", selection="none")
    clips = {clip.id: (clip.start, round(clip.seconds, 2)) for clip in data.manifests["unlabelled"]}
    assert clips["one"] == (0.0, 10.0)
    assert [value for name, value in clips.items() if "two" in name] == [(0, 10), (10, 10), (20, 10), (30, 4)]
    assert [value for name, value in clips.items() if "rest" in name] == [(0, 10), (10, 10)]
    assert data.labels == ()
    with_selection = prepare(tmp_path / "pile", tmp_path / "out")
    assert with_selection.report["selection"] == "held out of unlabelled"


def test_no_event_is_lost_at_the_cuts_of_a_long_recording_and_a_test_recording_stays_whole(tmp_path):
    root = tmp_path / "c"
    for part in ("train/strong", "validation/validation"):
        noise(root / "audio" / part / "long.wav", seconds=25.2)
    rows = [("long.wav", 8, 12, "Dog"), ("long.wav", 15, 24.8, "Cat"), ("long.wav", 24.9, 25.1, "Dog")]
    table(root / "metadata/train/strong.tsv", EVENTS, rows)
    table(root / "metadata/validation/validation.tsv", EVENTS, rows)
    data = prepare(root, tmp_path / "out", selection="none")
    clips = {(clip.start, round(clip.seconds, 1)): clip.events for clip in data.manifests["strong"]}
    assert list(clips) == [(0, 10), (7.5, 10), (14.5, 10), (15.2, 10)]
    events = [[(event.onset, event.offset, event.label) for event in found] for found in clips.values()]
    whole = (0.5, 4.5, "Dog")
    assert events[:2] == [[(8, 10, "Dog")], [whole, (7.5, 10, "Cat")]]
    assert events[2:] == [[(0.5, 10, "Cat")], [(0, 9.6, "Cat"), (9.7, 9.9, "Dog")]]
    assert set(data.durations("test").values()) == {25.2}


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


def test_wrong_options_are_refused(corpus, tmp_path):
    for options, complaint in (
        ({"subsets": ["strung"]}, "subsets holds"),
        ({"selection": "validation"}, "selection and test both name 'validation'"),
        ({"test": "dev"}, "test is 'dev'"),
        ({"hold_out": 1.5}, "hold_out must lie between"),
        ({"selection": ["hold_out", "validation"]}, "selection and test both name 'validation'"),
        ({"selection": "synthetic_validation"}, "the selection set synthetic_validation is not there"),
        ({"selection": ["hold_out", "auto"]}, "selection is 'auto'"),
        ({"selection": []}, "selection is ''"),
    ):
        with pytest.raises(InputError, match=complaint):
            prepare_tiny(corpus, tmp_path / "out", **{"subsets": ["strong"], **options})


def test_the_class_list_comes_from_all_annotations(corpus):
    assert class_list(corpus) == ["Cat", "Dog"]
    table(corpus / "metadata/validation/validation.tsv", EVENTS, [("v0.wav", 0, 1, "Zebra"), ("v1.wav", "", "", "")])
    assert class_list(corpus) == ["Cat", "Dog", "Zebra"]


def test_realmini_is_prepared_whole(tmp_path):
    data = prepare(shared("realmini"), tmp_path, check="header", seed=1)
    assert sum(data.counts.values()) == 1424
    assert len(data.labels) == 10
    assert list(data.labels) == class_list(shared("realmini"))
    assert 0.08 < data.counts["selection"] / 240 < 0.13
    assert data.report["unreadable"] == 0


def test_desed_metadata_with_a_part_of_its_recordings(tmp_path):
    """The real tables, with a handful of generated recordings at DESED's different rates."""
    metadata, root = shared("desed_metadata"), tmp_path / "desed"
    shutil.copytree(metadata, root / "metadata")
    strong = read_events(metadata / "train/audioset_strong.tsv")["filename"].unique()
    test = read_events(metadata / "validation/validation.tsv")
    leaked = sorted(set(strong) & set(test["filename"]))
    beyond = test.loc[test["offset"] > 10, "filename"].unique()
    empty = test.loc[test["event_label"].isna(), "filename"].unique()
    weak = [line.split("\t")[0] for line in (metadata / "train/weak.tsv").read_text().splitlines()[1:]]
    for number, name in enumerate([*strong[:12], *leaked[:3]]):
        noise(
            root / "audio/train/strong_label_real_44k" / name,
            10.0 if number else 10.01,
            (16000, 32000, 44100)[number % 3],
        )
    for name in weak[:5]:
        noise(root / "audio/train/weak_16k" / name, 9.98, 16000)
    noise(root / "audio/train/unlabel_in_domain/Yxyz_1.000_11.000.wav", 10.0, 44100, channels=2)
    for name in [*leaked[:3], *beyond[:2], *empty[:2]]:
        noise(root / "audio/validation/validation" / name, 10.0, 16000)
    data = prepare(root, tmp_path / "out")
    report = data.report["subsets"]
    assert len(data.labels) == 10
    assert report["strong"]["listed"] == 3463
    assert report["strong"]["missing"] == 3463 - 15
    assert report["strong"]["also_evaluated_on"] + report.get("selection", {}).get("also_evaluated_on", 0) == 3
    assert report["test"]["clips"] == 7
    assert data.events("test")["offset"].max() <= 10.0
    assert data.events("test")["event_label"].isna().sum() == 2
    assert max(clip.seconds for clip in data.manifests["strong"]) <= 10.0


def test_links_that_run_in_circles_or_lead_nowhere_are_survived(tmp_path):
    noise(tmp_path / "pile/deep/one.wav")
    (tmp_path / "pile/deep/round").symlink_to(tmp_path / "pile")
    (tmp_path / "pile/lost.wav").symlink_to(tmp_path / "nowhere.wav")
    data = prepare(tmp_path / "pile", tmp_path / "out", selection="none", max_unreadable=0.5)
    assert data.counts == {"unlabelled": 1}
    assert data.report["unreadable"] == 1


def test_clips_have_the_names_that_tables_and_folders_give_them(tmp_path):
    """Backslashes, ./, absolute paths, accents and endings: what a table means is found, and nothing is lost."""
    root = tmp_path / "corpus"
    folder = root / "audio/validation/validation"
    names = [
        "day1/a.wav",
        "day2/a.wav",
        "b.W64",
        "c.au",
        unicodedata.normalize("NFD", "Café.wav"),
        "d_30.000_40.000.wav",
    ]
    for seed, name in enumerate(names):
        noise(folder / name, seed=seed)
    noise(folder / "._b.wav")
    noise(root / "audio/train/unlabel_in_domain/x/a.wav")
    rows = [
        ("day1\\a.wav", 0.1, 0.2, "Cat"),
        ("./day1//a.wav", 0.3, 0.4, "Dog"),  # the same clip, spelt differently
        (folder / "day2/a.wav", 0.1, 0.2, "Dog"),
        ("b", 0.1, 0.2, "Cat"),
        ("c.wav", 0.1, 0.2, "Cat"),
        ("Café.WAV", 0.1, 0.2, "Cat"),
        ("d_30.000_40.000.wav", 0.1, 0.2, "Cat"),
    ]
    table(root / "metadata/validation/validation.tsv", EVENTS, rows)
    data = prepare_tiny(root, tmp_path / "out", selection="none")
    assert data.report["subsets"]["test"]["missing"] == 0
    events = data.events("test")
    assert set(events["filename"]) == {"day1/a", "day2/a", "b", "c", "Café", "d_30.000_40.000"}
    assert list(events.loc[events["filename"] == "day1/a", "event_label"]) == ["Cat", "Dog"]
    assert [clip.id for clip in data.manifests["unlabelled"]] == ["x/a"]


def test_recordings_whose_names_are_no_utf8_are_prepared(corpus, tmp_path):
    path = corpus / "audio/train/weak/w0.wav"
    try:
        path.rename(path.with_name(os.fsdecode(b"w\xe4.wav")))
    except OSError:
        pytest.skip("this file system has no such names")
    rows = corpus / "metadata/train/weak.tsv"
    rows.write_text(rows.read_text().replace("w0.wav", "wä.wav"))
    data = prepare_tiny(corpus, tmp_path / "out")
    assert data.report["subsets"]["weak"]["missing"] == 0
    again = prepare_tiny(corpus, tmp_path / "out")
    [clip] = [clip for clip in again.manifests["weak"] if clip.id == "wä"]
    assert len(read_clip(clip, 8000, 1.0)) == 8000


def test_of_two_recordings_of_one_name_the_ending_in_the_table_tells(corpus, tmp_path):
    noise(corpus / "audio/train/weak/w0.flac")
    assert prepare_tiny(corpus, tmp_path / "out").counts["weak"] == 4  # the table says w0.wav


@pytest.mark.parametrize("check", ["decode", "header"])
def test_a_recording_replaced_by_another_of_its_size_is_noticed(corpus, tmp_path, check):
    path = corpus / "audio/train/unlabel_in_domain/u1.wav"
    os.utime(path, (1e9, 1e9))
    first = prepare_tiny(corpus, tmp_path / "out", check=check)
    other = noise(tmp_path / "other.wav", seed=77).read_bytes()
    assert len(other) == path.stat().st_size
    path.write_bytes(other)
    second = prepare_tiny(corpus, tmp_path / "out", check=check)
    assert second.fingerprint != first.fingerprint
    contents = [{clip.id: clip.content for clip in data.manifests["unlabelled"]} for data in (first, second)]
    assert [name for name in contents[0] if contents[0][name] != contents[1][name]] == ["u1"]
    # Just written: its time says nothing yet, its content does.
    times = path.stat().st_mtime_ns
    path.write_bytes(noise(tmp_path / "third.wav", seed=78).read_bytes())
    os.utime(path, ns=(times, times))
    assert prepare_tiny(corpus, tmp_path / "out", check=check).fingerprint != second.fingerprint


def test_a_copy_of_the_corpus_with_other_times_is_the_same_corpus(corpus, tmp_path):
    first = prepare_tiny(corpus, tmp_path / "out")
    for path in corpus.rglob("*.wav"):
        os.utime(path, (1.1e9, 1.1e9))
    assert prepare_tiny(corpus, tmp_path / "out").fingerprint == first.fingerprint
    assert prepare_tiny(corpus, tmp_path / "new").fingerprint == first.fingerprint


def test_recordings_are_only_compared_again_where_their_time_has_changed(corpus, tmp_path, monkeypatch):
    for path in corpus.rglob("*.wav"):
        os.utime(path, (1e9, 1e9))
    prepare_tiny(corpus, tmp_path / "out")
    read: list[int] = []
    blake = recordings.hashlib.blake2b
    monkeypatch.setattr(recordings.hashlib, "blake2b", lambda **options: (read.append(1), blake(**options))[1])
    prepare_tiny(corpus, tmp_path / "out")
    assert read == []
    os.utime(corpus / "audio/train/weak/w1.wav", (1.2e9, 1.2e9))
    prepare_tiny(corpus, tmp_path / "out")
    assert len(read) == 1


def test_recordings_that_are_odd_but_whole_are_used_and_reported(corpus, tmp_path, caplog):
    path = corpus / "audio/train/unlabel_in_domain/u2.wav"
    content = path.read_bytes()
    path.write_bytes(content[:40] + bytes(4) + content[44:])  # an unfinished header
    with caplog.at_level(logging.WARNING):
        data = prepare_tiny(corpus, tmp_path / "out")
    assert (data.report["odd"], data.report["unreadable"]) == (1, 0)
    assert "1 recordings are odd but whole" in caplog.text
    assert {clip.id: clip.seconds for clip in data.manifests["unlabelled"]}["u2"] == 1.0


def test_several_corpora_are_one_whose_clips_know_which_classes_they_speak_of(tmp_path, caplog):
    root = tmp_path / "corpora"
    tiny_corpus(root / "home")
    for number in range(10):
        noise(root / f"street/audio/train/strong_label_real/cafe/s{number}.wav", seconds=3.0, seed=400 + number)
        noise(root / f"street/audio/train/weak/w{number}.wav", seed=500 + number)
    rows = [
        (f"cafe/s{number}.wav", second, second + 1, name, soft)
        for number in range(10)
        for second, name, soft in ((0, "Dog", 0.3), (1, "Dog", 0.8), (2, "Dog", 0.5), (2, "Tram", 0.1), (1, "Tram", 0))
    ]
    table(root / "street/metadata/train/strong.tsv", EVENTS[:-1] + "\tsoft_label\n", rows)
    table(root / "street/metadata/train/weak.tsv", "filename\tevent_labels\n", [("w1.wav", "Tram")])
    (root / "notes").mkdir()
    data = prepare_tiny(root, tmp_path / "out", hold_out=0.2)
    assert data == prepare_tiny(root, tmp_path / "out", skip_prep=True)
    assert "notes: has no audio/" in caplog.text
    assert class_list(root) == list(data.labels) == ["Cat", "Dog", "Tram"]
    assert data.annotated == {"home": ["Cat", "Dog"], "street": ["Dog", "Tram"]}
    scores = pd.DataFrame([[0.0, 1.0, 0.1, 0.2, 0.3]], columns=["onset", "offset", *data.labels])
    assert list(data.judged("street/cafe/s1_0.000_1.000", scores)) == ["onset", "offset", "Dog", "Tram"]
    assert data.counts == {"strong": 8 + 24, "weak": 4 + 1, "unlabelled": 5, "selection": 2 + 6, "test": 3}
    assert data.report["selection"] == "home: held out of strong, street: held out of strong"
    assert data.report["subsets"]["street/weak"]["unlisted"] == 9
    clips = {clip.id: clip for clip in data.manifests["strong"]}
    second = {name.rpartition("_")[2]: clip for name, clip in clips.items() if name.startswith("street/")}
    assert [(event.label, event.soft) for event in second["1.000"].events] == [("Dog", 0.3)]
    assert [(event.label, event.soft) for event in second["3.000"].events] == [("Dog", 0.5), ("Tram", 0.1)]
    assert (second["1.000"].labels, second["3.000"].labels) == ((), ("Dog",)), "0.3 is not heard, 0.5 is"
    held = data.events("selection")
    held = held[held.filename.str.startswith("street/")].dropna()
    assert set(held.event_label) == {"Dog"}
    assert len(held) == 4, "two recordings with two seconds each that half of the annotators heard"
    before = data.digest("strong")
    table(root / "street/metadata/validation/validation.tsv", EVENTS, [("x.wav", 0, 1, "Tram")])
    (root / "street/metadata/train/strong.tsv").write_text(
        (root / "street/metadata/train/strong.tsv").read_text().replace("0.3", "0.4")
    )
    assert prepare_tiny(root, tmp_path / "out", hold_out=0.2).digest("strong") != before


def test_a_soft_label_is_a_share(tmp_path):
    path = table(tmp_path / "soft.tsv", EVENTS[:-1] + "\tsoft_label\n", [("a.wav", 0, 1, "Dog", 1.5)])
    with pytest.raises(InputError, match=r"soft.tsv, line 2: the soft_label '1.5' is no share"):
        read_events(path)
