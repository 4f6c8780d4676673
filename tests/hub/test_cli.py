"""``pmam push`` and ``pmam pull`` against the small Hub, in processes of their own as users run them."""

import os
import subprocess
import sys

import pytest

from tests.hub_server import WRITE, FakeHub
from tests.upstream.models import write_folder

RUN = "from pmam_plugin.cli import main; main()"


@pytest.fixture
def pmam(tmp_path):
    with FakeHub() as server:
        environment = {
            **os.environ,
            "HF_ENDPOINT": server.endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }

        def run(*arguments, **extra):
            command = [sys.executable, "-c", RUN, *map(str, arguments)]
            settings = {**environment, **extra}
            return subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True, check=False)

        yield run


@pytest.mark.slow
def test_push_and_pull_round_trip(pmam, tmp_path):
    folder = write_folder(tmp_path / "model")
    refused = pmam("push", folder, "org/name")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("error: org/name: the Hub knows no such token; log in")
    pushed = pmam("push", folder, "org/name", "--license", "cc-by-4.0", "--trained-on", "org/data", HF_TOKEN=WRITE)
    assert pushed.returncode == 0, pushed.stderr
    commit = pushed.stdout.strip().rpartition("@")[2]
    assert len(commit) == 40
    pulled = pmam("pull", "org/name", "--revision", commit)
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.strip() == "name"
    card = (tmp_path / "name" / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "- org/data" in card
    assert (tmp_path / "name" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
