"""Keep hypothesis and SpeechBrain from tripping over each other.

Hypothesis asks every imported module for its ``__file__``; SpeechBrain's lazy modules answer by importing optional
packages that are not installed, and raise ImportError. They have no file of their own: AttributeError says so.
"""

from __future__ import annotations

import sys
from typing import Any


def pytest_runtest_setup(item: Any) -> None:
    importutils = sys.modules.get("speechbrain.utils.importutils")
    if importutils is None or hasattr(importutils.LazyModule, "_asks_politely"):
        return
    load = importutils.LazyModule.__getattr__

    def without_dunders(self: Any, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return load(self, name)

    importutils.LazyModule.__getattr__ = without_dunders
    importutils.LazyModule._asks_politely = True
