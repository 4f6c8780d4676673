"""Objects that remember how they were built, so that a JSON file can rebuild them.

HyperPyYAML, tests and ``config.json`` all construct the same classes from the same plain arguments. A class marked
:func:`configurable` records its constructor arguments; :func:`to_config` writes them as plain JSON and
:func:`from_config` builds the object again. Only classes of this package that carry the mark can be built, so a
configuration fetched from elsewhere can name parts but never run code.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pmam_plugin.errors import InputError

T = TypeVar("T", bound=type)

_REGISTRY: dict[str, type] = {}
# The rooms whose classes a configuration may name; imported on demand so that light imports stay light.
_ROOMS = ("features", "nn", "encoders", "models", "postprocessing")


def configurable(cls: T) -> T:
    """Class decorator: remember constructor arguments and register the class under its name."""
    original = cls.__init__  # type: ignore[misc]
    signature = inspect.signature(original)

    @functools.wraps(original)
    def remembering_init(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        outermost = type(self).__init__ is remembering_init
        original(self, *args, **kwargs)
        if outermost:
            arguments = dict(list(bound.arguments.items())[1:])
            for parameter in signature.parameters.values():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    arguments.update(arguments.pop(parameter.name, {}))
            # Past torch's own __setattr__: a recorded argument must not register as a second submodule.
            object.__setattr__(self, "_arguments", arguments)

    cls.__init__ = remembering_init  # type: ignore[misc]
    known = _REGISTRY.get(cls.__name__)
    if known is not None and known.__module__ != cls.__module__:
        raise TypeError(f"two configurable classes are named {cls.__name__}: {known.__module__} and {cls.__module__}")
    _REGISTRY[cls.__name__] = cls
    return cls


def to_config(value: Any) -> Any:
    """Plain JSON form of a configurable object: ``{"type": class name, **constructor arguments}``.

    Lists, tuples and mappings are converted item by item; numbers, strings, booleans and None stay.

    Raises:
        TypeError: ``value`` holds something that neither is plain nor was built by a configurable class.
    """
    arguments = getattr(value, "_arguments", None)
    if arguments is not None:
        return {"type": type(value).__name__, **{name: to_config(item) for name, item in arguments.items()}}
    if isinstance(value, Mapping):
        return {str(name): to_config(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_config(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} cannot be written to a configuration; mark its class @configurable")


def from_config(config: Any) -> Any:
    """Build what :func:`to_config` described.

    Raises:
        InputError: an unknown type, or arguments its constructor does not take.
    """
    if isinstance(config, Mapping):
        arguments = {name: from_config(item) for name, item in config.items() if name != "type"}
        if "type" not in config:
            return arguments
        cls = _find(config["type"])
        try:
            return cls(**arguments)
        except TypeError as error:
            raise InputError(
                f"the configuration of {config['type']} does not fit this version ({error}); update pmam_plugin"
            ) from error
    if isinstance(config, list):
        return [from_config(item) for item in config]
    return config


def rebuilt(value: Any, **changes: Any) -> Any:
    """A new object of the same class and arguments, but for ``changes``."""
    return type(value)(**{**value._arguments, **changes})


def _find(name: object) -> type:
    rooms = tuple(f"pmam_plugin.{room}" for room in _ROOMS)
    if isinstance(name, str) and name.isidentifier() and name not in _REGISTRY:
        _import_home(name, rooms)
    cls = _REGISTRY.get(name) if isinstance(name, str) else None
    # Training stages are configurable too (their arguments decide whether they run again) but are no part of a model.
    if cls is None or not cls.__module__.startswith(rooms):
        raise InputError(
            f"the configuration names an unknown architecture {name!r}; update pmam_plugin or check config.json"
        )
    return cls


def _import_home(name: str, rooms: Sequence[str]) -> None:
    """Import the module of ``rooms`` whose text defines a class of that name, and no other."""
    definition = re.compile(rf"^class {name}\b", re.MULTILINE)
    for room in rooms:
        paths = getattr(importlib.import_module(room), "__path__", None)
        parts = [] if paths is None else [f"{room}.{part.name}" for part in pkgutil.iter_modules(paths)]
        for module in [room, *parts]:
            spec = importlib.util.find_spec(module)
            source = spec.loader.get_source(module) if spec and spec.loader else None  # type: ignore[attr-defined]
            if source and definition.search(source):
                importlib.import_module(module)
                return
