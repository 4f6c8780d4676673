"""What several tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared(relative: str) -> Path:
    """Path of a file of the shared data folder, or skip the test where that folder is absent."""
    folder = Path(os.environ.get("PMAM_SHARED", "../shared"))
    folder = folder if folder.is_absolute() else ROOT / folder
    path = folder / "data" / relative
    if not path.exists():
        pytest.skip(f"shared data not available: {relative} (set PMAM_SHARED to the folder that holds data/)")
    return path


def run(*arguments: object) -> int:
    """Exit status of the ``pmam`` command."""
    from pmam_plugin.cli import main

    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def s3prl_hub() -> Any:
    """``s3prl.hub`` with our upstreams and, where it needs one, the shim; skip the test where s3prl is absent."""
    pytest.importorskip("s3prl", reason="s3prl is not installed")
    from pmam_plugin.upstream import register

    register(shim=True)
    from s3prl import hub

    return hub
