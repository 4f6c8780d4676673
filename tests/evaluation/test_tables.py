import numpy as np
import pandas as pd
import pytest

from pmam_plugin.errors import InputError
from pmam_plugin.evaluation import tables
from tests.evaluation.examples import scores_table
from tests.support import shared

HEADER = "filename\tonset\toffset\tevent_label\n"


def write(folder, text, name="events.tsv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_an_event_free_clip_is_a_row_without_times_and_label(tmp_path):
    events = tables.read_events(write(tmp_path, HEADER + "a.wav\t0.5\t1.25\tDog\nb.wav\t\t\t\n"))
    assert list(events.columns) == ["filename", "onset", "offset", "event_label"]
    assert events.loc[0].tolist() == ["a.wav", 0.5, 1.25, "Dog"]
    assert events.loc[1].isna().tolist() == [False, True, True, True]


def test_commas_other_columns_and_any_order_are_read(tmp_path):
    text = ",event_label,onset,offset,filename,score\n0,Dog,1.0,2.0,a.wav,0.75\n1,Cat,0,1,b.wav,\n"
    events = tables.read_events(write(tmp_path, text, "detections.csv"))
    assert list(events.columns) == ["filename", "onset", "offset", "event_label", "score"]
    assert events.loc[0].tolist() == ["a.wav", 1.0, 2.0, "Dog", 0.75]
    assert np.isnan(events.loc[1, "score"])


def test_byte_order_mark_windows_line_ends_and_blank_lines_are_harmless(tmp_path):
    text = ("\ufeff" + HEADER + "\na.wav\t0\t1\tDog\n\n").replace("\n", "\r\n")
    assert len(tables.read_events(write(tmp_path, text))) == 1


def test_a_class_called_none_or_na_is_a_class(tmp_path):
    events = tables.read_events(write(tmp_path, HEADER + "a.wav\t0\t1\tNA\nb.wav\t0\t1\tNone\n"))
    assert events["event_label"].tolist() == ["NA", "None"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.wav\t2\t1\tDog", "offset before its onset"),
        ("a.wav\tsoon\t1\tDog", "no number as its onset ('soon')"),
        ("a.wav\t0\tinf\tDog", "no number as its offset"),
        ("a.wav\t0\t\tDog", "no number as its offset"),
        ("a.wav\t0\t1\t", "no event_label"),
        ("a.wav\t-1\t1\tDog", "begins before the clip"),
        ("\t0\t1\tDog", "no filename"),
        ("a.wav\t0\t1\tFrog", "unknown event_label"),
        ("a.wav\t0", "no event_label"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, row, said):
    path = write(tmp_path, HEADER + "a.wav\t0\t1\tDog\n" + row + "\n")
    with pytest.raises(InputError) as caught:
        tables.read_events(path, labels=("Dog", "Cat"))
    assert f"{path}, line 3" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"filename\tonset\toffset\n", "column event_label is missing"),
        (b"", "not a text table"),
        (b"\xff\xfe\x00\x81", "not a text table"),
    ],
)
def test_a_file_that_is_no_events_table_is_named(tmp_path, content, said):
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=said) as caught:
        tables.read_events(path)
    assert str(path) in str(caught.value)


def test_an_absent_file_or_folder_is_named(tmp_path):
    for read in (tables.read_events, tables.read_weak, tables.read_durations):
        with pytest.raises(InputError, match=r"nowhere\.tsv: no such file"):
            read(tmp_path / "nowhere.tsv")
    for read in (tables.read_scores, tables.read_operating_points):
        with pytest.raises(InputError, match="nowhere: no such folder"):
            read(tmp_path / "nowhere")


def test_weak_labels_become_tuples(tmp_path):
    weak = tables.read_weak(write(tmp_path, "filename\tevent_labels\na.wav\tDog,Cat\nb.wav\t\n"))
    assert weak["event_labels"].tolist() == [("Dog", "Cat"), ()]


@pytest.mark.parametrize(
    ("row", "said"), [("b.wav\tDog,Frog", "unknown label"), ("a.wav\tDog", "lists a clip for the second time")]
)
def test_a_bad_weak_row_is_named(tmp_path, row, said):
    path = write(tmp_path, f"filename\tevent_labels\na.wav\tDog\n{row}\n")
    with pytest.raises(InputError, match=f"line 3: the row .*{said}"):
        tables.read_weak(path, labels=("Dog",))


def test_durations_are_seconds_by_file_name(tmp_path):
    assert tables.read_durations(write(tmp_path, "filename\tduration\na.wav\t10\nb.wav\t2.5\n")) == {
        "a.wav": 10.0,
        "b.wav": 2.5,
    }


@pytest.mark.parametrize(("row", "said"), [("b.wav\t0", "positive"), ("b.wav\tlong", "number"), ("a.wav\t3", "second")])
def test_a_bad_duration_is_named(tmp_path, row, said):
    with pytest.raises(InputError, match=f"line 3: the row .*{said}"):
        tables.read_durations(write(tmp_path, f"filename\tduration\na.wav\t10\n{row}\n"))


