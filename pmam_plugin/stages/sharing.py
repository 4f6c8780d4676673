"""Stages that several runs have in common are run once: the others take over what the first one left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from speechbrain.utils.distributed import ddp_barrier, if_main_process


class SharedStages:
    """An index from fingerprints of finished stages to the folders that hold them.

    A fingerprint covers a stage's settings, its inputs and all that went before, so that what bears the same one is the
    same work. Runs that come to a stage at the same time wait for the first of them.

    Args:
        folder: of the index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    @contextlib.contextmanager
    def turn(self, fingerprint: str) -> Iterator[None]:
        """Hold the stage until it is finished or has been taken over."""
        with contextlib.ExitStack() as stack:
            if if_main_process():
                self.folder.mkdir(parents=True, exist_ok=True)
                handle = stack.enter_context(open(self.folder / f"{fingerprint}.lock", "ab"))
                fcntl.flock(handle, fcntl.LOCK_EX)
            ddp_barrier()
            yield

    def take(self, fingerprint: str, folder: Path) -> None:
        """Put the files of a finished stage into ``folder``, linked rather than copied where the disk is the same."""
        entry = self.folder / fingerprint
        if if_main_process() and entry.exists():
            source = Path(entry.read_text(encoding="utf-8"))
            if (source / "record.json").exists() and source != folder.resolve():
                partial = folder.with_name(f".{folder.name}.partial")
                for old in (partial, folder):
                    shutil.rmtree(old, ignore_errors=True)
                shutil.copytree(source, partial, copy_function=_link)
                os.replace(partial, folder)
        ddp_barrier()

    def offer(self, fingerprint: str, folder: Path) -> None:
        """Tell the others where the finished stage lies."""
        if if_main_process():
            (self.folder / fingerprint).write_text(str(folder.resolve()), encoding="utf-8")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
