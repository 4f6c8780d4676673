"""Progress bars on standard error, which vanish when done and never show where it is no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

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
def counted() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each kind of work: called with what is being done, how much of it is done, and of how much."""
    with bars() as shown:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=of)
            shown.update(tasks[what], completed=done)

        yield show
