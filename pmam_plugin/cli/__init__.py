"""The ``pmam`` command: every module of this package adds its verbs to ``app`` when it is imported.

What a verb needs it imports when it is called, so that the others and --help are there at once.
Exit status 0: done; 1: failed, with one line ``error: ...`` on standard error; 2: wrong usage.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from pmam_plugin import __version__
from pmam_plugin.errors import InputError, told

app = typer.Typer(
    name="pmam",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Device = Annotated[str | None, typer.Option(metavar="cpu|cuda|...", help="Where to compute; the GPU if there is one.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with its exit status.

    Args:
        arguments: default those the process was started with.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        app(args=None if arguments is None else list(arguments), prog_name="pmam")
    except (InputError, OSError) as error:
        sys.stderr.write(f"error: {told(error) or error}\n")
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pmam {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", callback=_version)] = False,
) -> None:
    """Self-supervised sound event detection: detect, evaluate, import, export and share models."""


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
