import logging
import math
from pathlib import Path

import pandas as pd
import pytest

from pmam_plugin.errors import InputError
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
    events = read_events(write(tmp_path, HEADER + "a.wav\t0.5\t1.25\tDog\nb.wav\t\t\t\nc.wav\n\n"), ["Dog"])
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


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("filename\tonset\tevent_label\na.wav\t0\tDog\n", "line 1: the column 'offset' is missing"),
        ("filename\tonset\toffset\toffset\tevent_label\n", "line 1: the column 'offset' occurs twice"),
        ("", "line 1: the column 'filename' is missing"),
        (HEADER + "a.wav\t0\t1\tDog\nb.wav\tx\t1\tDog\n", "line 3: the onset 'x' is not a number"),
        (HEADER + "a.wav\t0\tnan\tDog\n", "line 2: the offset 'nan' is not a number"),
        (HEADER + "a.wav\t0\t\tDog\n", "line 2: the offset '' is not a number"),
        (HEADER + "a.wav\t2\t1\tDog\n", "line 2: the offset '1' lies before the onset"),
        (HEADER + "a.wav\t-1\t1\tDog\n", "line 2: the onset '-1' lies before the clip"),
        (HEADER + "a.wav\t0\t1\tWolf\n", "line 2: the event_label 'Wolf' is no known class; the classes are Dog, Cat"),
        (HEADER + "a.wav\t0\t1\t\n", "line 2: the event_label '' is empty"),
        (HEADER + "\t0\t1\tDog\n", "line 2: the filename '' is empty"),
        (HEADER + "a.wav\t0\t1\tDog\tCat\n", "line 2: 5 fields where the header has 4"),
    ],
)
def test_a_broken_event_table_is_refused_with_its_line(tmp_path, text, complaint):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=r"table\.tsv") as caught:
        read_events(path, ["Dog", "Cat"])
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_absent_and_binary_files_and_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_events(tmp_path / "none.tsv")
    with pytest.raises(InputError, match="is a folder"):
        read_events(tmp_path)
    (tmp_path / "noise.tsv").write_bytes(b"RIFF\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="cannot be read"):
        read_events(tmp_path / "noise.tsv")


def test_weak_labels_are_tuples_and_an_empty_cell_means_none(tmp_path):
    table = read_weak(write(tmp_path, "filename\tevent_labels\na.wav\tDog, Cat\nb.wav\t\n"))
    assert table["event_labels"].tolist() == [("Dog", "Cat"), ()]


def test_broken_weak_tables_and_durations_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"line 3: the filename 'a.wav' is listed for the second time"):
        read_weak(write(tmp_path, "filename\tevent_labels\na.wav\tDog\na.wav\tCat\n"))
    with pytest.raises(InputError, match=r"line 2: the event_labels 'Dog,Wolf' holds an unknown class"):
        read_weak(write(tmp_path, "filename\tevent_labels\na.wav\tDog,Wolf\n"), ["Dog"])
    with pytest.raises(InputError, match=r"line 2: the duration '0' is not positive"):
        read_durations(write(tmp_path, "filename\tduration\na.wav\t0\n"))


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


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("a.wav,0,5,1,5,Dog", "line 2: 6 fields where the header has 4; remove or quote what is too much; a decimal"),
        ("a.wav,0.5,1.5,Dishes, pots", "line 2: 5 fields where the header has 4"),
        ('a.wav,0.5,1.5,"Dog\nb.wav,1,2,Cat', "line 2: a quotation mark is not closed"),
        ("a.wav,0.5,1_0,Dog", "line 2: the offset '1_0' is not a number"),
        ("a.wav,0.5,٢,Dog", "is not a number"),
        ("a.wav,0.5,0x2,Dog", "is not a number"),
        ("a.wav,1e400,2,Dog", "is not a number"),
    ],
)
def test_what_could_be_read_wrongly_is_refused(tmp_path, row, complaint):
    with pytest.raises(InputError) as error:
        read_events(write(tmp_path, "filename,onset,offset,event_label\n" + row + "\n", "t.csv"))
    assert complaint in str(error.value)


def test_a_lone_inch_mark_belongs_to_a_name_only_in_pairs(tmp_path):
    assert read_events(write(tmp_path, HEADER + 'a.wav\t0\t1\t5"-10" tile\n'))["event_label"].tolist() == [
        '5"-10" tile'
    ]
    with pytest.raises(InputError, match="line 2: a quotation mark is not closed; close it, or double it"):
        read_events(write(tmp_path, HEADER + 'a.wav\t0\t1\t5" tile\nb.wav\t0\t1\tDog\n'))


def test_text_of_another_encoding_names_its_line(tmp_path):
    (tmp_path / "t.tsv").write_bytes((HEADER + "a.wav\t0\t1\tDog\nb.wav\t0\t1\tHülle\n").encode("latin-1"))
    with pytest.raises(InputError, match=r"t.tsv, line 3: cannot be read as UTF-8 text; save the table as UTF-8"):
        read_events(tmp_path / "t.tsv")


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


def test_a_clip_spelt_in_two_ways_is_listed_twice(tmp_path):
    with pytest.raises(InputError, match=r"line 3: the filename '\./a\.WAV' is listed for the second time"):
        read_weak(write(tmp_path, "filename\tevent_labels\na.wav\tDog\n./a.WAV\tCat\n"))


def test_an_event_without_length_counts_alike_for_every_measure_and_in_training():
    truth = pd.DataFrame(
        [("a", 3.0, 3.0, "Dog"), ("a", 10.0, 10.0, "Cat")], columns=["filename", "onset", "offset", "event_label"]
    )
    figures = evaluate_events(truth, truth, {"a": 10.0}, bootstrap=0)
    assert figures["event_f1_macro"] == figures["segment_f1_macro"] == figures["clip_f1_macro"] == 1.0
    fitted = clip_events(truth, {"a": 10.0}, "truth")
    assert LabelEncoder(["Cat", "Dog"], 10.0, 100, 10.0).encode_strong(fitted).sum(axis=0).tolist() == [1.0, 1.0]
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
