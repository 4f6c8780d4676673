"""``pmam train``: from an annotator's folder to a detector."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from pmam_plugin.cli import Device, app


@app.command(epilog="Example: pmam train recordings/ --unlabelled more/ --minutes 10 --out detector")
def train(
    folder: Annotated[
        Path, typer.Argument(help="Recordings of any length with their labels beside them, in any annotator's format.")
    ],
    unlabelled: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Further recordings, without labels.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.5, help="How long it may take in all.")] = 10.0,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where model/ and report.html go.")] = Path("detector"),
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Whose encoder to start from: yamnet.h5 or a model folder; the package's own without it.",
        ),
    ] = None,
    device: Device = None,
    seed: Annotated[int, typer.Option(help="Decides which recordings are held out, and all else random.")] = 1,
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open the report; never without a terminal.")] = True,
) -> None:
    """Learn a detector from recordings that you have labelled, and say how good it is.

    Looks at the data and says what is odd; holds out whole recordings; trains on the others and on all sound without
    labels; chooses thresholds; measures; and says which class needs more examples. DIR/hyperparams.yaml is what was
    run: recipes/DESED/train.py goes on with it. Given again, the command goes on where it was stopped.
    """
    import sys
    import warnings

    from pmam_plugin.files import check_writable
    from pmam_plugin.report.page import duration_text

    warnings.filterwarnings("ignore", module="speechbrain")
    check_writable(out / "hyperparams.yaml")
    try:
        from pmam_plugin.stages.annotated import train_annotated
    except ImportError as error:
        from pmam_plugin.errors import InputError

        raise InputError(f"training needs more packages ({error}); pip install 'pmam-plugin[train]'") from error
    _log_to(out / "log.txt")
    terminal = sys.stderr.isatty()
    done = train_annotated(folder, out, unlabelled, minutes, encoder, device, seed, tell=typer.echo, quiet=not terminal)
    typer.echo(done.verdict)
    typer.echo(f"{out / 'model'} and {out / 'report.html'}, in {duration_text(done.seconds)}")
    if show and terminal:
        import webbrowser

        webbrowser.open((out / "report.html").resolve().as_uri())


def _log_to(file: Path) -> None:
    """Everything into a file, and only what a person should know to the terminal."""
    logging.raiseExceptions = False  # a full disk is said once, by what cannot be written
    root = logging.getLogger()
    for handler in root.handlers:
        handler.setLevel(logging.WARNING)
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
