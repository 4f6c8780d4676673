import logging
import math
from pathlib import Path

import pandas as pd
import pytest

from pmam_plugin.data.annotations import clip_events, read_durations, read_events, read_weak
from pmam_plugin.errors import InputError
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
    assert "2 events end after" in caplog.text
    assert "1 events have no length" in caplog.text


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
