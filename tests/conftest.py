"""Keep pytest, hypothesis and SpeechBrain from tripping over each other, and start with what takes longest.

Test tools ask every imported module for its ``__file__`` and the like; SpeechBrain's lazy modules answer by importing
optional packages that are not installed, and raise ImportError. They have no such names: AttributeError says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from speechbrain.utils.importutils import LazyModule

_load = LazyModule.__getattr__


def _without_dunders(self: Any, name: str) -> Any:
    if name.startswith("__") and name.endswith("__"):
        raise AttributeError(name)
    return _load(self, name)


LazyModule.__getattr__ = _without_dunders


@pytest.fixture(scope="session", autouse=True)
def _own_audio_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs in tests do not fill the user's cache of waveforms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PMAM_AUDIO_CACHE", str(tmp_path_factory.mktemp("audio_cache")))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests first, so that several processes end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    recipes = {path for path in slow if path.parent.name == "recipes"}
    items.sort(key=lambda item: (item.path not in recipes, item.path not in slow))
