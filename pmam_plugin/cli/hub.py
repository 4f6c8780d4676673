"""``pmam push`` and ``pmam pull``: model folders to and from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pmam_plugin.cli import app


@app.command(
    epilog="Example: pmam push results/pmam/21/model org/pmam-desed --license apache-2.0 --dataset 'DESED validation'"
)
def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Model folder.")],
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Where to; made if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(metavar="BRANCH", help="Branch; made if it does not exist.")] = None,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="Message of the commit.")] = None,
    license: Annotated[
        str | None, typer.Option(metavar="ID", help="License of the weights, for the card: apache-2.0, cc-by-4.0, ...")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the figures were measured on, for the card.")
    ] = None,
    trained_on: Annotated[
        list[str] | None, typer.Option(metavar="ORG/DATA", help="Hub id of training data, for the card; repeatable.")
    ] = None,
    token: Annotated[
        str | None, typer.Option(envvar="HF_TOKEN", help="With write permission; by default that of 'hf auth login'.")
    ] = None,
) -> None:
    """Publish a model folder: configuration, weights and card, and the files that SpeechBrain and s3prl look for.

    The model is loaded first, so nothing broken is published. A card (README.md) that you wrote or edited is kept; the
    one of the training is replaced by one for the repository.
    """
    from pmam_plugin import hub

    commit = hub.push(folder, repository, private, revision, message, license, dataset, trained_on or (), token)
    typer.echo(f"{repository}@{commit}")


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
