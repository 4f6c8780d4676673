"""``pmam soundscapes``: build the synthetic corpus that needs no recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pmam_plugin.cli import app
from pmam_plugin.cli.progress import counted


@app.command(epilog="Example: pmam soundscapes data/builtin --strong 120 --weak 150 --unlabelled 300")
def soundscapes(
    folder: Annotated[
        Path, typer.Argument(help="Where to; new, empty, or of an interrupted build.", show_default=False)
    ],
    strong: Annotated[int, typer.Option(min=0, help="Training clips with onsets and offsets.")] = 120,
    weak: Annotated[int, typer.Option(min=0, help="Training clips whose classes are known.")] = 150,
    unlabelled: Annotated[int, typer.Option(min=0, help="Training clips without labels.")] = 300,
    selection: Annotated[int, typer.Option(min=0, help="Clips to select models on (synthetic validation set).")] = 60,
    validation: Annotated[int, typer.Option(min=0, help="Clips to report figures on.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives another corpus.")] = 0,
    seconds: Annotated[float, typer.Option(min=1.0, help="Length of a clip.")] = 10.0,
    sample_rate: Annotated[int, typer.Option(min=8000, help="In Hz.")] = 16000,
) -> None:
    """Synthesise a corpus of ten domestic sounds, mixed into soundscapes with exact labels, in DESED's layout.

    Run again after an interruption, it goes on where it stopped.
    """
    from pmam_plugin.demo.soundscapes import Counts, build_corpus

    with counted() as show:
        done = build_corpus(
            folder,
            Counts(strong, weak, unlabelled, selection, validation),
            seed,
            seconds,
            sample_rate,
            progress=show,
        )
    typer.echo(f"{folder}: {done['written']} clips written, {done['kept']} were there already")
