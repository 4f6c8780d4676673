"""Labels come back from every tool's format as they were, or what cannot be held is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from pmam_plugin.errors import InputError
from pmam_plugin.tables import read_events
from pmam_plugin.tables.annotations import COLUMNS, Annotations
from pmam_plugin.tables.formats import FORMATS, format_of, read_annotations, write_annotations

SECONDS = {"a b": 10.0, "sub/c": 3.25, "empty": 1.0}
EVENTS = pd.DataFrame(
    [
        ("a b", 0.5, 1.25, "Dog bark", 0.75),
        ("a b", 1.0, 9.9999999, "Speech", 0.5),
        ("a b", 1.0, 1.5, "Speech", 0.5),
        ("sub/c", 0.0, 3.25, "Dog bark", 1.0),
    ],
    columns=list(COLUMNS),
)
ANNOTATIONS = Annotations(EVENTS, SECONDS)


def found(annotations, scores=True, spaces=True):
    """Events as a sorted list, for comparison."""
    rows = []
    for event in annotations.rows():
        label = event.label if spaces else event.label.replace(" ", "_")
        name = event.filename if spaces else event.filename.replace(" ", "_")
        rows.append((name, event.onset, round(event.offset, 5), label, event.score if scores else 0.0))
    return sorted(rows)


@pytest.mark.parametrize("name", FORMATS)
def test_labels_come_back_from_a_folder_of_every_format(tmp_path, name):
    write_annotations(f"{tmp_path}/labels/", ANNOTATIONS, name)
    back = read_annotations(tmp_path / "labels")
    form = FORMATS[name]
    spaces = name != "rttm"  # white space in RTTM is an underscore
    assert found(back, form.scores, spaces) == found(ANNOTATIONS, form.scores, spaces)
    if name not in ("rttm", "raven", "elan", "sonic-visualiser"):  # these have no place for a recording without events
        assert set(back.seconds) == set(SECONDS)


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_any_format_becomes_any_other(tmp_path, source, target):
    """Once around: one recording, all events, through two formats."""
    first, second = (tmp_path / f"dog{FORMATS[name].endings[0]}" for name in (source, target))
    given = Annotations(EVENTS[:3].assign(filename="dog", event_label=["Dog", "Speech", "Speech"]), {"dog": 10.0})
    write_annotations(first, given, source)
    write_annotations(second, read_annotations(first), target)
    back = read_annotations(second)
    scores = FORMATS[source].scores and FORMATS[target].scores
    assert found(back, scores) == found(given, scores)


@settings(max_examples=40, deadline=None)
@given(
    events=st.lists(
        st.tuples(
            st.integers(0, 9_000_000),
            st.integers(0, 1_000_000),
            st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=8),
        ),
        max_size=6,
    )
)
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "rttm"])
def test_any_class_name_and_time_is_carried(tmp_path_factory, name, events):
    file = tmp_path_factory.mktemp("labels") / f"dog{FORMATS[name].endings[0]}"
    rows = [("dog", a / 1e6, (a + length) / 1e6, label, np.nan) for a, length, label in events]
    given = Annotations(pd.DataFrame(rows, columns=list(COLUMNS)), {"dog": 10.0})
    write_annotations(file, given, name)
    assert found(read_annotations(file, name), scores=False) == found(given, scores=False)


def test_an_independent_reader_understands_our_textgrid(tmp_path):
    textgrid = pytest.importorskip("praatio.textgrid", reason="praatio is in the dev extra")
    labels = ["Dog", 'the "big" one', "Speech"]
    write_annotations(
        tmp_path / "a.TextGrid", Annotations(EVENTS[:3].assign(filename="a", event_label=labels), {"a": 10.0})
    )
    grid = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=False, reportingMode="error")
    assert sorted(tuple(entry) for tier in grid.tiers for entry in tier.entries) == [
        (0.5, 1.25, "Dog"),
        (1.0, 1.5, "Speech"),
        (1.0, 10.0, 'the "big" one'),
    ]
    for form in ("short_textgrid", "long_textgrid"):
        grid.save(str(tmp_path / "b.TextGrid"), form, includeBlankSpaces=True)
        back = read_annotations(tmp_path / "b.TextGrid")
        assert sorted(back.events["event_label"]) == sorted(labels)
        assert back.seconds == {"b": 10.0}


RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tAnnotation\n"
    "1\tWaveform 1\t1\t0.5\t1.25\t0\t8000\tDog\n1\tSpectrogram 1\t1\t0.5\t1.25\t100\t900\tDog\n"
    "2\tSpectrogram 1\t1\t2\t3\t100\t900\tCat\n"
)
TEXTGRID = (
    'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n4\n<exists>\n2\n"IntervalTier"\n"x"\n0\n4\n3\n'
    '0\n0.5\n""\n0.5\n1.25\n"Dog"\n1.25\n4\n""\n"TextTier"\n"p"\n0\n4\n1\n2\n"Cat" ! a remark with "marks\n'
)
STUDIO = [
    {
        "data": {"audio": "/data/upload/3/0a1b2c3d-a.wav"},
        "annotations": [
            {"was_cancelled": True, "result": []},
            {
                "result": [
                    {"type": "labels", "value": {"start": 0.5, "end": 1.25, "labels": ["Dog"]}, "original_length": 4.0},
                    {"type": "labels", "value": {"start": 2, "end": 3, "labels": ["Cat"]}},
                    {"type": "textarea", "value": {"text": ["a remark"]}},
                ]
            },
        ],
    }
]
FOREIGN = {
    "raven": ("a.Table.1.selections.txt", RAVEN, [3.0]),
    "audacity": ("a.txt", "0.5\t1.25\tDog\n\\\t100.0\t900.0\n2,0\t3,0\tCat\n", [3.0]),
    "audacity at a point": ("a.txt", "0.5\t1.25\tDog\n2\t2\tCat\n", [2.0]),
    "textgrid, short": ("a.TextGrid", TEXTGRID, [2.0]),
    "elan with a header": (
        "a.txt",
        "Tier\tParticipant\tBegin Time - hh:mm:ss.ms\tBegin Time - ss.msec\tEnd Time - hh:mm:ss.ms\t"
        "End Time - ss.msec\tAnnotation\n"
        "x\t\t00:00:00.500\t0.5\t00:00:01.250\t1.25\tDog\nx\t\t00:00:02.000\t2.0\t00:00:03.000\t3.0\tCat\n",
        [3.0],
    ),
    "elan with a column per tier": (
        "a.txt",
        "Begin Time - msec\tEnd Time - msec\tone\ttwo\n500\t1250\tDog\t\n2000\t3000\t\tCat\n",
        [3.0],
    ),
    "elan without a header": (
        "a.txt",
        "x\t\t00:00:00.500\t0.5\t00:00:01.250\t1.25\t00:00:00.750\t0.75\tDog\n"
        "x\t\t00:00:02.000\t2.0\t00:00:03.000\t3.0\t00:00:01.000\t1.0\tCat\n",
        [3.0],
    ),
    "label studio": ("export.json", json.dumps(STUDIO), [3.0]),
    "label studio, minimal": (
        "export.json",
        json.dumps(
            [
                {
                    "audio": "/data/local-files/?d=a.wav",
                    "label": [
                        {"start": 0.5, "end": 1.25, "labels": ["Dog"]},
                        {"start": 2, "end": 3, "labels": ["Cat"]},
                    ],
                }
            ]
        ),
        [3.0],
    ),
    "sonic visualiser": ("a.csv", '0.5,440,0.75,Dog\n2.000000000,1,1,"Cat"\n', [3.0]),
    "sonic visualiser with a header": ("a.csv", "TIME,VALUE,DURATION,LABEL\n0.5,1,0.75,Dog\n2,1,1,Cat\n", [3.0]),
    "rttm": (
        "x.rttm",
        ";; made by hand\nSPKR-INFO a 1 <NA> <NA> <NA> unknown Dog <NA> <NA>\n"
        "SPEAKER a 1 0.5 0.75 <NA> <NA> Dog <NA> <NA>\nSPEAKER a 1 2 1 <NA> <NA> Cat 0.5 <NA>\n",
        [3.0],
    ),
    "birdnet": (
        "a.BirdNET.results.csv",
        "Start (s),End (s),Scientific name,Common name,Confidence\n0.5,1.25,Canis,Dog,0.9\n2,3,Felis,Cat,0.8\n",
        [3.0],
    ),
    "semicolons and commas": ("a.csv", "Start;Ende;Duration;Class\n0,5;;0,75;Dog\n2,0;;1,0;Cat\n", [3.0]),
    "milliseconds": ("x.csv", "path,start_ms,end_ms,label\nd\\a.wav,500,1250,Dog\nd\\a.wav,2000,3000,Cat\n", [3.0]),
    "minutes": ("a.tsv", "onset\toffset\tevent\n0:00.5\t0:01.25\tDog\n0:02\t0:00:03\tCat\n", [3.0]),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_as_the_tools_write_them(tmp_path, kind):
    name, text, ends = FOREIGN[kind]
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / name).write_bytes(text.replace("\n", "\r\n").encode(encoding))
        events = read_annotations(tmp_path / name).events
        assert [name.replace("\\", "/").split("/")[-1].removesuffix(".wav") for name in events["filename"]] == ["a"] * 2
        assert list(events["event_label"]) == ["Dog", "Cat"]
        assert list(events["onset"]) == [0.5, 2.0]
        assert list(events["offset"]) == [1.25, *ends]


def test_a_recording_of_a_raven_sequence_counts_from_its_own_start(tmp_path):
    (tmp_path / "day.txt").write_text(
        "Selection\tView\tBegin Time (s)\tEnd Time (s)\tBegin Path\tBegin File\tFile Offset (s)\tAnnotation\n"
        "1\tSpectrogram 1\t60.5\t61.5\tD:\\x\\b.wav\tb.wav\t0.5\tDog\n"
    )
    (event,) = read_annotations(tmp_path / "day.txt").rows()
    assert event[1:5] == ("b.wav", 0.5, 1.5, "Dog")


def test_labels_find_the_recording_beside_them(tmp_path):
    (tmp_path / "day1").mkdir()
    (tmp_path / "day1" / "a.flac").touch()
    (tmp_path / "day1" / "a.Table.1.selections.txt").write_text(RAVEN)
    (tmp_path / "day1" / "b.wav.txt").write_text("")
    (tmp_path / "day1" / "notes.md").write_text("no labels")
    back = read_annotations(tmp_path)
    assert set(back.seconds) == {"day1/a.flac", "day1/b"}
    assert list(back.events["filename"]) == ["day1/a.flac"] * 2


def test_tables_have_desed_columns_and_rows_of_event_free_recordings(tmp_path):
    write_annotations(tmp_path / "e.tsv", ANNOTATIONS)
    events = read_events(tmp_path / "e.tsv")
    assert list(events["filename"]) == ["a b", "a b", "a b", "sub/c", "empty"]
    assert events["offset"][1] == 10.0
    write_annotations(tmp_path / "e.csv", ANNOTATIONS, detections=True)
    assert len(read_events(tmp_path / "e.csv")) == 4


def test_json_names_every_recording_and_facts(tmp_path):
    write_annotations(tmp_path / "e.json", ANNOTATIONS, facts={"model": "x"})
    content = json.loads((tmp_path / "e.json").read_text())
    assert content["model"] == "x"
    assert [r["filename"] for r in content["recordings"]] == list(SECONDS)
    first = {"onset": 0.5, "offset": 1.25, "event_label": "Dog bark", "score": 0.75}
    assert content["recordings"][0]["events"][0] == first
    assert content["recordings"][2] == {"filename": "empty", "duration": 1.0, "events": []}


def test_rttm_has_ten_fields_per_event(tmp_path):
    write_annotations(tmp_path / "e.rttm", ANNOTATIONS)
    lines = (tmp_path / "e.rttm").read_text().splitlines()
    assert lines[0] == "SPEAKER a_b 1 0.500000 0.750000 <NA> <NA> Dog_bark 0.75 <NA>"
    assert {len(line.split(" ")) for line in lines} == {10}


def test_formats_of_one_recording_are_a_file_for_each(tmp_path):
    files = write_annotations(tmp_path / "e.txt", ANNOTATIONS)
    assert [file.name for file in files] == ["e_a_b.txt", "e_sub_c.txt", "e_empty.txt"]
    assert files[0].read_text().startswith("0.500000\t1.250000\tDog bark\n")
    assert files[2].read_text() == ""
    equal = Annotations(EVENTS[:0], {"a b.wav": 1.0, "a/b.wav": 1.0, "a_b.wav": 1.0})
    files = write_annotations(tmp_path / "n.TextGrid", equal)
    assert [file.name for file in files] == ["n_a_b.TextGrid", "n_a_b_2.TextGrid", "n_a_b_3.TextGrid"]


@pytest.mark.parametrize("name", FORMATS)
def test_no_events_still_make_a_file(tmp_path, name):
    (file,) = write_annotations(tmp_path / "e.x", Annotations(EVENTS[:0], {"a.wav": 1.0}), name)
    assert file.exists()


def test_names_that_a_format_cannot_hold_are_refused(tmp_path):
    def one(label, name="a"):
        return Annotations(EVENTS[:1].assign(event_label=label, filename=name), {name: 1.0})

    for name in ("audacity", "raven", "elan"):
        with pytest.raises(InputError, match="cannot hold tabs or line breaks"):
            write_annotations(tmp_path / "e.x", one("a\tb"), name)
    both = Annotations(EVENTS[:2].assign(event_label=["a b", "a_b"]), SECONDS)
    with pytest.raises(InputError, match=r"a b and a_b are both a_b in RTTM; rename one"):
        write_annotations(tmp_path / "e.rttm", both)
    with pytest.raises(InputError, match=r"a b\.wav and a_b\.flac are both a_b in RTTM; rename one"):
        write_annotations(tmp_path / "e.rttm", Annotations(EVENTS[:0], {"a b.wav": 1.0, "a_b.flac": 1.0}))
    with pytest.raises(InputError, match="outside"):
        write_annotations(tmp_path, one("a", "../../x.wav"))
    with pytest.raises(InputError, match="two recordings would be written here"):
        write_annotations(tmp_path, Annotations(EVENTS[:0], {"a.wav": 1.0, "a.flac": 1.0}))
    assert not list(tmp_path.iterdir())


def test_two_files_for_one_recording_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("0\t1\tDog\n")
    (tmp_path / "a.TextGrid").write_text(TEXTGRID)
    with pytest.raises(InputError, match=r"a\.TextGrid and .*a\.txt both label a; keep one"):
        read_annotations(tmp_path)


def test_other_endings_and_formats_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"e\.xlsx.*\.rttm"):
        write_annotations(tmp_path / "e.xlsx", ANNOTATIONS)
    with pytest.raises(InputError, match=r"--format word: is no format; choose from tsv"):
        write_annotations(tmp_path / "e.txt", ANNOTATIONS, "word")
    with pytest.raises(InputError, match="holds no label file"):
        read_annotations(tmp_path)
    (tmp_path / "e.txt").write_text("")
    assert format_of(tmp_path / "e.txt") == "audacity"
