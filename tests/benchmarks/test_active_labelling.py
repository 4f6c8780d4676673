"""Suggested and random passages are compared at equal seconds, from the same start."""

import json
import re
import types
from pathlib import Path

from benchmarks import active_labelling
from benchmarks.active_labelling import _free, _up_to, main
from pmam_plugin.checkpoints import save_model
from pmam_plugin.data import Clip, prepare
from recipes.DESED.train import load_experiment
from tests.recipes.tiny import tiny_corpus
from tests.tiny_models import tiny_detector


def test_arms_are_labelled_for_equally_long(tmp_path, capsys, monkeypatch):
    trained = []

    def recipe(command, **_):
        """The command is one that the recipe takes, on data that can be trained on; the model is left untrained."""
        hparams, *_ = load_experiment(command[2:])
        folder = Path(hparams["output_folder"])
        data = prepare(hparams["data_folder"], folder / "manifests", ["strong"], "synthetic_validation")
        trained.append((folder.parent.name, sum(clip.seconds for clip in data.manifests["strong"])))
        save_model(folder / "model", tiny_detector())
        figures = {"psds1_mean": 0.1 * len(trained), "event_f1_macro": 0.0}
        metrics = {"selected": "teacher", "selected_processing": "filters", "test": {"teacher": figures}}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(active_labelling.subprocess, "run", recipe)
    data = ["--data_folder", str(tiny_corpus(tmp_path / "corpus")), "--out", str(tmp_path / "out")]
    options = ["--seeds", "1", "--share", "0.3", "--selection", "0.3", "--minutes", "0.2", "--set", "finetune_steps=2"]
    main([*data, *options])
    lines = capsys.readouterr().out.splitlines()
    arms = {line.split()[2]: float(line.split()[3]) for line in lines[1:4]}
    assert arms["suggested"] == arms["random"] == arms["first"] + 12.0
    assert [name for name, _ in trained] == ["first", "suggested_1", "random_1"]
    assert dict(trained) == {"first": arms["first"], "suggested_1": arms["random"], "random_1": arms["random"]}
    assert re.match(r"round 1: suggested - random, psds1_mean: -10\.00", lines[4])


def test_what_is_labelled_is_not_offered_again(tmp_path):
    pool = [Clip("a", tmp_path / "a.wav", 10.0), Clip("b", tmp_path / "b.wav", 10.0)]
    assert _free(pool, [("a", 5.0, 10.0)]) == [("a", 0.0, 5.0), ("b", 0.0, 5.0), ("b", 5.0, 10.0)]
    assert _up_to([("a", 0.0, 5.0), ("b", 5.0, 10.0)], 7.0) == [("a", 0.0, 5.0), ("b", 5.0, 7.0)]
