"""Model folders to and from the Hub, every failure one sentence."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pmam_plugin.checkpoints.folder import (
    CARD_NAME,
    CONFIG_NAME,
    WEIGHTS_NAME,
    LoadedModel,
    load_module,
    model_folder,
    plain_card,
    save_model,
)
from pmam_plugin.checkpoints.folder import load_model as load_folder
from pmam_plugin.checkpoints.hub_folder import BUILTIN, fetch_model
from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path
from pmam_plugin.hub.card import FILES, is_generated, model_card

COMPANIONS = ("hyperparams.yaml", "expert.py", "requirements.txt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


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
    with one_sentence(repository):
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


def resolve(
    source: str | os.PathLike[str], revision: str | None = None, token: str | None = None, **fetching: Any
) -> Path:
    """The folder of a model, fetched from the Hub if need be.

    :func:`~pmam_plugin.checkpoints.hub_folder.fetch_model`, with a download that breaks off told in one sentence too.
    """
    with one_sentence(os.fspath(source)):
        return fetch_model(source, revision, token, **fetching)


def pull(
    repository: str,
    destination: str | os.PathLike[str],
    revision: str | None = None,
    token: str | None = None,
) -> Path:
    """Fetch a model folder and put a copy of it where you want it.

    Args:
        repository: Hub id, ``org/name``.
        destination: a folder that is empty or not there yet.
        revision: branch, tag or commit; the default branch if None.
        token: for private repositories; by default the one ``hf auth login`` stored.

    Returns:
        The folder, whose model has been loaded once to see that it is whole.

    Raises:
        InputError: the destination holds files, or there is no such model or it cannot be fetched or loaded.
    """
    check_id(repository)
    target = Path(destination)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target}: is not empty; choose another destination, or remove it first")
    source = resolve(repository, revision, token)
    load_module(source)
    for name in (WEIGHTS_NAME, CARD_NAME, CONFIG_NAME):
        if (source / name).is_file():
            with atomic_path(target / name) as temporary:
                shutil.copyfile(source / name, temporary)
    return target


def load_model(
    source: str | os.PathLike[str] = BUILTIN,
    revision: str | None = None,
    device: str | torch.device | None = None,
    token: str | None = None,
    **fetching: Any,
) -> LoadedModel:
    """A detector from a folder or the Hub, in evaluation mode; the ``from_pretrained`` of plain models.

    Args:
        source: folder, Hub id, or ``"builtin"``, the small model of the package.
        revision: branch, tag or commit of a Hub repository.
        device: where the model goes; None is the CPU.
        token: for private repositories.
        fetching: ``cache_dir``, ``local_files_only``, ``force_download`` of
            :func:`~pmam_plugin.checkpoints.hub_folder.fetch_model`.

    Raises:
        InputError: see :func:`~pmam_plugin.checkpoints.load_model`.
    """
    return load_folder(resolve(source, revision, token, **fetching), device)


def push_model(
    model: nn.Module,
    repository: str,
    postprocessing: Any = None,
    provenance: Mapping[str, Any] | None = None,
    half: bool = False,
    options: Mapping[str, Any] | None = None,
    **publishing: Any,
) -> str:
    """Publish a model in memory; the ``push_to_hub`` of plain models.

    Args:
        model: a ``@configurable`` module.
        repository: Hub id, ``org/name``.
        postprocessing: see :func:`~pmam_plugin.checkpoints.save_model`, as the next three.
        provenance: plain values; figures under ``metrics`` go into the card.
        half: store the weights as float16.
        options: keyword arguments of the model's forward.
        publishing: other arguments of :func:`push`.

    Returns:
        The commit.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_model(folder, model, postprocessing, provenance, half=half, options=options)
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


def check_id(repository: str) -> None:
    """Raise InputError where a Hub id is none."""
    if not _HUB_ID.fullmatch(repository):
        raise InputError(f"{repository}: not a Hub id; write it as org/name")


@contextlib.contextmanager
def one_sentence(repository: str) -> Iterator[None]:
    """Turn whatever goes wrong in talking to the Hub into one InputError."""
    from huggingface_hub import errors

    transport: Any = errors.HTTPError  # type: ignore[attr-defined]  # of httpx, under whichever name it is installed
    try:
        yield
    except InputError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise InputError(f"{repository}: the Hub is switched off by HF_HUB_OFFLINE; unset it to publish") from error
    except (transport, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{repository}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return "the Hub knows no such token; log in with 'hf auth login' or pass a token with write permission"
    if status == 403:
        return "this token may not write there; use one with write permission for that name"
    if status is None:
        return f"the connection to the Hub failed ({_short(error)}); check it and try again"
    return f"the Hub refused ({_short(error)}); check the name and the files"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:150] or type(error).__name__


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
    if written is None or is_generated(written) or written == plain_card(config):
        return model_card(config, repository, license, dataset, datasets)
    return written
