import pytest

from pmam_plugin.cli import main
from pmam_plugin.tables import read_events


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def test_a_folder_of_tracks_becomes_a_table_and_tracks_again(tmp_path, capsys):
    (tmp_path / "day" / "1").mkdir(parents=True)
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
    assert run("label", "convert", tmp_path / "e.csv", tmp_path / "a.doc") == 1
    assert "error: " in capsys.readouterr().err
    assert run("label", "convert", tmp_path / "e.csv", tmp_path / "a.tsv", "--label-column", "sort") == 1
    assert "has no column 'sort'; it names file, start, end, class, probability" in capsys.readouterr().err
