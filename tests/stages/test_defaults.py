"""No hyper-parameter hides in Python: an experiment sets it, or the documentation names its default."""

import ast
import inspect
import re
from collections.abc import Iterator
from typing import Any

import yaml
from hyperpyyaml import resolve_references

from pmam_plugin.stages.experiment import read_experiment
from tests.support import ROOT

TABLE = re.compile(r"^\| `(\w+)` in `(pmam_plugin/[\w/]+\.py)` \| (.+) \|$", re.M)
# Sizes as published, which the classes state.
ARCHITECTURES = ("pmam_plugin.encoders", "pmam_plugin.features")
# Of the machine that computes and the pages that show it, not of what is computed.
TECHNICAL = {"batch_clips", "batch_frames", "checkpoint_minutes", "clips", "mistakes", "random_state"}


def named() -> dict[tuple[str, str], dict[str, Any]]:
    """Defaults that docs/methods.md names: (module, class) -> argument -> value."""
    text = (ROOT / "docs/methods.md").read_text(encoding="utf-8").partition("## Named defaults\n")[2]
    found = {}
    for name, path, cells in TABLE.findall(text):
        pairs = (cell.split("=", 1) for cell in re.findall(r"`(\w+=[^`]+)`", cells))
        module = path.removesuffix(".py").replace("/", ".")
        found[module, name] = {argument: ast.literal_eval(value) for argument, value in pairs}
    return found


def constructed(node: yaml.Node) -> Iterator[tuple[str, set[str]]]:
    """What an experiment makes, by dotted name, with the arguments it gives."""
    kind, _, name = node.tag.partition(":")
    if kind in ("!new", "!name", "!apply") and name.startswith("pmam_plugin."):
        yield name, {key.value for key, _ in node.value} if isinstance(node, yaml.MappingNode) else set()
    if isinstance(node, yaml.MappingNode | yaml.SequenceNode):
        for item in node.value:
            yield from constructed(item[1] if isinstance(item, tuple) else item)


def left_to_python() -> dict[tuple[str, str], dict[str, Any]]:
    """Numbers other than zero that some class has by default and no experiment gives: as :func:`named`."""
    given: dict[str, set[str]] = {}
    for file in sorted((ROOT / "hparams").glob("*.yaml")):
        text = read_experiment(file).replace("!PLACEHOLDER", "given")
        root = yaml.compose(resolve_references(text).getvalue(), Loader=yaml.SafeLoader)
        for name, arguments in constructed(root):
            given.setdefault(name, set()).update(arguments)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name, arguments in given.items():
        module, _, attribute = name.rpartition(".")
        made = getattr(__import__(module, fromlist=[attribute]), attribute)
        if made.__module__.startswith(ARCHITECTURES):
            continue
        for parameter in inspect.signature(made).parameters.values():
            value = parameter.default
            numbers = value if isinstance(value, tuple) else (value,)
            if parameter.name in arguments | TECHNICAL or not all(type(number) in (int, float) for number in numbers):
                continue
            if any(numbers):
                found.setdefault((made.__module__, attribute), {})[parameter.name] = value
    return found


def test_every_number_that_no_experiment_gives_is_a_named_default() -> None:
    known = named()
    hidden = {
        f"{name} in {module}: {argument}={value!r}"
        for (module, name), defaults in left_to_python().items()
        for argument, value in defaults.items()
        if argument not in known.get((module, name), {})
    }
    assert hidden == set(), "give them in an experiment, or name them in docs/methods.md"


def test_named_defaults_are_those_of_the_code() -> None:
    known = named()
    assert len(known) > 15
    for (module, name), defaults in known.items():
        parameters = inspect.signature(getattr(__import__(module, fromlist=[name]), name)).parameters
        assert {argument: parameters[argument].default for argument in defaults} == defaults, name
