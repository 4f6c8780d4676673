"""What objects were built from, as plain values: the same objects give the same, and differences can be named."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pmam_plugin.config import to_config

_UNSET = "the default"


def describe(value: Any) -> Any:
    """JSON-able description of everything an object was built from; the same objects give the same description."""
    if isinstance(value, functools.partial):
        return {"call": describe(value.func), "args": describe(list(value.args)), **describe(value.keywords)}
    arguments = getattr(value, "_arguments", None)
    if arguments is not None:
        return {"type": type(value).__name__, **{name: describe(item) for name, item in arguments.items()}}
    if isinstance(value, Mapping):
        return {str(name): describe(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if type(value).__module__.startswith("pmam_plugin.") and not isinstance(value, torch.nn.Module):
        return {"type": type(value).__name__, **describe(vars(value))}
    return to_config(value)


def difference(before: Any, now: Any, place: str = "") -> str:
    """The first entry in which two descriptions differ, as ``place: value, now value``; empty where they agree."""
    before, now = (json.loads(json.dumps(value, default=str)) for value in (before, now))
    if isinstance(before, dict) and isinstance(now, dict) and before.get("type") == now.get("type"):
        for key in [*before, *(key for key in now if key not in before)]:
            change = difference(before.get(key, _UNSET), now.get(key, _UNSET), f"{place}.{key}" if place else key)
            if change:
                return change
        return ""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        changes = (difference(*pair, f"{place}[{index}]") for index, pair in enumerate(zip(before, now, strict=True)))
        return next(filter(None, changes), "")
    return "" if before == now else f"{place}: {_short(before)}, now {_short(now)}"


def _short(value: Any) -> str:
    value = value.get("type", value) if isinstance(value, dict) else value
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
