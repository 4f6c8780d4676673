"""The experiments on corpora other than DESED, on a few generated files of each, to the end."""

import json

import pandas as pd
import timm
from safetensors.torch import save_file

from pmam_plugin.data.corpora import CORPORA, write_corpus
from recipes.DESED import train as recipe
from tests.data.corpus import tiny_corpus
from tests.data.test_corpora import maestro, urban
from tests.recipes.tiny import flags

ONCE = {"device": "cpu", "precision": "fp32", "bootstrap": "0", "finetune_1_epochs": "1", "finetune_steps": "1"}


def run(name, data, output, **changes):
    settings = {"data_folder": data, "output_folder": output, **ONCE, **changes}
    assert recipe.main([f"hparams/{name}.yaml", *flags(settings)]) == 0
    return json.loads((output / "metrics.json").read_text())


def record(output, stage):
    return json.loads((output / "stages" / stage / "record.json").read_text())


def test_urban_sed_is_learned_one_to_one_and_then_one_to_many(tmp_path):
    urban(tmp_path / "source")
    write_corpus(CORPORA["urban-sed"](tmp_path / "source"), tmp_path / "data")
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "resnet.safetensors")
    sizes = {"resnet": "resnet10t", "dim": "16", "encoder_layers": "1", "decoder_layers": "2", "queries": "4"}
    more = {"checkpoint": tmp_path / "resnet.safetensors", "finetune_2_epochs": "1", "batch": "{strong: 2}"}
    more["skip_stages"] = "[pretrain_tagger, report]"
    metrics = run("urban_sed", tmp_path / "data", tmp_path / "out", **sizes, **more)
    assert set(metrics["events"]["student"]["per_class"]) == {"dog_bark", "siren"}
    for stage in ("finetune_1", "finetune_2"):
        assert record(tmp_path / "out", stage)["notes"]["updates"] == 1
    config = json.loads((tmp_path / "out/model/config.json").read_text())
    assert config["sample_rate"] == 44100


def test_maestro_and_another_corpus_are_learned_and_judged_as_one(tmp_path):
    tiny_corpus(tmp_path / "data/home", strong=4, weak=2, unlabelled=2)
    maestro(tmp_path / "source")
    names = {"people talking": "Speech", "cutlery and dishes": "Dog"}
    write_corpus(CORPORA["maestro-real"](tmp_path / "source"), tmp_path / "data/maestro", names)
    batch = "{plan: {batch: {strong: 4, weak: 2, synthetic: 0, unlabelled: 2}}}"
    metrics = run("maestro", tmp_path / "data", tmp_path / "out", finetune_1=batch)
    figures = metrics["test"]["teacher"]
    assert 0 <= figures["mpauc"] <= 1
    assert figures["per_class"]["Speech"]["pauc"] is not None
    assert {"student_mpauc", "teacher_mpauc"} <= record(tmp_path / "out", "finetune_1")["curves"].keys()
    columns = {
        name: list(pd.read_csv(next((tmp_path / "out/scores" / name).rglob("*.tsv")), sep="\t"))[2:]
        for name in ("home", "maestro")
    }
    assert columns == {"home": ["Cat", "Dog"], "maestro": ["Dog", "Speech"]}
