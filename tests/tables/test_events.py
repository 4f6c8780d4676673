import logging
import math
from pathlib import Path

import pandas as pd
import pytest

from pmam_plugin.evaluation import evaluate_events, evaluate_scores
from pmam_plugin.labels import LabelEncoder
from pmam_plugin.tables import (
    clip_events,
    join_names,
    read_durations,
    read_events,
    read_weak,
    split_names,
    write_events,
    write_weak,
)
from tests.support import shared

HEADER = "filename\tonset\toffset\tevent_label\n"


def write(folder: Path, text: str, name: str = "table.tsv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_events_and_event_free_clips_are_read(tmp_path):
    events = read_events(write(tmp_path, HEADER + "a.wav\t0.5\t1.25\tDog\nb.wav\t\t\t\nc.wav\n\n"))
    assert events["filename"].tolist() == ["a.wav", "b.wav", "c.wav"]
    assert events["event_label"].tolist() == ["Dog", None, None]
    assert events.loc[0, ["onset", "offset"]].tolist() == [0.5, 1.25]
    assert events["onset"][1:].isna().all()


def test_columns_may_stand_in_any_order_beside_others_and_commas_separate_too(tmp_path):
    path = write(tmp_path, ",event_label,onset,offset,filename\n0,Cat,0.0,9.984,Ya.wav\n", "predictions.csv")
    assert read_events(path).to_dict("records") == [
        {"filename": "Ya.wav", "onset": 0.0, "offset": 9.984, "event_label": "Cat"}
    ]


def test_windows_line_ends_and_byte_order_marks_do_not_matter(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + (HEADER + "a.wav\t0\t1\tDog\n").replace("\n", "\r\n").encode())
    assert read_events(path)["event_label"].tolist() == ["Dog"]


def test_weak_labels_are_tuples_and_an_empty_cell_means_none(tmp_path):
    table = read_weak(write(tmp_path, "filename\tevent_labels\na.wav\tDog, Cat\nb.wav\t\n"))
    assert table["event_labels"].tolist() == [("Dog", "Cat"), ()]


def test_events_are_cut_at_the_end_of_their_recording_and_counted(tmp_path, caplog):
    events = read_events(
        write(tmp_path, HEADER + "a.wav\t9\t10.1\tDog\na.wav\t10.05\t10.1\tDog\nb.wav\t\t\t\nc.wav\t1\t2\tDog\n")
    )
    with caplog.at_level(logging.WARNING):
        cut = clip_events(events, {"a.wav": 10.0, "b.wav": 10.0}, "table.tsv")
    assert cut["offset"].tolist()[:1] == [10.0]
    assert cut["filename"].tolist() == ["a.wav", "b.wav", "c.wav"]
    assert events["offset"][0] == 10.1
    assert "1 events end after" in caplog.text
    assert "1 events begin after the end" in caplog.text


def test_the_real_annotations_of_desed_are_read():
    strong = read_events(shared("desed_metadata/train/audioset_strong.tsv"))
    weak = read_weak(shared("desed_metadata/train/weak.tsv"))
    test = read_events(shared("desed_metadata/validation/validation.tsv"))
    durations = read_durations(shared("desed_metadata/validation/validation_durations.tsv"))
    assert (len(strong), strong["filename"].nunique(), len(weak)) == (15422, 3463, 1578)
    assert (len(test), test["event_label"].isna().sum(), len(durations)) == (4239, 15, 1168)
    cut = clip_events(test, durations, "validation.tsv")
    assert len(cut) == len(test)
    ends = cut["filename"].map(durations)
    assert bool(((cut["offset"] <= ends) | cut["offset"].isna()).all())
    assert math.isclose(test["offset"].max(), 10.115)
    assert isinstance(cut, pd.DataFrame)


ROWS = [("a.wav", 0.5, 1.25, "Dog"), ("b.wav", 0.0, 2.5, "Katze, grau"), ("ü.wav", 1.0, 2.0, 'the "big" one')]


def as_text(separator, comma=False, quote=False, header="filename onset offset event_label", end="\n"):
    def cell(value):
        text = str(value)
        if isinstance(value, float):
            return text.replace(".", ",") if comma else text
        return '"' + text.replace('"', '""') + '"' if quote or separator in text or '"' in text else text

    lines = [header.split(), *ROWS]
    return end.join(separator.join(cell(value) for value in line) for line in lines) + end


@pytest.mark.parametrize(
    "data",
    {
        "tabs": as_text("\t").encode(),
        "commas": as_text(",").encode(),
        "R's quotes": as_text("\t", quote=True).encode(),
        "a spreadsheet where decimals have commas": as_text(";", comma=True).encode(),
        "tabs and decimal commas": as_text("\t", comma=True).encode(),
        "header in capitals": as_text(",", header="FileName ONSET Offset Event_Label").encode(),
        "Windows": b"\xef\xbb\xbf" + as_text("\t", end="\r\n").encode(),
        "old Macs": as_text("\t", end="\r").encode(),
        "Excel's Unicode text": as_text("\t", end="\r\n").encode("utf-16"),
        "UTF-16 without a mark": as_text("\t").encode("utf-16-le"),
        "UTF-32": as_text("\t").encode("utf-32"),
        "trailing separators and blank lines": as_text(",").replace("Dog\n", "Dog,,\n\n").encode(),
    }.items(),
    ids=lambda item: item[0],
)
def test_every_way_of_writing_a_table_gives_the_same_events(tmp_path, data):
    (tmp_path / "t.csv").write_bytes(data[1])
    assert list(read_events(tmp_path / "t.csv").itertuples(index=False, name=None)) == ROWS


def test_a_lone_inch_mark_belongs_to_a_name_only_in_pairs(tmp_path):
    assert read_events(write(tmp_path, HEADER + 'a.wav\t0\t1\t5"-10" tile\n'))["event_label"].tolist() == [
        '5"-10" tile'
    ]


@pytest.mark.parametrize("names", [("Dog",), (), ("Dishes, pots, and pans", "Dog"), ('say "a"', "b, c"), (" x", "y")])
def test_class_names_hold_any_character_also_several_in_a_field(tmp_path, names):
    stripped = tuple(name.strip() for name in names)
    assert split_names(join_names(names)) == stripped
    write_weak(tmp_path / "weak.tsv", {"a.wav": names, "b.wav": ("Cat",)})
    assert read_weak(tmp_path / "weak.tsv")["event_labels"].tolist() == [stripped, ("Cat",)]


def test_written_events_are_read_back(tmp_path):
    events = pd.DataFrame(ROWS, columns=["filename", "onset", "offset", "event_label"])
    write_events(tmp_path / "deep/e.tsv", events)
    pd.testing.assert_frame_equal(read_events(tmp_path / "deep/e.tsv"), events)


def test_an_event_without_length_counts_alike_for_every_measure_and_in_training():
    truth = pd.DataFrame(
        [("a", 3.0, 3.0, "Dog"), ("a", 10.0, 10.0, "Cat")], columns=["filename", "onset", "offset", "event_label"]
    )
    figures = evaluate_events(truth, truth, {"a": 10.0}, bootstrap=0)
    assert figures["event_f1_macro"] == figures["segment_f1_macro"] == figures["clip_f1_macro"] == 1.0
    fitted = clip_events(truth, {"a": 10.0}, "truth")
    rows = fitted[["onset", "offset", "event_label"]].itertuples(index=False)
    assert LabelEncoder(["Cat", "Dog"], 10.0, 100, 10.0).encode_strong(rows).sum(axis=0).tolist() == [1.0, 1.0]
    frames = pd.DataFrame({"onset": [0.0, 3.0, 3.002], "offset": [3.0, 3.002, 10], "Cat": 0.0, "Dog": [0.0, 1.0, 0.0]})
    assert evaluate_scores({"a": frames}, truth[:1], {"a": 10.0}, ["Dog"], bootstrap=0)["psds2"] == 1.0


def test_an_event_late_by_just_the_collar_is_in_time():
    def table(onset, offset):
        return pd.DataFrame([("a", onset, offset, "Dog")], columns=["filename", "onset", "offset", "event_label"])

    for onset in (0.1, 0.3, 0.7, 1.1, 5.4):
        truth, late = table(onset, onset + 0.5), table(onset + 0.2, onset + 0.7)
        assert evaluate_events(late, truth, {"a": 10.0}, bootstrap=0)["event_f1_macro"] == 1.0
        later = table(onset + 0.2001, onset + 0.7)
        assert evaluate_events(later, truth, {"a": 10.0}, bootstrap=0)["event_f1_macro"] == 0.0
