"""Which number format a network runs in: bfloat16 where the device multiplies it fast, else float32.

A processor without bfloat16 units computes such products one element at a time: a matrix product was 400 times slower
than in float32 on a core with AVX2. ``auto`` therefore asks what the device is able to, not what torch accepts.
"""

from __future__ import annotations

import contextlib
import os
import platform
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from pmam_plugin.errors import InputError

Format = Literal["float32", "bfloat16", "float16"]
# Torch's names and SpeechBrain's for the same formats.
_SHORT: dict[Format, str] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_NAMES: dict[str, Format] = {name: format for format, short in _SHORT.items() for name in (format, short)}
# Values of ONEDNN_MAX_CPU_ISA that keep torch's matrix products from using bfloat16 units.
_WITHOUT_UNITS = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")


@dataclass(frozen=True)
class Precision:
    """The format chosen for a device.

    Attributes:
        format: of matrix products; front ends and losses stay in float32.
        asked: what was asked for, ``auto`` or a format.
        reason: why this format, in a few words.
        warning: what is wrong with it, for the user; empty if nothing is.
    """

    format: Format
    asked: str
    reason: str
    warning: str = ""

    @property
    def short(self) -> str:
        """SpeechBrain's name of the format."""
        return _SHORT[self.format]

    def __str__(self) -> str:
        return f"{self.format} ({self.asked}: {self.reason})" if self.asked == "auto" else self.format

    def autocast(self, device: torch.device) -> Callable[[], contextlib.AbstractContextManager[Any]]:
        """A factory of contexts in which a network on ``device`` runs in this format."""
        if self.format == "float32":
            return contextlib.nullcontext
        return lambda: torch.autocast(device.type, getattr(torch, self.format))


def choose_precision(asked: str, device: torch.device | str) -> Precision:
    """The format to compute in.

    Args:
        asked: ``auto``, or a format by SpeechBrain's name (``fp32``, ``bf16``, ``fp16``) or torch's.
        device: where the network runs.

    Raises:
        InputError: an unknown format, or one that the device cannot compute in at all.
    """
    device = torch.device(device)
    units = bfloat16_units(device)
    if asked == "auto":
        if units:
            return Precision("bfloat16", asked, f"{units} multiplies it fast")
        return Precision("float32", asked, f"no bfloat16 units in this {_kind(device)}")
    if asked not in _NAMES:
        raise InputError(f"precision {asked!r} is unknown; choose from auto, {', '.join(_NAMES)}")
    chosen = _NAMES[asked]
    if chosen == "float16" and device.type == "cpu":
        raise InputError(f"precision {asked}: fp16 needs a GPU; on a CPU use auto, bf16 or fp32")
    if chosen == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"precision {asked}: device {device} has no bfloat16; use fp16 or auto")
    warning = ""
    if chosen == "bfloat16" and not units:
        on_cpu = device.type == "cpu"
        factor = f"; a matrix product takes {bfloat16_cost():.0f} times as long as in float32" if on_cpu else ""
        warning = f"precision {asked}: this {_kind(device)} has no bfloat16 units{factor}; use auto"
    return Precision(chosen, asked, "as asked", warning)


def bfloat16_units(device: torch.device) -> str:
    """Name of the units that multiply bfloat16 on a device; empty where there are none."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"{torch.cuda.get_device_name(device)} (SM{major}{minor})" if major >= 8 else ""
    if device.type == "mps":
        return "Apple's GPU" if torch.backends.mps.is_macos_or_newer(14, 0) else ""
    if device.type != "cpu" or os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _WITHOUT_UNITS:
        return ""
    if platform.machine() in ("aarch64", "arm64"):
        built = torch.backends.mkldnn.is_available()
        return "ARM's BF16 extension" if built and torch.ops.mkldnn._is_mkldnn_bf16_supported() else ""
    for name, test in (("AMX", "_is_amx_tile_supported"), ("AVX512-BF16", "_is_avx512_bf16_supported")):
        if getattr(torch.cpu, test, lambda: False)():
            return name
    return ""


def bfloat16_cost(size: int = 128) -> float:
    """How many times as long a square matrix product takes in bfloat16 as in float32 on this CPU, measured."""
    matrices = (torch.ones(size, size, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    slow, fast = (min(timeit.repeat("matrix @ matrix", globals={"matrix": x}, number=1, repeat=3)) for x in matrices)
    return slow / fast


def _kind(device: torch.device) -> str:
    return "CPU" if device.type == "cpu" else f"device ({device})"
