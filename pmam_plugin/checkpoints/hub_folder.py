"""The one way to a model folder: from a path, from the Hugging Face Hub, or the one that comes with the package."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

from pmam_plugin.errors import InputError, reason

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"
BUILTIN = "builtin"
"""Names the small model that comes with the package (``make builtin-model`` trains it anew)."""
_BUILTIN_FOLDER = Path(__file__).resolve().parent / BUILTIN
_ARCHIVES = frozenset((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"))
_WEIGHTS = frozenset(
    (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".h5", ".hdf5", ".keras", ".safetensors", ".onnx", ".tflite")
)
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


class Fetching(TypedDict, total=False):
    """Keyword arguments of :func:`fetch_model`, which all that loads a model by its name passes on."""

    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    force_download: bool


def model_folder(source: str | os.PathLike[str]) -> Path:
    """The folder that ``source`` (a folder, or a file inside it) means."""
    path = Path(source)
    return path.parent if path.name in (CONFIG_NAME, WEIGHTS_NAME) and not path.is_dir() else path


def require_model(folder: Path, name: str | os.PathLike[str]) -> None:
    """Name what stands in the place of a model folder for what it is.

    Args:
        folder: as from :func:`model_folder`.
        name: what messages call it.

    Raises:
        InputError: a file, or a folder without a configuration; what is not there at all is let through.
    """
    made = "give a folder that training or pmam import-checkpoint wrote"
    if folder.is_dir() and not (folder / CONFIG_NAME).is_file():
        inside = sorted((*folder.glob(f"*/{CONFIG_NAME}"), *folder.glob(f"*/*/{CONFIG_NAME}")))
        cure = f"give {inside[0].parent} inside it" if inside else made
        raise InputError(f"{name}: holds no {CONFIG_NAME}, so it is no model folder; {cure}")
    if os.path.lexists(folder) and not folder.is_dir():
        kind = folder.suffix.lower()
        if not folder.exists():
            raise InputError(f"{name}: is a link that leads nowhere; check what it should lead to")
        if kind in _ARCHIVES:
            raise InputError(f"{name}: is an archive, not a model folder; unpack it and give the folder inside")
        raise InputError(f"{name}: is a file{' of weights' * (kind in _WEIGHTS)}, not a model folder; {made}")


def fetch_model(
    source: str | os.PathLike[str],
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    companions: Sequence[str] = (),
) -> Path:
    """The folder of a model, fetched from the Hub if need be.

    A repository that was fetched before is used from the cache when the Hub cannot be reached. Beside the named
    companions nothing but the configuration, the weights and the card is ever fetched: a repository may hold scripts
    and pickles, a model folder does not.

    Args:
        source: an existing folder (or a file of it), ``"builtin"``, or a Hub id ``org/name``.
        revision: branch, tag or commit of a Hub repository.
        token: for private repositories; by default the one ``hf auth login`` stored.
        cache_dir: where fetched files are kept; None is the Hub's own cache.
        local_files_only: use what was fetched before, and nothing else.
        force_download: fetch files that are in the cache again.
        companions: further files that the folder has to hold.

    Raises:
        InputError: there is no such folder or repository, it cannot be reached, or it holds no model folder.
    """
    name = os.fspath(source)
    folder = _BUILTIN_FOLDER if name == BUILTIN else model_folder(source)
    if name == BUILTIN and not (folder / CONFIG_NAME).is_file():
        raise InputError("this installation holds no built-in model; name a model folder or a Hub id")
    if not name:
        raise InputError("the name of the model is empty; give a model folder or a Hub id (org/name)")
    require_model(folder, name)
    if folder.is_dir():
        for companion in companions:
            if not (folder / companion).is_file():
                raise InputError(f"{name}: has no {companion}; add it with pmam_plugin.hub.write_companions")
        return folder
    if not _HUB_ID.fullmatch(name):
        raise InputError(f"{name}: no such model folder, and not a Hub id (org/name); check the name")
    # Imported here: it takes half a second, and a local folder does not need it.
    from huggingface_hub import snapshot_download

    where = f"{name}@{revision}" if revision else name
    with hub_errors(where, _looks_local(name)):
        folder = Path(
            snapshot_download(
                name,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
                allow_patterns=[CONFIG_NAME, WEIGHTS_NAME, CARD_NAME, *companions],
            )
        )
    for wanted in (CONFIG_NAME, WEIGHTS_NAME, *companions):
        if (folder / wanted).is_file():
            continue
        if local_files_only or not _lacks(name, wanted, revision, token):
            raise InputError(
                f"{where}: the cache holds only a part of it ({wanted} is missing); connect once to fetch the rest"
            )
        if wanted in companions:
            raise InputError(f"{where}: the repository has no {wanted}; publish it with pmam push, which adds it")
        raise InputError(f"{where}: the repository has no {wanted}, so it is not a model folder; check the name")
    return folder


def check_id(repository: str) -> None:
    """Raise InputError where a Hub id is none."""
    if not _HUB_ID.fullmatch(repository):
        raise InputError(f"{repository}: not a Hub id; write it as org/name")


@contextlib.contextmanager
def hub_errors(where: str, here: str = "", publishing: bool = False) -> Iterator[None]:
    """Turn whatever goes wrong in talking to the Hub into one InputError.

    Args:
        where: what was asked for, named first.
        here: what there is on this machine instead, for a name that was not found.
        publishing: something was to be written there.
    """
    from huggingface_hub import errors as hub

    transport: Any = hub.HTTPError  # type: ignore[attr-defined]  # of httpx, under whichever name it is installed
    try:
        yield
    except InputError:
        raise
    except (hub.HfHubHTTPError, hub.OfflineModeIsEnabled, transport, OSError, ValueError, RuntimeError) as error:
        said = _refused(error) if publishing else _not_fetched(error, here)
        raise InputError(f"{where}: {said}") from error


def _not_fetched(error: Exception, here: str) -> str:
    from huggingface_hub import errors as hub

    if isinstance(error, hub.GatedRepoError):
        return "access has to be requested on its Hub page; then log in with 'hf auth login'"
    if isinstance(error, hub.RepositoryNotFoundError):
        return (
            f"neither a folder here nor a repository on the Hub; check the name{here}, or log in with 'hf auth login' "
            "if it is private"
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return "the repository has no such revision; check the branch, tag or commit"
    if isinstance(error, hub.LocalEntryNotFoundError | hub.OfflineModeIsEnabled):
        return f"no folder here{here}, not in the cache, and the Hub cannot be reached; connect once to fetch it"
    return f"cannot be fetched ({reason(error)}); try again"


def _refused(error: Exception) -> str:
    from huggingface_hub import errors as hub

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, hub.OfflineModeIsEnabled):
        return "the Hub is switched off by HF_HUB_OFFLINE; unset it to publish"
    if status == 401:
        return "the Hub knows no such token; log in with 'hf auth login' or pass a token with write permission"
    if status == 403:
        return "this token may not write there; use one with write permission for that name"
    if status is None:
        return f"the connection to the Hub failed ({reason(error)}); check it and try again"
    return f"the Hub refused ({reason(error)}); check the name and the files"


def _lacks(repository: str, name: str, revision: str | None, token: str | bool | None) -> bool:
    """Whether the Hub itself says that a repository has no such file; False where it cannot be asked."""
    from huggingface_hub import constants, file_exists

    if constants.HF_HUB_OFFLINE:
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
