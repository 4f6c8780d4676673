from pathlib import Path

import pytest

from tests.data.corpus import tiny_corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return tiny_corpus(tmp_path / "corpus")
