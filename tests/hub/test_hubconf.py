"""torch.hub loads the upstreams from a checkout."""

import subprocess
import sys

import pytest
import torch

from tests.support import ROOT
from tests.upstream.models import noise, write_folder


def test_an_entry_loads_a_model_folder(tmp_path):
    folder = write_folder(tmp_path / "model")
    upstream = torch.hub.load(str(ROOT), "pmam_local", source="local", ckpt=str(folder))
    assert len(upstream([noise(0.5)])["hidden_states"]) == 6


@pytest.mark.slow
def test_a_checkout_that_is_not_installed_will_do(tmp_path):
    folder = write_folder(tmp_path / "model")
    code = f"""
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path = [entry for entry in sys.path if "pmam" not in entry and entry not in ("", {str(ROOT)!r})]
try:
    import pmam_plugin
except ModuleNotFoundError:
    import torch
    torch.hub.load({str(ROOT)!r}, "pmam_local", source="local", ckpt={str(folder)!r})
else:
    sys.exit("the package was importable without the checkout")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_folder_of_templates_shows_what_the_package_publishes():
    files = [*(ROOT / "pmam_plugin/checkpoints/files").iterdir(), *(ROOT / "pmam_plugin/hub/files").iterdir()]
    published = {path.name: path.read_bytes() for path in files if path.is_file()}
    shown = {path.name: path.read_bytes() for path in (ROOT / "hub").iterdir() if path.name != "README.md"}
    assert published == shown
    assert {"card.md", "expert.py", "hyperparams.yaml", "requirements.txt"} <= shown.keys()
