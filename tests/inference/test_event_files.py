import json

import pandas as pd
import pytest

from pmam_plugin.errors import InputError
from pmam_plugin.inference.event_files import write_event_file
from pmam_plugin.tables import read_events

SECONDS = {"a b.wav": 10.0, "sub/c.wav": 3.25, "empty.wav": 1.0}
EVENTS = pd.DataFrame(
    [
        ("a b.wav", 0.5, 1.25, "Dog bark", 0.75),
        ("a b.wav", 1.0, 9.9999999, "Speech", 0.5),
        ("sub/c.wav", 0.0, 3.25, "Dog bark", 1.0),
    ],
    columns=["filename", "onset", "offset", "event_label", "score"],
)


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".TSV"])
def test_tables_come_back(tmp_path, ending):
    assert write_event_file(tmp_path / f"e{ending}", EVENTS, SECONDS) == [tmp_path / f"e{ending}"]
    back = read_events(tmp_path / f"e{ending}")
    pd.testing.assert_frame_equal(
        back[list(EVENTS.columns)[:4]], EVENTS.round(6)[list(EVENTS.columns)[:4]], check_dtype=False
    )


def test_json_names_every_recording(tmp_path):
    write_event_file(tmp_path / "e.json", EVENTS, SECONDS, {"model": "x"})
    content = json.loads((tmp_path / "e.json").read_text())
    assert content["model"] == "x"
    assert [r["filename"] for r in content["recordings"]] == list(SECONDS)
    assert content["recordings"][0]["events"][0] == {
        "onset": 0.5,
        "offset": 1.25,
        "event_label": "Dog bark",
        "score": 0.75,
    }
    assert content["recordings"][2] == {"filename": "empty.wav", "duration": 1.0, "events": []}


def test_rttm_has_ten_fields_per_event(tmp_path):
    write_event_file(tmp_path / "e.rttm", EVENTS, SECONDS)
    lines = (tmp_path / "e.rttm").read_text().splitlines()
    assert lines[0] == "SPEAKER a_b 1 0.500 0.750 <NA> <NA> Dog_bark 0.7500 <NA>"
    assert [len(line.split(" ")) for line in lines] == [10, 10, 10]


def test_rttm_refuses_recordings_that_it_cannot_tell_apart(tmp_path):
    with pytest.raises(InputError, match=r"a b\.wav and a_b\.flac are both a_b in RTTM; rename one"):
        write_event_file(tmp_path / "e.rttm", EVENTS[:0], {"a b.wav": 1.0, "a_b.flac": 1.0})
    assert not (tmp_path / "e.rttm").exists()


def test_audacity_labels_are_one_file_per_recording(tmp_path):
    files = write_event_file(tmp_path / "e.txt", EVENTS, SECONDS)
    assert [file.name for file in files] == ["e_a_b.txt", "e_sub_c.txt", "e_empty.txt"]
    assert files[0].read_text() == "0.500000\t1.250000\tDog bark\n1.000000\t10.000000\tSpeech\n"
    assert files[2].read_text() == ""
    one = write_event_file(tmp_path / "one.txt", EVENTS[EVENTS.filename == "sub/c.wav"], {"sub/c.wav": 3.25})
    assert one == [tmp_path / "one.txt"]
    assert one[0].read_text() == "0.000000\t3.250000\tDog bark\n"


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".json", ".rttm", ".txt"])
def test_no_events_still_make_a_file(tmp_path, ending):
    (file,) = write_event_file(tmp_path / f"e{ending}", EVENTS[:0], {"a.wav": 1.0})
    assert file.exists()


def test_names_that_become_equal_are_numbered(tmp_path):
    files = write_event_file(tmp_path / "e.txt", EVENTS[:0], {"a b.wav": 1.0, "a/b.wav": 1.0, "a_b.wav": 1.0})
    assert [file.name for file in files] == ["e_a_b.txt", "e_a_b_2.txt", "e_a_b_3.txt"]


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"e\.xlsx.*\.rttm"):
        write_event_file(tmp_path / "e.xlsx", EVENTS, SECONDS)
