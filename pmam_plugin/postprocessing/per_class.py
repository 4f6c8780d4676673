"""Settings that are one number for all classes, or one per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pmam_plugin.errors import InputError

PerClass = float | Mapping[str, float]
"""One number for all classes, or a mapping from every class to its own."""


def per_class(value: PerClass | Mapping[str, float | None] | None, labels: Sequence[str], name: str) -> np.ndarray:
    """One number per class, ``(classes,)``; None, where a setting allows it, becomes infinity (no limit).

    Args:
        value: the setting.
        labels: the classes in order.
        name: what to call the setting in an error.

    Raises:
        InputError: a mapping lacks a class.
    """
    if not isinstance(value, Mapping):
        return np.full(len(labels), np.inf if value is None else float(value))
    missing = [label for label in labels if label not in value]
    if missing:
        raise InputError(f"{name} has no value for {', '.join(missing)}; give one for every class, or a single number")
    chosen = [value[label] for label in labels]
    return np.array([np.inf if item is None else float(item) for item in chosen])


def values_of(value: Any) -> list[Any]:
    """All values of such a setting."""
    return list(value.values()) if isinstance(value, Mapping) else [value]


def class_table(labels: Sequence[str], default: float, exceptions: Mapping[str, float]) -> dict[str, float]:
    """A setting for every class: ``default`` but for ``exceptions``, whose classes need not all be in the data."""
    return {label: float(exceptions.get(label, default)) for label in labels}
