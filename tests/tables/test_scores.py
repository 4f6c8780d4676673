import numpy as np
import pytest

from pmam_plugin.errors import InputError
from pmam_plugin.tables.scores import read_operating_points, read_scores, write_scores
from tests.evaluation.examples import scores_table

HEADER = "filename\tonset\toffset\tevent_label\n"


def write(folder, text, name="events.tsv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_an_absent_file_or_folder_is_named(tmp_path):
    for read in (read_scores, read_operating_points):
        with pytest.raises(InputError, match="nowhere: no such folder"):
            read(tmp_path / "nowhere")


def test_written_scores_are_read_back_exactly_in_single_precision(tmp_path):
    rng = np.random.default_rng(0)
    scores = {
        name: scores_table(rng.random((7, 3)).astype(np.float32), frame=0.064) for name in ("a_1.000", "b", "day1/b")
    }
    scores["b"].iloc[2:4, 2] = -np.inf
    write_scores(tmp_path / "scores", scores)
    back = read_scores(tmp_path / "scores")
    assert sorted(back) == ["a_1.000", "b", "day1/b"]
    for name, table in scores.items():
        np.testing.assert_array_equal(back[name].iloc[:, 2:].astype(np.float32), table.iloc[:, 2:].astype(np.float32))
        np.testing.assert_allclose(back[name]["offset"], table["offset"])


def test_scores_are_read_back_by_sed_scores_eval(tmp_path):
    io = pytest.importorskip("sed_scores_eval.base_modules.io")
    write_scores(tmp_path, {"a": scores_table(np.random.default_rng(0).random((9, 3)), frame=0.01)})
    assert io.read_sed_scores(tmp_path)["a"].shape == (9, 5)


@pytest.mark.parametrize("name", ["../a", "/a", "", "..", "x\\..\\..\\a", "C:a"])
def test_a_clip_name_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(InputError, match="points outside"):
        write_scores(tmp_path / "scores", {name: scores_table(np.zeros((2, 3)))})


def test_rows_that_meet_but_for_rounding_are_adjacent(tmp_path):
    write(tmp_path, "onset\toffset\tDog\n0\t0.3333333\t0.5\n0.33333333\t1\t0.5\n", "clip.tsv")
    assert len(read_scores(tmp_path)["clip"]) == 2


def test_operating_points_are_sorted_by_threshold(tmp_path):
    for threshold in ("0.5", "0.01", "0.25"):
        write(tmp_path, HEADER + f"a.wav\t0\t{threshold}\tDog\n", f"predictions_th_{threshold}.tsv")
    write(tmp_path, "not a table", "notes.txt")
    points = read_operating_points(tmp_path)
    assert list(points) == [0.01, 0.25, 0.5]
    assert points[0.25].loc[0, "offset"] == 0.25


def test_many_files_report_progress(tmp_path):
    seen = []
    write_scores(tmp_path, {name: scores_table(np.zeros((2, 3))) for name in "ab"})
    read_scores(tmp_path, lambda *step: seen.append(step))
    assert seen == [("reading scores", done, 2) for done in (1, 2)]