def test_written_events_are_read_back_with_scores_and_empty_clips(tmp_path):
    events = pd.DataFrame(
        {
            "filename": ["a.wav", "b.wav"],
            "onset": [1 / 3, np.nan],
            "offset": [2.5, np.nan],
            "event_label": ["Dog", None],
            "score": [0.9, np.nan],
        }
    )
    tables.write_events(tmp_path / "deep" / "events.tsv", events)
    assert "a.wav\t0.333333\t2.5\tDog\t0.9" in (tmp_path / "deep" / "events.tsv").read_text()
    pd.testing.assert_frame_equal(tables.read_events(tmp_path / "deep" / "events.tsv"), events.round(6))


def test_written_scores_are_read_back_exactly_in_single_precision(tmp_path):
    rng = np.random.default_rng(0)
    scores = {
        name: scores_table(rng.random((7, 3)).astype(np.float32), frame=0.064) for name in ("a_1.000", "b", "day1/b")
    }
    scores["b"].iloc[2:4, 2] = -np.inf
    tables.write_scores(tmp_path / "scores", scores)
    back = tables.read_scores(tmp_path / "scores")
    assert sorted(back) == ["a_1.000", "b", "day1/b"]
    for name, table in scores.items():
        np.testing.assert_array_equal(back[name].iloc[:, 2:].astype(np.float32), table.iloc[:, 2:].astype(np.float32))
        np.testing.assert_allclose(back[name]["offset"], table["offset"])


def test_scores_are_read_back_by_sed_scores_eval(tmp_path):
    io = pytest.importorskip("sed_scores_eval.base_modules.io")
    tables.write_scores(tmp_path, {"a": scores_table(np.random.default_rng(0).random((9, 3)), frame=0.01)})
    assert io.read_sed_scores(tmp_path)["a"].shape == (9, 5)


@pytest.mark.parametrize("name", ["../a", "/a", "", "..", "x\\..\\..\\a", "C:a"])
def test_a_clip_name_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(InputError, match="points outside"):
        tables.write_scores(tmp_path / "scores", {name: scores_table(np.zeros((2, 3)))})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("onset\toffset\tDog\n0\t1\thigh\n", "not a table of scores"),
        ("onset\toffset\tDog\n0\t1\t0.5\n1.5\t2\t0.5\n", "line 3: the row does not begin where"),
        ("onset\toffset\tDog\n0\t0\t0.5\n", "line 2: the row ends before it begins"),
        ("onset\toffset\tDog\n0\t1\t\n", "line 2: the row holds NaN"),
        ("offset\tonset\tDog\n1\t0\t0.5\n", "columns must be onset, offset"),
        ("onset\toffset\tDog\n", "holds no scores"),
    ],
)
def test_a_broken_score_table_is_named(tmp_path, text, said):
    write(tmp_path, text, "clip.tsv")
    with pytest.raises(InputError, match=said) as caught:
        tables.read_scores(tmp_path)
    assert "clip.tsv" in str(caught.value)


def test_an_empty_scores_folder_says_so(tmp_path):
    with pytest.raises(InputError, match=r"holds no <clip>\.tsv"):
        tables.read_scores(tmp_path)


def test_operating_points_are_sorted_by_threshold(tmp_path):
    for threshold in ("0.5", "0.01", "0.25"):
        write(tmp_path, HEADER + f"a.wav\t0\t{threshold}\tDog\n", f"predictions_th_{threshold}.tsv")
    write(tmp_path, "not a table", "notes.txt")
    points = tables.read_operating_points(tmp_path)
    assert list(points) == [0.01, 0.25, 0.5]
    assert points[0.25].loc[0, "offset"] == 0.25


def test_operating_points_need_files_with_numbers(tmp_path):
    with pytest.raises(InputError, match="holds no predictions_th_"):
        tables.read_operating_points(tmp_path)
    write(tmp_path, HEADER, "predictions_th_high.tsv")
    with pytest.raises(InputError, match="not a number"):
        tables.read_operating_points(tmp_path)


def test_many_files_report_progress(tmp_path):
    seen = []
    scores = {name: scores_table(np.zeros((2, 3))) for name in "ab"}
    tables.write_scores(tmp_path, scores, lambda *step: seen.append(step))
    tables.read_scores(tmp_path, lambda *step: seen.append(step))
    assert seen == [(f"{what} scores", done, 2) for what in ("writing", "reading") for done in (1, 2)]


def test_real_metadata_is_read_whole():
    folder = shared("desed_metadata")
    events = tables.read_events(folder / "validation" / "validation.tsv")
    assert (len(events), events["filename"].nunique(), events["event_label"].isna().sum()) == (4239, 1168, 15)
    assert len(tables.read_durations(folder / "validation" / "validation_durations.tsv")) == 1168
    labels = sorted(events["event_label"].dropna().unique())
    assert len(tables.read_events(folder / "train" / "audioset_strong.tsv", labels)) == 15422
    assert len(tables.read_weak(folder / "train" / "weak.tsv", labels)) == 1578
