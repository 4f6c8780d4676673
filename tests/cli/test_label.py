import numpy as np
import soundfile

from pmam_plugin.checkpoints import save_model
from pmam_plugin.tables import read_events
from tests.support import run
from tests.tiny_models import LABELS, tiny_detector


def test_a_folder_of_tracks_becomes_a_table_and_tracks_again(tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "1").symlink_to(tmp_path / "elsewhere")  # links to recordings are followed, so to labels too
    (tmp_path / "day" / "1" / "a.txt").write_text("0.5\t1.25\tDog\n")
    (tmp_path / "day" / "b.txt").write_text("")
    assert run("label", "convert", tmp_path / "day", tmp_path / "e.tsv") == 0
    assert "1 event of 2 recordings -> " in capsys.readouterr().out
    assert list(read_events(tmp_path / "e.tsv")["filename"]) == ["1/a", "b"]
    assert run("label", "convert", tmp_path / "e.tsv", f"{tmp_path}/again/", "--format", "audacity") == 0
    assert (tmp_path / "again" / "1" / "a.txt").read_text() == "0.500000\t1.250000\tDog\n"
    assert (tmp_path / "again" / "b.txt").read_text() == ""


def test_what_the_target_cannot_hold_is_said(tmp_path, capsys):
    (tmp_path / "e.csv").write_text("file,start,end,class,probability\na,0,1,Dog,0.5\n")
    assert run("label", "convert", tmp_path / "e.csv", tmp_path / "a.TextGrid") == 0
    assert "not kept: scores, which Praat has no place for" in capsys.readouterr().err


def test_suggestions_are_tracks_to_open_beside_the_recordings(tmp_path, capsys):
    save_model(tmp_path / "model", tiny_detector())
    (tmp_path / "in" / "day").mkdir(parents=True)
    for number, name in enumerate(("a.wav", "day/b.wav")):
        samples = np.random.default_rng(number).normal(0, 0.1, 4 * 16_000)
        soundfile.write(tmp_path / "in" / name, samples, 16_000)
    (tmp_path / "in" / "bad.wav").write_bytes(b"broken")  # does not stop the rest
    out = tmp_path / "out"
    assert run("label", "suggest", tmp_path / "model", tmp_path / "in", out, "--minutes", 0.1, "--seconds", 1) == 0
    assert "6 passages, 0.1 minutes, of 2 recordings" in capsys.readouterr().out
    ranking = read_events(out / "ranking.tsv")
    assert ranking["event_label"].str.match(rf"\d+ ({'|'.join(LABELS)})\?").all()
    assert set(ranking["filename"]) == {"a.wav", "day/b.wav"}
    tracks = [line.split("\t") for name in ("a.txt", "day/b.txt") for line in (out / name).read_text().splitlines()]
    assert sorted(int(label.split()[0]) for _, _, label in tracks) == [1, 2, 3, 4, 5, 6]
