"""What a configuration must say besides naming parts that can be built: it may come from anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmam_plugin.errors import InputError
from pmam_plugin.tables.reading import can_be_class

LONGEST_CLIP = 3600.0  # seconds; a model that hears more at once would take all memory
_OPTIONS = ("windows", "temperature")


def check_parts(postprocessing: Any, options: Any, provenance: Any, path: Path) -> None:
    """Refuse what stands beside the model and is not what it is called.

    Raises:
        InputError: post-processing that makes no events, unknown options, or provenance that is no mapping.
    """
    if postprocessing is not None and not (callable(postprocessing) and hasattr(postprocessing, "events")):
        raise _refused(path, f"postprocessing is {type(postprocessing).__name__}, which makes no events of scores")
    if not isinstance(options, Mapping) or not set(options) <= set(_OPTIONS):
        raise _refused(path, f"options may name {' and '.join(_OPTIONS)} only, not {_shown(options)}")
    windows, temperature = options.get("windows"), options.get("temperature", 1.0)
    if windows is not None and type(windows).__name__ != "Windows":
        raise _refused(path, f"options: windows is {_shown(windows)}, not Windows")
    if not _is_number(temperature) or temperature <= 0:
        raise _refused(path, f"options: temperature is {_shown(temperature)}, not a number above 0")
    if provenance is not None and not isinstance(provenance, Mapping):
        raise _refused(path, f"provenance is {_shown(provenance)}, not a mapping")


def check_detector(model: Any, postprocessing: Any, path: Path) -> None:
    """Refuse a detector that could not be used.

    Raises:
        InputError: labels that cannot head a column, a clip length that is none, post-processing without a value for
            every class.
    """
    for label in model.labels:
        if not isinstance(label, str) or not can_be_class(label):
            raise _refused(path, f"{_shown(label)} cannot be the name of a class")
    if not _is_number(model.clip_seconds) or not 0 < model.clip_seconds <= LONGEST_CLIP:
        raise _refused(path, f"clip_seconds is {_shown(model.clip_seconds)}, not within 0 and {LONGEST_CLIP:g} s")
    samples = round(model.clip_seconds * model.sample_rate)
    if samples < 1 or model.output_frames(samples) < 1:
        raise _refused(path, f"clip_seconds is {_shown(model.clip_seconds)}, too short for a single score")
    for name in ("threshold", "median_seconds"):
        values = getattr(postprocessing, name, None)
        missing = [label for label in model.labels if label not in values] if isinstance(values, Mapping) else []
        if missing:
            raise _refused(path, f"postprocessing has no {name} for {', '.join(missing[:3])}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: Any) -> str:
    return repr(value)[:60]


def _refused(path: Path, reason: str) -> InputError:
    return InputError(f"{path}: {reason}; fetch the folder again, or correct it")
