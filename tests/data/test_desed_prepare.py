import json
import sys

import pytest

from pmam_plugin.data import load_prepared
from pmam_plugin.errors import InputError
from recipes.DESED import desed_prepare as recipe
from tests.data.corpus import tiny_corpus


def test_the_recipe_prepares_once_and_can_skip_it(tmp_path):
    corpus = tiny_corpus(tmp_path / "corpus")
    with pytest.raises(InputError, match="run once without skip_prep"):
        recipe.prepare_desed(corpus, tmp_path / "out", skip_prep=True)
    data = recipe.prepare_desed(str(corpus), str(tmp_path / "out"), seed=3, hold_out=0.2)
    assert recipe.prepare_desed(corpus, tmp_path / "out", skip_prep=True) == data
    assert load_prepared(corpus, tmp_path / "out") == data


def test_the_command_line_prints_the_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["desed_prepare.py", str(tiny_corpus(tmp_path / "c")), str(tmp_path / "out")])
    recipe.main()
    assert json.loads(capsys.readouterr().out)["subsets"]["weak"]["clips"] == 4
