"""Progress bars on standard error, which vanish when done and never show where it is no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pmam_plugin import errors

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextlib.contextmanager
def bars() -> Iterator[Progress]:
    """Rich's bars."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        yield shown


@contextlib.contextmanager
def counted() -> Iterator[errors.Progress]:
    """A bar for each kind of work."""
    with bars() as shown:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: float, of: float) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=of)
            shown.update(tasks[what], completed=done)

        yield show
