from tests.support import run

SMALL = ("--strong", 1, "--weak", 1, "--unlabelled", 0, "--selection", 0, "--validation", 1, "--seconds", 1)


def test_a_corpus_is_built_and_not_built_twice(tmp_path, capsys):
    assert run("soundscapes", tmp_path / "c", *SMALL) == 0
    assert "3 clips written, 0 were there already" in capsys.readouterr().out
    assert (tmp_path / "c/metadata/train/audioset_strong.tsv").exists()
    assert run("soundscapes", tmp_path / "c", *SMALL) == 0
    assert "0 clips written, 3 were there already" in capsys.readouterr().out


def test_wrong_usage_ends_with_status_2(tmp_path):
    assert run("soundscapes", tmp_path / "c", "--strong", "many") == 2
    assert run("soundscapes", tmp_path / "c", "--strong", -1) == 2


def test_help_shows_an_example(capsys):
    assert run("soundscapes", "--help") == 0
    assert "pmam soundscapes data/builtin" in " ".join(capsys.readouterr().out.split())
