"""The command line of a recipe: paths are what was typed, whatever they look like to YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

_PATH_KEY = re.compile(r"--\w*(folder|path|file|dir|checkpoint|tsv)")
_TAG = re.compile("!(ref|copy|new:|name:|module:|apply:|tuple|PLACEHOLDER)")


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """Arguments in which the values of paths are quoted for YAML, in which the others are read.

    ``--data_folder 2024-06-01``, ``7``, ``on``, ``a: b``, ``take #2`` or ``@home`` would be a date, a number, a truth
    value, a mapping, half a name and an error, and ``a=b`` another name. Keys that end in folder, path, file, dir,
    checkpoint or tsv are paths; ``null`` and values with a YAML tag (``!ref ...``) stay what they are, and so does
    what is quoted already.
    """
    quoted, key = [], ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if key and not argument.startswith("--"):
            quoted.append(_quoted(argument))
        elif equals and _PATH_KEY.fullmatch(name):
            quoted.append(f"{name}={_quoted(value)}")
        else:
            quoted.append(argument)
        key = argument if _PATH_KEY.fullmatch(argument) else ""
    return quoted


def _quoted(value: str) -> str:
    if value in ("", "null", "~") or _TAG.match(value) or re.fullmatch(r"'.*'|\".*\"", value, re.DOTALL):
        return value
    # SpeechBrain takes arguments apart at every equals sign.
    return json.dumps(value, ensure_ascii=False).replace("=", r"\x3d")
