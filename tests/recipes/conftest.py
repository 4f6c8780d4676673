"""One tiny corpus for all experiments."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipes.tiny import tiny_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus(tmp_path_factory.mktemp("data") / "corpus")
