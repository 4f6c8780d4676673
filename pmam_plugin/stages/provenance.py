"""Where a model comes from, as its folder and card tell it: code, settings, versions, data.

Nothing here names a folder of the machine: a model folder is published.
"""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement

from pmam_plugin import __version__

_PACKAGE = Path(__file__).resolve().parents[1]
_SETTING = re.compile(r"^([A-Za-z]\w*):[ ]+([^\s#!&*\[{|>'\"][^#]*?)\s*(?:#.*)?$", re.M)
# Those whose version may change figures; the file of constraints pins the rest.
_VERSIONS = ("torch", "torchaudio", "numpy", "scipy", "soxr", "speechbrain", "scikit-learn", "sed_scores_eval", "timm")


def run_provenance(
    output_folder: Path, seed: int, device: torch.device | str = "cpu", precision: str = "float32"
) -> dict[str, Any]:
    """Facts that let somebody repeat the run in a folder, with the ``hyperparams.yaml`` that the recipe wrote there.

    Returns:
        ``package``, ``commit`` (only from a checkout), ``configuration``, ``seed``, ``constraints`` (only from a
        checkout) and ``environment`` with the precision of the networks in training; plain values.
    """
    facts = {
        "package": f"pmam_plugin {__version__}",
        "commit": source_commit(),
        "configuration": configuration(output_folder / "hyperparams.yaml"),
        "seed": seed,
        "constraints": constraint_set(),
        "environment": {**environment(device), "precision": precision},
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def source_commit(package: Path = _PACKAGE) -> str | None:
    """Commit of the checkout that the package runs from, with a note if its files differ; None if it is installed."""
    # An environment may lie inside somebody's own repository: the package's files have to belong to the commit.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    changed = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ".", "../recipes", "../hparams")
    return f"{commit} with local changes" if changed else commit


def configuration(file: Path) -> dict[str, Any] | None:
    """The experiment: name and digest of its YAML text (bases laid under), and its plain settings as they were run.

    Settings are the top-level numbers and words, overrides included; what names a file or folder is left out.
    """
    if not file.is_file():
        return None
    text = file.read_text(encoding="utf-8")
    source = re.search(r"^# Generated .*\n# (.+)\n# sha256 (\w+)", text, re.M)
    settings = {
        key: _plain(value)
        for key, value in _SETTING.findall(text)
        if not re.search(r"[/\\]", value) and not key.endswith(("_folder", "_checkpoint"))
    }
    name, digest = (
        (Path(source[1]).name, source[2]) if source else (file.name, hashlib.sha256(text.encode()).hexdigest())
    )
    return {"file": name, "sha256": digest, "settings": settings}


def constraint_set(file: Path = _PACKAGE.parent / "constraints.txt") -> dict[str, Any] | None:
    """The tested set of versions that belongs to the checkout, and which installed ones differ from it."""
    if not file.is_file():
        return None
    text = file.read_text(encoding="utf-8")
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    pinned = [pin for pin in map(Requirement, filter(None, lines)) if pin.marker is None or pin.marker.evaluate()]
    installed = {pin.name: _version(pin.name) for pin in pinned}
    differing = {pin.name: found for pin in pinned if (found := installed[pin.name]) and found not in pin.specifier}
    return {"file": file.name, "sha256": hashlib.sha256(text.encode()).hexdigest(), "differing": differing}


def environment(device: torch.device | str = "cpu") -> dict[str, str]:
    """Python, the versions that matter, and the kind of device."""
    kind = torch.device(device)
    name = torch.cuda.get_device_name(kind) if kind.type == "cuda" else kind.type
    found = {package: _version(package) for package in _VERSIONS}
    return {"python": platform.python_version(), **{k: v for k, v in found.items() if v is not None}, "device": name}


def _plain(value: str) -> int | float | bool | str:
    if value in ("True", "False", "true", "false"):
        return value.lower() == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
