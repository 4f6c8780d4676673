"""Experiments as YAML files: one file in full, others that say only how they differ from it.

A derived file names the file it starts from under ``base:`` and repeats only what it changes. HyperPyYAML's own
``!include`` cannot do that: references do not cross the border of an included file, and its overrides keep the old
class where a new one is named. Here layers are laid over each other as text, so that what was run is again one file
with its comments, which reads top to bottom. Settings of the command line are the last layer, under the same rules:

* a mapping without a tag is merged key by key, anything else (a value, a list, ``!new:`` with its arguments) replaces
  the whole entry;
* an entry the base does not have stands behind the one before it in the derived file;
* an entry that nothing refers to any more is left out; one that the derived file itself gives in vain is an error.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from hyperpyyaml import load_hyperpyyaml

from pmam_plugin.errors import InputError

# What the recipe itself reads; an experiment need not list the last ones to let the command line set them.
RUN_KEYS = ("seed", "output_folder", "stages", "skip_stages")
RUN_OPTIONS = ("device", "precision", "eval_precision", "micro_batch", "cache_audio", "cache_gigabytes", "num_workers")

_MAPPING = "tag:yaml.org,2002:map"
_BANNER = re.compile(r"\A# ###+\n(?:#.*\n)*?# ###+\n")


def read_experiment(file: Path) -> str:
    """The text of an experiment, laid over its base where it has one.

    ``base: [a.yaml, b.yaml]`` starts from ``a.yaml`` with the differences that ``b.yaml`` has from its own base.

    Raises:
        InputError: the file, or one it starts from, is missing, is no YAML, or changes what cannot be changed so.
    """
    bases, own = _split(file)
    if not bases:
        return own
    whole = read_experiment(bases[0])
    for other in bases[1:]:
        whole = lay_over(whole, _split(other)[1], str(other), final=False)
    whole = lay_over(whole, own, str(file))
    banner = _BANNER.match(own)
    return _BANNER.sub(lambda _: banner[0] if banner else "", whole)


def _split(file: Path) -> tuple[list[Path], str]:
    """The files an experiment starts from, and its text without naming them."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error}); the repository's experiments are in hparams/") from error
    pair = next((pair for pair in _compose(text, file).value if pair[0].value == "base"), None)
    if pair is None:
        return [], text
    named = pair[1].value if isinstance(pair[1], yaml.SequenceNode) else [pair[1]]
    bases = [file.parent / str(name.value) for name in named]
    if file in bases:
        raise InputError(f"{file}: its base is the file itself; name another one")
    start, end = _span(text, pair)
    return bases, text[:start] + text[end:]


def experiment_file(name: str) -> Path:
    """An experiment of the repository's ``hparams/``, which the package carries with it."""
    return Path(__file__).resolve().parents[1] / "hparams" / name


def lay_over(base: str, changes: str, source: str, may_add: bool = True, final: bool = True) -> str:
    """Text of ``base`` with ``changes`` made to it, as the module's rules say.

    Args:
        base: a whole experiment.
        changes: YAML with some of its keys.
        source: named in errors.
        may_add: whether ``changes`` may bring top-level keys that neither ``base`` nor the recipe knows.
        final: leave out what nothing refers to any more, and refuse ``changes`` without effect.

    Raises:
        InputError: ``changes`` is no YAML mapping, has a key it may not add, or one without effect.
    """
    if not changes.strip():
        return base
    old, new = _compose(base, source), _compose(changes, source)
    given = [str(key.value) for key, _ in new.value]
    known = {key.value for key, _ in old.value} | set(RUN_OPTIONS)
    unknown = [name for name in given if name not in known]
    if unknown and not may_add:
        raise InputError(f"{source}: has no key {unknown[0]!r} that --{unknown[0]} could override; see the file")
    edits = list(_edits(base, old, changes, new, source))
    merged, end = "", 0
    for start, stop, piece in sorted(edits, key=lambda edit: edit[0]):
        merged, end = merged + base[end:start] + piece, stop
    merged += base[end:]
    if not final:
        return merged
    merged = _without_unused(merged, source)
    kept = {key.value for key, _ in _compose(merged, source).value}
    lost = [name for name in given if name not in kept]
    if lost:
        raise InputError(f"{source}: nothing refers to {lost[0]!r}, so setting it has no effect; leave it out")
    return merged


