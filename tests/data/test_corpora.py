"""Corpora laid out as their downloads are, a few seconds each, come out as sets that a recipe can train on."""

import csv
import json

import datasets
import numpy as np
import pytest
from typer.testing import CliRunner

from pmam_plugin.audio import write_wav
from pmam_plugin.cli import app
from pmam_plugin.data import class_list, prepare
from pmam_plugin.data.corpora import CORPORA, write_corpus
from pmam_plugin.data.corpora.audioset import clip_key
from pmam_plugin.data.manifest import Event, merge_events
from tests.audio.files import encoded, noise
from tests.data.shards import pack


def sound(path, seconds=2.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(
        path, np.random.default_rng(len(str(path))).normal(0, 0.1, round(seconds * 8000)).astype(np.float32), 8000
    )


def text(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("\t".join(map(str, row)) for row in rows) + "\n")


def rows_of(path):
    with path.open() as stream:
        return list(csv.reader(stream, delimiter="\t"))[1:]


def lay_out(kind, source, folder, classes=None, **options):
    write_corpus(CORPORA[kind](source, **options), folder, classes)
    return folder


def urban(source):
    for part in ("train", "validate", "test"):
        for number in range(3):
            sound(source / f"audio/{part}/soundscape_{part}_{number}.wav", 10.0)
            text(
                source / f"annotations/{part}/soundscape_{part}_{number}.txt",
                (6.6, 9.5, "siren"),
                (9.0, 10.0, "siren"),
                (1.0, 2.0, "dog_bark"),
            )
    text(source / "annotations/test/soundscape_test_9.txt", (0, 1, "siren"))


def audioset(source):
    header = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
    text(
        source / "audioset_train_strong.tsv",
        header,
        ("-0RWZT-miFs_30000", 0.5, 2.0, "/m/a"),
        ("-0RWZT-miFs_60000", 1.0, 3.0, "/m/b"),
        ("Y23456789_1_0", 0.0, 1.0, "/m/b"),
    )
    text(source / "audioset_eval_strong.tsv", header, ("abcdefghijk_5000", 0.0, 1.5, "/m/a"))
    text(source / "mid_to_display_name.tsv", ("/m/a", "Dishes, pots, and pans"), ("/m/b", "Dog"))
    sound(source / "clips/-0RWZT-miFs_30000.wav", 10)
    sound(source / "clips/Y-0RWZT-miFs_60.000_70.000.wav", 10)
    sound(source / "clips/Yabcdefghijk.wav", 10)


def maestro(source):
    for number in range(1, 6):
        name = f"cafe_restaurant_{number:02}"
        sound(source / f"development_audio/cafe_restaurant/{name}.wav", 4.0)
        text(
            source / f"development_annotation/soft_labels_cafe_restaurant/{name}.txt",
            (0, 1, "people talking", 0.7),
            (1, 2, "people talking", 0.5),
            (2, 3, "people talking", 0.49),
            (1, 2, "cutlery and dishes", 0.2),
        )


def tut(source):
    for name in ("a001", "a002"):
        sound(source / f"audio/street/{name}.wav", 4.0)
        text(source / f"meta/street/{name}.ann", (f"audio/street/{name}.wav", "street", 0.5, 1.75, "car"))
    text(source / "evaluation_setup/street_fold1_train.txt", ("audio/street/a001.wav", "street", 0.5, 1.75, "car"))
    text(source / "evaluation_setup/street_fold1_test.txt", ("audio/street/a002.wav", "street"))


def urbansound(source):
    rows = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for fold in (1, 2, 10):
        sound(source / f"audio/fold{fold}/{fold}-3-0-0.wav")
        rows.append(f"{fold}-3-0-0.wav,{fold},0,2,1,{fold},3,dog_bark")
    rows.append("99-1-0-0.wav,99,0,2,1,1,1,car_horn")
    (source / "metadata").mkdir()
    (source / "metadata/UrbanSound8K.csv").write_text("\n".join(rows) + "\n")


def esc(source):
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        sound(source / f"audio/{fold}-100032-A-0.wav", 5.0)
        rows.append(f"{fold}-100032-A-0.wav,{fold},0,{'dog' if fold % 2 else 'rain'},True,100032,A")
    (source / "meta").mkdir()
    (source / "meta/esc50.csv").write_text("\n".join(rows) + "\n")


def task5(source):
    sound(source / "audio/DevNode1_ex1_1.wav")
    text(source / "meta.txt", ("audio/DevNode1_ex1_1.wav", "absence", "DevNode1_ex1"))


def shards(source):
    pack(
        source / "x-000000.tar", {"a": {"wav": encoded(noise(1.0), "WAV")}, "b": {"flac": encoded(noise(1.0), "FLAC")}}
    )


def parquet(source):
    rows = [{"bytes": encoded(noise(1.0), "OGG"), "path": name} for name in ("a.ogg", None)]
    datasets.Dataset.from_dict({"audio": rows}).to_parquet(source / "train.parquet")


SOFT = "development_annotation/soft_labels_x"
MAKERS = {
    "urban-sed": (urban, ["dog_bark", "siren"], {"strong": 3, "selection": 3, "test": 3}),
    "audioset-strong": (audioset, ["Dishes, pots, and pans", "Dog"], {"strong": 2, "test": 1}),
    "maestro-real": (maestro, ["cutlery and dishes", "people talking"], {"strong": 4, "test": 1}),
    "tut-sound-events": (tut, ["car"], {"strong": 1, "test": 1}),
    "urbansound8k": (urbansound, ["dog_bark"], {"weak": 2}),
    "esc50": (esc, ["dog", "rain"], {"weak": 4}),
    "dcase2018-task5": (task5, [], {"unlabelled": 1}),
    "webdataset": (shards, [], {"unlabelled": 2}),
    "hugging-face": (parquet, [], {"unlabelled": 2}),
}


@pytest.mark.parametrize("kind", CORPORA)
def test_a_download_becomes_data_that_can_be_prepared(kind, tmp_path):
    make, classes, counts = MAKERS[kind]
    (tmp_path / "source").mkdir()
    make(tmp_path / "source")
    done = CliRunner().invoke(app, ["corpus", kind, str(tmp_path / "source"), str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    for part, count in counts.items():
        assert f"{count} {part}" in done.output
    if classes:
        assert class_list(tmp_path / "out") == classes
    test = "validation" if "test" in counts else "none"
    selection = "synthetic_validation" if "selection" in counts else "none"
    found = prepare(tmp_path / "out", tmp_path / "manifests", test=test, selection=selection, max_unreadable=0.5)
    assert found.counts == counts, json.dumps(found.report, default=str)


def test_overlaps_of_a_class_are_one_event_whatever_the_digits(tmp_path):
    urban(tmp_path / "source")
    table = "metadata/train/audioset_strong.tsv"
    merged = rows_of(lay_out("urban-sed", tmp_path / "source", tmp_path / "merged") / table)
    assert merged[:2] == [
        ["soundscape_train_0.wav", "1.0", "2.0", "dog_bark"],
        ["soundscape_train_0.wav", "6.6", "10.0", "siren"],
    ]
    plain = rows_of(lay_out("urban-sed", tmp_path / "source", tmp_path / "plain", merge=False) / table)
    assert len(plain) == 9
    assert merge_events([Event(0, 1, "a"), Event(1, 2, "a"), Event(2.5, 3, "a")]) == (
        Event(0, 2, "a"),
        Event(2.5, 3, "a"),
    )


def test_audioset_clips_are_found_under_every_downloaders_name(tmp_path):
    assert clip_key("-0RWZT-miFs_30000") == ("-0RWZT-miFs", 30000)
    assert clip_key("Y-0RWZT-miFs_30.000_40.000") == ("-0RWZT-miFs", 30000)
    assert clip_key("-0RWZT-miFs_30_40") == ("-0RWZT-miFs", 30000)
    assert clip_key("-0RWZT-miFs_30000_40000") == ("-0RWZT-miFs", 30000)
    assert clip_key("Y23456789_1_5000") == ("Y23456789_1", 5000), "an identity may begin with Y"
    assert clip_key("YY23456789_1") == ("Y23456789_1", None)
    assert clip_key("readme") is None
    audioset(tmp_path / "source")
    found = CORPORA["audioset-strong"](tmp_path / "source")
    assert [r.name for r in found.parts["strong"]] == [
        "Y-0RWZT-miFs_30.000_40.000.wav",
        "Y-0RWZT-miFs_60.000_70.000.wav",
    ]
    assert found.missing == ["Y23456789_1_0"]
    assert found.parts["test"][0].events == (Event(0.0, 1.5, "Dishes, pots, and pans"),)


def test_soft_labels_train_as_they_are_and_are_events_from_a_half_on(tmp_path):
    maestro(tmp_path / "source")
    names = {"people talking": "Speech", "cutlery and dishes": "Speech"}
    out = lay_out("maestro-real", tmp_path / "source", tmp_path / "out", names)
    assert rows_of(out / "metadata/validation/validation.tsv") == [
        ["cafe_restaurant/cafe_restaurant_05.wav", "0.0", "2.0", "Speech"]
    ]
    rows = rows_of(out / "metadata/train/audioset_strong.tsv")[:4]
    assert [row[1:] for row in rows] == [
        ["0.0", "1.0", "Speech", "0.7"],
        ["1.0", "2.0", "Speech", "0.2"],
        ["1.0", "2.0", "Speech", "0.5"],
        ["2.0", "3.0", "Speech", "0.49"],
    ]


def test_a_fold_held_out_is_in_no_set(tmp_path):
    (tmp_path / "source").mkdir()
    urbansound(tmp_path / "source")
    names = [r.name for r in CORPORA["urbansound8k"](tmp_path / "source", fold=2).parts["weak"]]
    assert names == ["fold1/1-3-0-0.wav", "fold10/10-3-0-0.wav"]


def test_a_class_map_renames_joins_and_leaves_out(tmp_path):
    urban(tmp_path / "source")
    out = lay_out("urban-sed", tmp_path / "source", tmp_path / "out", {"dog_bark": "Dog"})
    assert class_list(out) == ["Dog"]
    both = lay_out("urban-sed", tmp_path / "source", tmp_path / "both", {"dog_bark": "Noise", "siren": "Noise"})
    assert rows_of(both / "metadata/train/audioset_strong.tsv")[1] == ["soundscape_train_0.wav", "6.6", "10.0", "Noise"]


def test_written_again_with_less_it_holds_no_more_than_that(tmp_path):
    urban(tmp_path / "source")
    out = lay_out("urban-sed", tmp_path / "source", tmp_path / "out")
    (tmp_path / "source/audio/train/soundscape_train_2.wav").unlink()
    lay_out("urban-sed", tmp_path / "source", out)
    assert len(list((out / "audio/train/strong_label_real").iterdir())) == 2


def test_wrong_options_are_refused(tmp_path):
    def run(*arguments):
        return CliRunner().invoke(app, ["corpus", *arguments, str(tmp_path), str(tmp_path / "out")])

    assert "choose from audioset-strong" in str(run("desert").exception)
    assert "--fold 1: means nothing for urban-sed" in str(run("urban-sed", "--fold", "1").exception)
    (tmp_path / "map.tsv").write_text("dog\tDog\ndog\tHund\n")
    urban(tmp_path)
    assert "line 2: 'dog' is mapped" in str(run("urban-sed", "--classes", str(tmp_path / "map.tsv")).exception)
    (tmp_path / "map.tsv").write_text("cat\tCat\n")
    assert "it has dog_bark, siren" in str(run("urban-sed", "--classes", str(tmp_path / "map.tsv")).exception)
