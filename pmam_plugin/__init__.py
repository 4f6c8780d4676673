"""Self-supervised and semi-supervised sound event detection for SpeechBrain, s3prl and the Hugging Face Hub."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Read once, when torch is first imported. By default OpenMP's waiting threads spin, and a second process on the same
# cores slows training tenfold and more (benchmarks/busy.py); asleep they cost it what sharing costs.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"
__all__ = ["SoundEventDetector", "load_model"]

if TYPE_CHECKING:
    from pmam_plugin.checkpoints import load_model
    from pmam_plugin.inference import SoundEventDetector

_HOMES = {"SoundEventDetector": "pmam_plugin.inference", "load_model": "pmam_plugin.checkpoints"}


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that importing the package stays light."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