def described(file: Path, text: str) -> str:
    """Comment lines that stand above the text of a run: its file, and a digest of that before the command line."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return (
        f"# Generated {date.today()} from:\n# {file.resolve()}\n# sha256 {digest}, settings of the command line aside\n"
    )


def build_experiment(text: str, source: str) -> dict[str, Any]:
    """What HyperPyYAML builds of an experiment's text; what is called later is checked now.

    Raises:
        InputError: a value that has to be given is not, an entry has an argument that its class or function does
            not take, or stands where HyperPyYAML would lose its arguments.
    """
    _refuse_lost_arguments(_compose(text, source), source)
    try:
        hparams: dict[str, Any] = load_hyperpyyaml(text)
    except ValueError as error:
        missing = re.match(r"'(.+)' is a !PLACEHOLDER", str(error))
        if missing is None:
            raise
        raise InputError(f"{source}: {missing[1]} has to be given; add --{missing[1]} VALUE") from error
    except TypeError as error:
        if "Invalid argument to" not in str(error.args[:1]):
            raise
        raise InputError(f"{source}: {': '.join(map(str, error.args))}; see its documentation") from error
    for key, value in hparams.items():
        for call in _partials(value):
            try:
                inspect.signature(call.func).bind_partial(*call.args, **call.keywords)
            except TypeError as error:
                name = getattr(call.func, "__name__", call.func)
                raise InputError(f"{source}: {key}: {name} {error}; see its documentation") from error
    return hparams


def _refuse_lost_arguments(node: yaml.Node, source: str) -> None:
    """``[!new:a.B {c: 1}]`` becomes ``[!new:a.B c: 1]`` when HyperPyYAML writes the file again, and B loses its c."""
    children = [value for _, value in node.value] if isinstance(node, yaml.MappingNode) else node.value
    for child in () if isinstance(node, yaml.ScalarNode) else children:
        short = isinstance(child, yaml.MappingNode) and len(child.value) == 1 and child.tag != _MAPPING
        if short and isinstance(node, yaml.SequenceNode) and node.flow_style:
            raise InputError(
                f"{source}: {child.tag} in a list in square brackets would lose its argument; "
                "write the list with a dash and a line for each entry"
            )
        _refuse_lost_arguments(child, source)


def _partials(value: Any) -> Iterator[functools.partial[Any]]:
    if isinstance(value, functools.partial):
        yield value
        value = [*value.args, *value.keywords.values()]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _partials(item)


def _compose(text: str, source: object) -> yaml.MappingNode:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{source}: is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{source}: must be a mapping of keys to values")
    return root


def _edits(
    base: str, old: yaml.MappingNode, changes: str, new: yaml.MappingNode, source: str
) -> Iterator[tuple[int, int, str]]:
    """Pieces of ``base`` to replace, as (start, end, text)."""
    pairs = {key.value: (key, value) for key, value in old.value}
    flow, first = bool(old.flow_style), min((key.start_mark.index for key, _ in old.value), default=_end(base, old) - 1)
    column = old.value[0][0].start_mark.column if old.value else 0
    joint = ", " if flow else "\n" + " " * column
    behind = None  # where the last entry of the base ends that the changes have named
    for key, value in new.value:
        there = pairs.get(key.value)
        if there and isinstance(value, yaml.MappingNode) and value.tag == _MAPPING:
            if not isinstance(there[1], yaml.MappingNode):
                raise InputError(f"{source}: {key.value} is no mapping in the base; give its !new: tag, or one value")
            yield from _edits(base, there[1], changes, value, source)
            behind = _span(base, there, flow)[1]
            continue
        piece = _piece(changes, (key, value), flow, column, source, bool(new.flow_style))
        if there:
            start, behind = _span(base, there, flow)
            yield start, behind, piece
        elif behind is None:
            yield first, first, piece + (joint if old.value or not flow else "")
        else:
            yield behind, behind, joint + piece


def _piece(
    text: str, pair: tuple[yaml.Node, yaml.Node], into_braces: bool, column: int, source: str, from_braces: bool
) -> str:
    """Text of an entry, indented for ``column``, with the comment lines right above it."""
    start, end = _span(text, pair, into_braces or from_braces)
    first, *rest = text[start:end].split("\n")
    if into_braces and rest:
        raise InputError(f"{source}: {pair[0].value} stands in braces in the base; write its value in braces too")
    if into_braces or from_braces:
        return "\n".join([first, *rest])
    above = [line.strip() for line in _comments_above(text, start).split("\n") if line.strip()]
    above = above[max((number + 1 for number, line in enumerate(above) if line.startswith("# ###")), default=0) :]
    shift, pad = column - pair[0].start_mark.column, " " * column
    rest = [" " * shift + line if shift > 0 else line[-shift:] for line in rest]
    section = "\n" if above and above[0].startswith("# ---") else ""
    return section + "\n".join([f"\n{pad}".join([*above, first]), *rest])


def _comments_above(text: str, start: int) -> str:
    """The comment lines, as many as follow each other, that end where the line of ``start`` begins."""
    line = text.rfind("\n", 0, start) + 1
    begin = line
    while begin > 0:
        previous = text.rfind("\n", 0, begin - 1) + 1
        if not text[previous:begin].lstrip().startswith("#"):
            break
        begin = previous
    return text[begin:start]


def _span(text: str, pair: tuple[yaml.Node, yaml.Node], flow: bool = False) -> tuple[int, int]:
    """Where an entry begins and ends; outside braces with the comment at the end of its line."""
    end = _end(text, pair[1])
    if not flow:
        comment = re.compile(r"[ \t]*(?:#[^\n]*)?").match(text, end)
        end = comment.end() if comment else end
    return pair[0].start_mark.index, end


def _end(text: str, node: yaml.Node) -> int:
    """Where a node's own text ends: PyYAML counts the comments behind a block to it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    start, stop = node.start_mark.index, node.end_mark.index
    return start + len(text[start:stop].rstrip())


def _without_unused(text: str, source: str) -> str:
    """``text`` without top-level entries that nothing refers to and that do nothing by themselves."""
    while True:
        root = _compose(text, source)
        referred = set(re.findall(r"<(\w+)", re.sub(r"(?m)(^|\s)#.*$", "", text)))
        for key, value in root.value:
            name = str(key.value)
            acts = name.startswith("__") or str(value.tag).startswith("!apply:")
            if name not in referred and name not in RUN_KEYS + RUN_OPTIONS and not acts:
                start, end = _span(text, (key, value))
                start -= len(_comments_above(text, start))
                text = text[:start] + text[end:].lstrip("\n")
                break
        else:
            return text
