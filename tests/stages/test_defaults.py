"""No hyper-parameter hides in Python: the experiment sets it, or the documentation names its default."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import yaml
from hyperpyyaml import resolve_references

from pmam_plugin.brains.byol import ATSTFrameSettings
from pmam_plugin.config import rebuilt
from pmam_plugin.data.prepare import prepare
from pmam_plugin.encoders.beats import BEATs, BEATsEncoder
from pmam_plugin.encoders.passt import PaSST, PaSSTEncoder
from pmam_plugin.features import FrontEnds
from pmam_plugin.models import SPSEDT
from pmam_plugin.stages.experiment import read_experiment
from pmam_plugin.stages.prepare import Prepare
from pmam_plugin.stages.pretrain import PretrainATSTFrame, PretrainPatches
from tests.support import ROOT

TABLE = re.compile(r"^\| (?:`(\w+)` in )?`(pmam_plugin/[\w/]+\.py)` \| (.+) \|$", re.M)
# Of the machine that computes, not of what is computed; and units.
TECHNICAL = {
    *("batch_clips", "batch_frames", "SECONDS_PER_HOUR"),
    *("_EXAMPLES", "_GATHERED", "_LINES_AT_ONCE", "_LOG_TWO_PI", "_VALUES_AT_ONCE"),
}
# To what a class hands the arguments that it does not name itself.
REST: dict[Any, tuple[Any, ...]] = {
    BEATsEncoder: (BEATs,),
    FrontEnds: (),
    PaSSTEncoder: (PaSST,),
    Prepare: (prepare,),
    PretrainATSTFrame: (ATSTFrameSettings,),
    PretrainPatches: (SPSEDT,),
    rebuilt: (),  # of an object that stands in the experiment
}


def named() -> dict[tuple[str, str], dict[str, Any]]:
    """What docs/methods.md names: (module, class or nothing) -> argument or constant -> value."""
    text = (ROOT / "docs/methods.md").read_text(encoding="utf-8").partition("## Named defaults\n")[2]
    found = {}
    for name, path, cells in TABLE.findall(text):
        pairs = (cell.split("=", 1) for cell in re.findall(r"`(\w+=[^`]+)`", cells))
        module = path.removesuffix(".py").replace("/", ".")
        found[module, name] = {key: ast.literal_eval(value) for key, value in pairs}
    return found


def numeric(value: Any) -> bool:
    """A number other than zero, which would switch something off, or several."""
    numbers = value if isinstance(value, tuple) else (value,)
    return all(type(number) in (int, float) for number in numbers) and any(numbers)


def constructed(node: yaml.Node) -> Iterator[tuple[Any, set[str]]]:
    """Classes and functions that an experiment calls, with the arguments it gives."""
    kind, _, name = node.tag.partition(":")
    if kind in ("!new", "!name", "!apply") and name.startswith("pmam_plugin."):
        module, _, attribute = name.rpartition(".")
        given = {key.value for key, _ in node.value} if isinstance(node, yaml.MappingNode) else set()
        yield getattr(import_module(module), attribute), given
    if isinstance(node, yaml.MappingNode | yaml.SequenceNode):
        for item in node.value:
            yield from constructed(item[1] if isinstance(item, tuple) else item)


def left_to_python() -> Iterator[tuple[str, str, str, Any]]:
    """Numbers that some experiment leaves as they are: module, class or function, argument, value."""
    for file in sorted((ROOT / "hparams").glob("*.yaml")):
        text = read_experiment(file).replace("!PLACEHOLDER", "given")
        for made, given in constructed(yaml.compose(resolve_references(text).getvalue(), Loader=yaml.SafeLoader)):
            parameters = inspect.signature(made).parameters.values()
            rest = REST[made] if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters) else ()
            for part in (made, *rest):
                for parameter in inspect.signature(part).parameters.values():
                    if parameter.name not in given | TECHNICAL and numeric(parameter.default):
                        yield part.__module__, part.__name__, parameter.name, parameter.default
                given = given | {parameter.name for parameter in parameters}  # it gives these to the rest itself


def constants(module: str) -> dict[str, Any]:
    """Numbers that stand at the top level of a module, by name."""
    statements = ast.parse(inspect.getsource(import_module(module))).body
    given = [node for node in statements if isinstance(node, ast.Assign | ast.AnnAssign)]
    targets = [target for node in given for target in (node.targets if isinstance(node, ast.Assign) else [node.target])]
    names = {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)} - TECHNICAL
    return {name: value for name, value in vars(import_module(module)).items() if name in names and numeric(value)}


def test_every_number_that_an_experiment_does_not_give_is_a_named_default() -> None:
    known = named()
    hidden = {
        f"{name} in {module}: {argument}={value!r}"
        for module, name, argument, value in left_to_python()
        if argument not in known.get((module, name), {})
    }
    assert hidden == set(), "give them in the experiment, or name them in docs/methods.md"


def test_named_defaults_are_those_of_the_code() -> None:
    known = named()
    assert len(known) > 40
    for (module, name), defaults in known.items():
        if name:
            parameters = inspect.signature(getattr(import_module(module), name)).parameters
            assert {argument: parameters[argument].default for argument in defaults} == defaults, name
        else:
            assert constants(module) == defaults, module
