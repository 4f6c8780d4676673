"""Suggested and random passages are compared at equal seconds, from the same start (tiny)."""

import re

from benchmarks.active_labelling import _free, _up_to, main
from pmam_plugin.data import Clip
from tests.recipes.tiny import tiny_corpus

SETTINGS = {"finetune_epochs": 1, "finetune_steps": 2, "bootstrap": 5, "device": "cpu", "precision": "fp32"}


def test_arms_are_labelled_for_equally_long(tmp_path, capsys):
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    data = ["--data_folder", str(tiny_corpus(tmp_path / "corpus")), "--out", str(tmp_path / "out")]
    main([*data, "--seeds", "1", "--share", "0.3", "--selection", "0.3", "--minutes", "0.2", *settings])
    lines = capsys.readouterr().out.splitlines()
    arms = {line.split()[2]: float(line.split()[3]) for line in lines[1:4]}
    assert arms["suggested"] == arms["random"] == arms["first"] + 12.0
    assert re.match(r"round 1: suggested - random, psds1_mean: [+-]\d", lines[4])


def test_what_is_labelled_is_not_offered_again(tmp_path):
    pool = [Clip("a", tmp_path / "a.wav", 10.0), Clip("b", tmp_path / "b.wav", 10.0)]
    assert _free(pool, [("a", 5.0, 10.0)]) == [("a", 0.0, 5.0), ("b", 0.0, 5.0), ("b", 5.0, 10.0)]
    assert _up_to([("a", 0.0, 5.0), ("b", 5.0, 10.0)], 7.0) == [("a", 0.0, 5.0), ("b", 5.0, 7.0)]
