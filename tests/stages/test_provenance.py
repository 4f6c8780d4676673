"""What a model folder says about its origin."""

import json
import subprocess
from pathlib import Path

from pmam_plugin.stages.provenance import configuration, constraint_set, environment, run_provenance, source_commit

HYPERPARAMS = """# Generated 2026-01-02 from:
# {source}
# sha256 abc123, settings of the command line aside
# yamllint disable
seed: 7
data_folder: /home/somebody/desed
output_folder: results/run
passt_checkpoint: passt.pt
cache: /tmp/cache                       # a path
precision: bf16
mask_rate: 7.5e-1                       # share of frames hidden
check: true
labels: &id004 !apply:pmam_plugin.data.class_list [data/builtin]
nested:
  dim: 144
"""


def test_settings_are_the_plain_ones_and_name_no_folder(tmp_path):
    source = tmp_path / "experiment.yaml"
    (tmp_path / "hyperparams.yaml").write_text(HYPERPARAMS.format(source=source))
    found = configuration(tmp_path / "hyperparams.yaml")
    assert found["file"] == "experiment.yaml"
    assert found["settings"] == {"seed": 7, "precision": "bf16", "mask_rate": 0.75, "check": True}
    assert found["sha256"] == "abc123"


def test_a_run_without_its_settings_says_nothing_about_them(tmp_path):
    facts = run_provenance(tmp_path, seed=3)
    assert "configuration" not in facts
    assert facts["seed"] == 3
    assert facts["environment"]["torch"]
    assert str(tmp_path) not in json.dumps(facts)


def test_a_checkout_names_its_commit_and_an_installed_package_none(tmp_path):
    def git(*arguments):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert source_commit(package) is None
    git("init")
    assert source_commit(package) is None  # inside a repository, but not of it
    git("add", "package")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert source_commit(package) == commit
    (package / "__init__.py").write_text("changed")
    assert source_commit(package) == f"{commit} with local changes"


def test_installed_versions_that_differ_from_the_pinned_ones_are_listed(tmp_path):
    import numpy

    file = tmp_path / "constraints.txt"
    file.write_text(
        f"# pinned\nnumpy==0.1 ; python_version < '3'\nnumpy=={numpy.__version__} ; python_version >= '3'\n"
        "pytest==0.1  # old\nnot-installed==1.0\n"
    )
    assert list(constraint_set(file)["differing"]) == ["pytest"]
    assert constraint_set(Path("no/such/file")) is None


def test_the_environment_names_the_device():
    assert environment("cpu")["device"] == "cpu"
