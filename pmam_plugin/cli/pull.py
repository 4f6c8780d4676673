"""``pmam pull``: fetch a model folder from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pmam_plugin.cli import app


@app.command(epilog="Example: pmam pull org/pmam-desed models/pmam --revision v1")
def pull(
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Hub id.")],
    destination: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="An empty or new folder; by default NAME, here.")
    ] = None,
    revision: Annotated[str | None, typer.Option(metavar="REV", help="Branch, tag or commit.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="HF_TOKEN", help="For private ones; by default that of 'hf auth login'.")
    ] = None,
) -> None:
    """Fetch a model: configuration, weights and card, nothing else; its weights are checked by loading them.

    Other verbs take a Hub id wherever they take a folder, so this is only needed to have the files at hand.
    """
    from pmam_plugin import hub

    target = destination if destination is not None else Path(repository.rpartition("/")[2])
    typer.echo(str(hub.pull(repository, target, revision, token=token)))
