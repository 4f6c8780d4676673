"""Entries of this package in s3prl's table of upstreams."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pmam_plugin.errors import InputError
from pmam_plugin.upstream.expert import UpstreamExpert


def pmam(ckpt: str | None = None, **options: Any) -> UpstreamExpert:
    """The published weights; until there are any, the small model that comes with the package.

    That one is YAMNet, which knows AudioSet, frozen under layers that learned ten household sounds: its embeddings
    serve, its benchmark figures say nothing about PMAM. ``options`` as in :class:`UpstreamExpert`; ``ckpt`` is ignored.
    """
    return UpstreamExpert(None, **options)


def pmam_local(ckpt: str | os.PathLike[str] | None = None, **options: Any) -> UpstreamExpert:
    """The model in the folder ``ckpt`` (s3prl's ``path_or_url``); ``options`` as in :class:`UpstreamExpert`.

    Raises:
        InputError: no folder was named, or there is none.
    """
    if ckpt is None or not Path(ckpt).exists():
        named = "no model folder was named" if ckpt is None else f"{ckpt}: no such model folder"
        raise InputError(f"pmam_local: {named}; give one as path_or_url (ckpt in s3prl's older interface)")
    return UpstreamExpert(ckpt, **options)


def pmam_hub(ckpt: str | None = None, **options: Any) -> UpstreamExpert:
    """The model ``ckpt`` (``org/name`` or ``org/name@revision``) of the Hub, cached after the first use.

    Raises:
        InputError: nothing was named, or it cannot be fetched.
    """
    if ckpt is None:
        raise InputError("pmam_hub: no Hub id was named; give one (org/name or org/name@revision) as path_or_url")
    return UpstreamExpert(ckpt, **options)


ENTRIES: dict[str, Callable[..., UpstreamExpert]] = {"pmam": pmam, "pmam_local": pmam_local, "pmam_hub": pmam_hub}


def register(shim: bool = False) -> None:
    """Make ``pmam``, ``pmam_local`` and ``pmam_hub`` upstreams of s3prl in this process; calling it again is harmless.

    s3prl looks its upstreams up by name, also when it loads a checkpoint of a problem, and has no plugin discovery:
    every process that uses the names has to call this first.

    Args:
        shim: first put back what s3prl misses in torchaudio from 2.9 on, see :mod:`pmam_plugin.upstream.compat`.

    Raises:
        InputError: s3prl is not installed or cannot be imported, or another upstream has one of the names.
    """
    if shim:
        from pmam_plugin.upstream.compat import restore_torchaudio

        restore_torchaudio()
    try:
        from s3prl import hub
    except ModuleNotFoundError as error:
        raise InputError(
            f"s3prl cannot be imported ({error}); install it with pip install 'pmam-plugin[s3prl]'"
        ) from error
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"s3prl cannot be imported ({error}), most likely for a torchaudio it does not know; "
            "call register(shim=True) before anything imports s3prl"
        ) from error
    foreign = [name for name, entry in ENTRIES.items() if getattr(hub, name, entry) is not entry]
    if foreign:
        raise InputError(f"s3prl already has another upstream named {foreign[0]}; remove it from s3prl.hub first")
    for name, entry in ENTRIES.items():
        setattr(hub, name, entry)
