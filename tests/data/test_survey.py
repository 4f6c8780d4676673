"""What is found in an annotator's folder before anything is trained, and what is held out of it."""

import pytest

from pmam_plugin.data.annotated import lay_out
from pmam_plugin.data.survey import describe_survey, survey_folder
from pmam_plugin.tables import read_events
from tests.data.corpus import noise

FRAME = 0.08


def recording(folder, name, labels=None, seconds=6):
    noise(folder / f"{name}.wav", seconds=seconds)
    if labels is not None:
        (folder / f"{name}.txt").write_text("".join("\t".join(map(str, row)) + "\n" for row in labels))


def test_a_survey_counts_classes_and_names_labels_that_look_wrong(tmp_path):
    recording(tmp_path, "day/a", [(0, 1, "Dog"), (0.5, 2, "Owl"), (3, 3.01, "Owl"), (5, 6.5, "Dog"), (7, 8, "Dog")])
    recording(tmp_path, "day/b", [(0, 1, "Dog"), (0, 1, "Dog"), (0.5, 2, "Dog"), (4, 5, "dogs")])
    recording(tmp_path, "c", [])
    recording(tmp_path, "d")
    (tmp_path / "notes.txt").write_text("recorded in the garden\n")
    (tmp_path / "more.tsv").write_text("filename\tonset\toffset\tevent_label\nd.wav\t1\t2\tOwl\ngone.wav\t1\t2\tOwl\n")
    survey = survey_folder(tmp_path, FRAME)
    assert {name: len(events) for name, events in survey.labelled.items()} == {
        "c.wav": 0,
        "d.wav": 1,
        "day/a.wav": 5,
        "day/b.wav": 4,
    }
    told = "\n".join(describe_survey(survey))
    assert f"{tmp_path}: 4 labelled recordings, 0.4 min, 10 events of 3 classes; 0 without labels, 0.0 min" in told
    assert "events that end after their recording, cut at its end: 1 (day/a.wav at 5.00 s (Dog))" in told
    assert "events that begin after the end of their recording, not used: 1 (day/a.wav at 7.00 s (Dog))" in told
    assert "events shorter than a frame of the model (80 ms): 1 (day/a.wav at 3.00 s (Owl))" in told
    assert "events that stand there twice, used once: 1 (day/b.wav at 0.00 s (Dog))" in told
    assert "events that overlap another of their class: 1 (day/b.wav at 0.50 s (Dog))" in told
    assert "'dogs' (1) and 'Dog' (6) look like one class" in told
    assert "files that hold no labels: 1 (notes.txt)" in told
    assert "labelled recordings that are not there: 1 (gone.wav)" in told


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [("Dog", "dog ", True), ("car_horn", "Car horn", True), ("Footstep", "Footsteps", True), ("Speech", "Speach", True),
     ("Baby cry", "Baby_cyr", True), ("Dog", "Owl", False), ("call 1", "call 2", False), ("Bat", "Cat", False),
     ("Male speech", "Female speech", False)],
)  # fmt: skip
def test_names_that_a_slip_may_have_made_two(tmp_path, one, other, alike):
    recording(tmp_path, "a", [(0, 1, one.strip()), (2, 3, other)])
    told = "\n".join(survey_folder(tmp_path, FRAME).oddities)
    assert ("look like one class" in told) == alike


def test_overlap_is_the_share_of_labelled_time_with_two_sounds(tmp_path):
    recording(tmp_path, "a", [(0, 2, "Dog"), (1, 3, "Owl"), (4, 5, "Dog")])
    assert survey_folder(tmp_path, FRAME).overlap() == pytest.approx(1 / 4)


def test_whole_recordings_are_held_out_and_all_labels_arrive(tmp_path):
    for number in range(10):
        recording(tmp_path / "in", f"r{number}", [(0, 1, "Dog"), (2, 3, "Owl"), (2, 3, "Owl")], seconds=4)
    recording(tmp_path / "in", "r10", [(0, 1, "Fox")], seconds=4)
    recording(tmp_path / "in", "free", seconds=4)
    recording(tmp_path / "more", "free", seconds=4)
    survey = survey_folder(tmp_path / "in", FRAME)
    more = survey_folder(tmp_path / "more", FRAME, unlabelled=True)
    laid = lay_out(survey, tmp_path / "out", more)
    assert laid.recordings == {"strong": 7, "unlabelled": 2, "selection": 2, "test": 2}
    assert laid.unmeasured == ("Fox",)
    tables = [
        read_events(tmp_path / "out" / "metadata" / name)
        for name in ("train/audioset_strong.tsv", "validation/synthetic_validation.tsv", "validation/validation.tsv")
    ]
    names = [set(table.filename) for table in tables]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    assert sum(len(table) for table in tables) == 10 * 2 + 1
    assert (tmp_path / "out/audio/train/unlabel_in_domain/more/free.wav").exists()
    fewer = lay_out(survey, tmp_path / "fewer", more, share=0.5, unlabelled_seconds=5)
    assert (sum(fewer.recordings.values()), fewer.left_out) == (6, 7)
