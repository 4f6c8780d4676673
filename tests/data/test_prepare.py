"""What becomes of a corpus."""

import shutil

import numpy as np
import pandas as pd
import pytest

from pmam_plugin.data import class_list, prepare
from pmam_plugin.errors import InputError
from pmam_plugin.tables import read_events
from tests.data.corpus import EVENTS, noise, prepare_tiny, table, tiny_corpus
from tests.support import shared


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
