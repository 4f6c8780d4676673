"""A model folder on this machine, from a path or from the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmam_plugin.checkpoints.folder import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, model_folder
from pmam_plugin.errors import InputError

BUILTIN = "builtin"
"""Names the small model that comes with the package (``make builtin-model`` trains it anew)."""
_BUILTIN_FOLDER = Path(__file__).resolve().parent / BUILTIN
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# Nothing else is ever fetched: a repository may hold scripts and pickles, a model folder does not.
_WANTED = [CONFIG_NAME, WEIGHTS_NAME, CARD_NAME]


def fetch_model(
    source: str | os.PathLike[str],
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """The folder of a model, fetched from the Hub if need be.

    A repository that was fetched before is used from the cache when the Hub cannot be reached.

    Args:
        source: an existing folder (or a file of it), ``"builtin"``, or a Hub id ``org/name``.
        revision: branch, tag or commit of a Hub repository.
        token: for private repositories; by default the one ``hf auth login`` stored.
        cache_dir: where fetched files are kept; None is the Hub's own cache.
        local_files_only: use what was fetched before, and nothing else.
        force_download: fetch files that are in the cache again.

    Raises:
        InputError: there is no such folder or repository, it cannot be reached, or it holds no model folder.
    """
    if os.fspath(source) == BUILTIN:
        if not (_BUILTIN_FOLDER / CONFIG_NAME).is_file():
            raise InputError("this installation holds no built-in model; name a model folder or a Hub id")
        return _BUILTIN_FOLDER
    if not os.fspath(source):
        raise InputError("the name of the model is empty; give a model folder or a Hub id (org/name)")
    folder = model_folder(source)
    if folder.is_dir() or not _HUB_ID.fullmatch(os.fspath(source)):
        if not folder.is_dir():
            raise InputError(f"{source}: no such model folder, and not a Hub id (org/name); check the name")
        return folder
    settings = {"cache_dir": cache_dir, "local_files_only": local_files_only, "force_download": force_download}
    return _fetch(os.fspath(source), revision, token, {name: value for name, value in settings.items() if value})


def _fetch(repository: str, revision: str | None, token: str | None, settings: Mapping[str, Any]) -> Path:
    # Imported here: it takes half a second, and a local folder does not need it.
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    where = f"{repository}@{revision}" if revision else repository
    here = _looks_local(repository)
    try:
        folder = Path(snapshot_download(repository, revision=revision, token=token, allow_patterns=_WANTED, **settings))
    except hub.GatedRepoError as error:
        raise InputError(
            f"{where}: access has to be requested on its Hub page; then log in with 'hf auth login'"
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise InputError(
            f"{where}: neither a folder here nor a repository on the Hub; check the name{here}, "
            "or log in with 'hf auth login' if it is private"
        ) from error
    except hub.RevisionNotFoundError as error:
        raise InputError(f"{where}: the repository has no such revision; check the branch, tag or commit") from error
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled) as error:
        raise InputError(
            f"{where}: no folder here{here}, not in the cache, and the Hub cannot be reached; connect once to fetch it"
        ) from error
    except (hub.HfHubHTTPError, hub.HFValidationError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{where}: cannot be fetched ({' '.join(str(error).split())[:150]}); try again") from error
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            if _lacks(repository, name, revision, token, settings):
                raise InputError(f"{where}: the repository has no {name}, so it is not a model folder; check the name")
            raise InputError(
                f"{where}: the cache holds only a part of it ({name} is missing); connect once to fetch the rest"
            )
    return folder


def _lacks(repository: str, name: str, revision: str | None, token: str | None, settings: Mapping[str, Any]) -> bool:
    """Whether the Hub itself says that a repository has no such file; False where it cannot be asked."""
    from huggingface_hub import constants, file_exists

    if constants.HF_HUB_OFFLINE or settings.get("local_files_only"):
        return False
    try:
        return not file_exists(repository, name, revision=revision, token=token)
    except Exception:  # whatever keeps the Hub from answering, from a proxy to a time-out
        return False


def _looks_local(repository: str) -> str:
    """For messages: what the folder holds that the first half of a Hub id names, if there is one here."""
    parent = Path(repository).parent
    if not parent.is_dir():
        return ""
    names = sorted(path.name for path in parent.iterdir() if path.is_dir())
    return f" ({parent} holds {', '.join(names[:4]) or 'no folders'}{', ...' if len(names) > 4 else ''})"
