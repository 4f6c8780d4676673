"""Model folders to and from the Hub, every failure one sentence."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from pmam_plugin.checkpoints.card import is_generated, model_card
from pmam_plugin.checkpoints.folder import load_module, save_model
from pmam_plugin.checkpoints.hub_folder import (
    CARD_NAME,
    CONFIG_NAME,
    WEIGHTS_NAME,
    Fetching,
    check_id,
    fetch_model,
    hub_errors,
    model_folder,
)
from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path
from pmam_plugin.postprocessing import Scoring

if TYPE_CHECKING:
    from typing_extensions import Unpack

FILES = Path(__file__).parent / "files"
COMPANIONS = ("hyperparams.yaml", "expert.py", "requirements.txt")


def push(
    folder: str | os.PathLike[str],
    repository: str,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    license: str | None = None,
    dataset: str | None = None,
    datasets: Sequence[str] = (),
    token: str | None = None,
) -> str:
    """Publish a model folder; the repository is made if there is none.

    The folder is loaded first, so that nothing is published that cannot be used. Only ``config.json``,
    ``model.safetensors`` and the card leave this machine, beside the constant files for SpeechBrain and s3prl. A card
    that somebody wrote or edited is kept; the one that training wrote is replaced by one for the repository.

    Args:
        folder: what :func:`~pmam_plugin.checkpoints.save_model` wrote.
        repository: Hub id, ``org/name``.
        private: make a new repository private; an existing one stays what it is.
        revision: branch to commit to, made if missing; the default branch if None.
        message: of the commit.
        license: of the weights, for the card; by default what the provenance says.
        dataset: name of the data the figures were measured on, for the card; likewise.
        datasets: Hub ids of the training data, for the card.
        token: with write permission; by default the one ``hf auth login`` stored.

    Returns:
        The commit, by which others can pin what they fetch.

    Raises:
        InputError: the folder is no model folder, or the Hub refuses or cannot be reached.
    """
    # Imported here: it takes half a second, and pull works without.
    from huggingface_hub import CommitOperationAdd, HfApi

    folder = model_folder(folder)
    check_id(repository)
    config = load_module(folder).config
    card = _card(folder, config, repository, license, dataset, datasets)
    files: dict[str, str | bytes] = {CARD_NAME: card.encode()}
    files |= {name: str(folder / name) for name in (CONFIG_NAME, WEIGHTS_NAME)}
    files |= {name: (FILES / name).read_bytes() for name in COMPANIONS}
    api = HfApi(token=token)
    with hub_errors(repository, publishing=True):
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=message or f"Publish {config['architecture']} with pmam_plugin",
            revision=revision,
        )
    return str(commit.oid)


def pull(
    repository: str,
    destination: str | os.PathLike[str],
    revision: str | None = None,
    **fetching: Unpack[Fetching],
) -> Path:
    """Fetch a model folder and put a copy of it where you want it.

    Args:
        repository: Hub id, ``org/name``.
        destination: a folder that is empty or not there yet.
        revision: branch, tag or commit; the default branch if None.
        fetching: see :func:`~pmam_plugin.checkpoints.fetch_model`.

    Returns:
        The folder, whose model has been loaded once to see that it is whole.

    Raises:
        InputError: the destination holds files, or there is no such model or it cannot be fetched or loaded.
    """
    check_id(repository)
    target = Path(destination)
    if target.is_file():
        raise InputError(f"{target}: is a file; choose another destination, an empty or a new folder")
    if target.exists() and any(target.iterdir()):
        raise InputError(f"{target}: is not empty; choose another destination, or remove it first")
    source = fetch_model(repository, revision, **fetching)
    load_module(source)
    for name in (WEIGHTS_NAME, CARD_NAME, CONFIG_NAME):
        if (source / name).is_file():
            with atomic_path(target / name) as temporary:
                shutil.copyfile(source / name, temporary)
    return target


def push_model(
    model: nn.Module,
    repository: str,
    scoring: Scoring | None = None,
    provenance: Mapping[str, Any] | None = None,
    half: bool = False,
    **publishing: Any,
) -> str:
    """Publish a model in memory; the ``push_to_hub`` of plain models.

    Args:
        model: a ``@configurable`` module.
        repository: Hub id, ``org/name``.
        scoring: see :func:`~pmam_plugin.checkpoints.save_model`, as the next two.
        provenance: plain values; figures under ``metrics`` go into the card.
        half: store the weights as float16.
        publishing: other arguments of :func:`push`.

    Returns:
        The commit.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_model(folder, model, scoring, provenance, half=half)
        return push(folder, repository, **publishing)


def write_companions(folder: str | os.PathLike[str]) -> list[Path]:
    """Add the files that SpeechBrain and s3prl's older interface look for to a model folder; returns their paths.

    :func:`push` publishes them without writing them into the folder first.
    """
    written = []
    for name in COMPANIONS:
        with atomic_path(Path(folder) / name) as temporary:
            shutil.copyfile(FILES / name, temporary)
        written.append(Path(folder) / name)
    return written


def _card(
    folder: Path,
    config: Mapping[str, Any],
    repository: str,
    license: str | None,
    dataset: str | None,
    datasets: Sequence[str],
) -> str:
    path = folder / CARD_NAME
    written = path.read_text(encoding="utf-8") if path.is_file() else None
    if written is None or is_generated(written):
        return model_card(config, repository, license, dataset, datasets)
    return written
