"""A derived experiment says what differs; what is run is one whole text under the same rules, settings included."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pmam_plugin.errors import InputError
from pmam_plugin.losses.prototype import PrototypeBCE, PrototypeInfoNCE
from pmam_plugin.stages.experiment import RUN_OPTIONS, build_experiment, lay_over, read_experiment
from tests.support import ROOT

WHOLE = """# ##########
# whole
# ##########
seed: 1
dim: 8                                  # width
sizes: {a: 1, b: 2}

# ---- loss ----
loss: !new:pmam_plugin.losses.prototype.PrototypeBCE
    temperature: 0.1                    # sharp
    negative_slope: 0.2
spare: !ref <dim>
train: !new:builtins.dict
    loss: !ref <loss>
    sizes: !ref <sizes>
    rate: !ref <spare>
stages:
    - !ref <train>
"""
DERIVED = """# ##########
# derived
# ##########
base: whole.yaml

# ---- mine ----
width: 3                                # mine
dim: !ref <width> * 2
loss:
    temperature: 0.5                    # blunt
train:
    rate: !ref <dim>
"""


def derived(tmp_path, text=DERIVED, name="derived.yaml"):
    (tmp_path / "whole.yaml").write_text(WHOLE)
    (tmp_path / name).write_text(text)
    return tmp_path / name


def train(text):
    return build_experiment(text, "it")["stages"][0]


def test_a_derived_experiment_is_its_base_with_the_differences(tmp_path):
    text = read_experiment(derived(tmp_path))
    assert train(text)["rate"] == 6
    assert train(text)["sizes"] == {"a": 1, "b": 2}
    assert vars(train(text)["loss"])["temperature"] == 0.5
    lines = text.splitlines()
    assert lines[:3] == DERIVED.splitlines()[:3]
    assert "    temperature: 0.5                    # blunt" in lines
    assert "# ---- mine ----" in lines
    assert lines.index("width: 3                                # mine") < lines.index("# ---- loss ----")
    for gone in ("# sharp", "# whole", "spare", "base:", "# width"):
        assert gone not in text


def test_differences_of_another_experiment_can_be_taken_too(tmp_path):
    derived(tmp_path)
    (tmp_path / "other.yaml").write_text(WHOLE.replace("seed: 1", "seed: 2"))
    text = read_experiment(derived(tmp_path, "base: [other.yaml, derived.yaml]\nwidth: 5\n", "third.yaml"))
    hparams = build_experiment(text, "it")
    assert (hparams["seed"], hparams["width"], hparams["stages"][0]["rate"]) == (2, 5, 10)


def test_a_tag_replaces_the_whole_entry_and_a_mapping_is_merged():
    text = lay_over(
        WHOLE,
        'loss: "!new:pmam_plugin.losses.prototype.PrototypeInfoNCE {temperature: 0.05}"\n'.replace('"', "")
        + "sizes: {b: 3, c: 4}\nseed: 7",
        "it",
        may_add=False,
    )
    assert isinstance(train(text)["loss"], PrototypeInfoNCE)
    assert not isinstance(train(text)["loss"], PrototypeBCE)
    assert train(text)["loss"].temperature == 0.05
    assert train(text)["sizes"] == {"a": 1, "b": 3, "c": 4}
    assert build_experiment(text, "it")["seed"] == 7


@pytest.mark.parametrize("name", RUN_OPTIONS)
def test_every_run_option_can_be_set_although_no_file_lists_it(name):
    assert build_experiment(lay_over(WHOLE, f"{name}: 1", "it", may_add=False), "it")[name] == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("sead: 2", "has no key 'sead'"),
        ("seed: {a: 1}", "seed is no mapping"),
        ("seed: [", "is no YAML"),
        ("- 1", "must be a mapping"),
    ],
)
def test_what_cannot_be_set_is_one_sentence(change, sentence):
    with pytest.raises(InputError, match=sentence):
        lay_over(WHOLE, change, "it", may_add=False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("base: whole.yaml\nextra: 1\n", "nothing refers to 'extra'"),
        ("base: derived.yaml\n", "the file itself"),
        ("base: none.yaml\n", "cannot be read"),
    ],
)
def test_a_derived_file_that_cannot_be_meant_is_refused(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence):
        read_experiment(derived(tmp_path, text))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("loss: !new:pmam_plugin.losses.prototype.PrototypeBCE {warmth: 1}", "PrototypeBCE.*warmth"),
        ("train: !name:pmam_plugin.prototypes.GaussianMixture {n_component: 3}", "train: GaussianMixture.*n_component"),
        ("seed: !PLACEHOLDER", "seed has to be given"),
        ("stages: [!ref <loss>, !new:collections.Counter {a: 1}]", "it: !new:collections.Counter in a list in square"),
    ],
)
def test_a_wrong_argument_is_found_when_the_file_is_read(change, sentence):
    with pytest.raises(InputError, match=sentence):
        build_experiment(lay_over(WHOLE, change, "it"), "it")


EXPERIMENTS = sorted((ROOT / "hparams").glob("*.yaml"))


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_every_experiment_reads_as_one_file_in_which_everything_has_an_effect(file: Path):
    text = read_experiment(file)
    assert f"hparams/{file.name}" in text
    assert "\n\n\n" not in text
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    keys = [key.value for key, _ in root.value]
    assert len(keys) == len(set(keys))
    assert keys[-1] == "stages"
    assert lay_over(text, "seed: 3", "it", may_add=False).replace("seed: 3", "") != text
    assert len(lay_over(text, "seed: 3", "it", may_add=False).splitlines()) == len(text.splitlines())


def tagged(node: yaml.Node) -> Iterator[tuple[str, dict[str, yaml.Node]]]:
    """Classes and functions that an experiment names, with their arguments."""
    values = node.value if isinstance(node, yaml.CollectionNode) else []
    if isinstance(node, yaml.MappingNode):
        yield node.tag.rpartition(".")[2], {key.value: value for key, value in node.value}
        values = [value for _, value in node.value]
    for value in values:
        yield from tagged(value)


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_what_decides_which_weights_are_kept_is_said_in_the_experiment(file: Path):
    """Which clips, which figures, which average: nothing of it is a default of Python's."""
    decisive = {
        "Prepare": {"selection", "test"},
        "FineTune": {"teacher_decay"},
        "Scoring": {"selection_metrics", "segments"},
    }
    found = list(tagged(yaml.compose(read_experiment(file), Loader=yaml.SafeLoader)))
    assert [name for name, _ in found].count("Prepare") == 1
    for name, arguments in found:
        assert decisive.get(name, set()) <= arguments.keys(), name
    stages = {name for name, _ in found}
    assert [name for name, _ in found].count("Scoring") == ("Evaluate" in stages)
