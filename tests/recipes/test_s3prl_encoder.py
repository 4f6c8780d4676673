"""PMAM's small experiment around an s3prl upstream, by the changes that the recipe's README lists."""

import json
import re
import subprocess
import sys

import pytest

from tests.recipes.tiny import arguments, run_recipe
from tests.support import ROOT
from tests.upstream.models import patch_detector, write_folder

pytestmark = pytest.mark.slow
pytest.importorskip("s3prl", reason="s3prl is not installed")

LOAD = """
import sys, numpy
from pmam_plugin import SoundEventDetector
from pmam_plugin.upstream import register
register(shim=True)
detector = SoundEventDetector.from_pretrained(sys.argv[1], device="cpu")
print(len(detector.scores(numpy.ones(24000, numpy.float32), 16000)), type(detector.model.backbone.encoder).__name__)
"""


def readme_experiment():
    readme = (ROOT / "recipes/DESED/README.md").read_text()
    [section] = re.findall(r"^## Any s3prl upstream.*?(?=^## )", readme, re.M | re.S)
    [block] = re.findall(r"```yaml\n(.*?)```", section, re.S)
    return block.replace("base: ", f"base: {ROOT}/hparams/")


def test_the_recipe_trains_around_it_and_the_model_folder_detects(corpus, tmp_path):
    """The upstream is a tiny model of this package: s3prl's own that need no download take minutes."""
    output = tmp_path / "run"
    upstream = write_folder(tmp_path / "upstream", patch_detector())
    text, replaced = re.subn(
        r"^    name: fbank.*", f"    name: pmam_local\n    path_or_url: {upstream}", readme_experiment(), flags=re.M
    )
    assert replaced == 1
    yaml = tmp_path / "pmam_s3prl.yaml"
    yaml.write_text(text.replace("\nencoder:", "\nshim: !apply:pmam_plugin.upstream.register {shim: true}\nencoder:"))
    done = run_recipe(arguments(str(yaml), corpus, output, skip_stages="[estep_2, pretrain_2]"))
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["stages"]["pretrain_1"]["updates"] == 6
    config = json.loads((output / "model/config.json").read_text())
    assert config["model"]["backbone"]["encoder"]["type"] == "S3PRLEncoder"
    command = [sys.executable, "-c", LOAD, str(output / "model")]
    loaded = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr[-3000:]
    assert loaded.stdout.split() == ["38", "S3PRLEncoder"]
