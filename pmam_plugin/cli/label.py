"""``pmam label``: annotations of the tools that people label sound with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

label = typer.Typer(no_args_is_help=True, help="Work with annotations: convert them between annotators' tools.")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.add_typer(label, name="label")


@label.command(epilog="Example: pmam label convert annotations/ labels.tsv")
def convert(
    source: Annotated[Path, typer.Argument(metavar="A", help="File of labels, or a folder of them (in depth).")],
    target: Annotated[
        str, typer.Argument(metavar="B", help="File to write; a folder (or a name with / at its end) for one each.")
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Of B: tsv, csv, json, rttm, audacity (.txt), textgrid, raven (.selections.txt), elan, label-studio "
            "or sonic-visualiser; by default as the ending says.",
        ),
    ] = None,
    source_format: Annotated[
        str | None, typer.Option("--from", metavar="NAME", help="Of A; by default its content says.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of a table that holds the class, if not the usual ones.")
    ] = None,
) -> None:
    """Convert labels between Audacity, Raven, Praat, ELAN, Label Studio, Sonic Visualiser, RTTM and tables.

    Says what the target cannot hold.
    """
    # Imported here, so that --help is there at once.
    from pmam_plugin.tables.formats import FORMATS, format_named, read_annotations, write_annotations

    into_folder = Path(target).is_dir() or target.endswith(("/", "\\"))
    chosen = format_named(form or ("tsv" if into_folder else None), target)
    annotations = read_annotations(source, source_format, label_column)
    files = write_annotations(target, annotations, chosen)
    events, recordings = len(annotations.events), len(annotations.seconds)
    typer.echo(
        f"{events} event{'s' * (events != 1)} of {recordings} recording{'s' * (recordings != 1)} -> "
        f"{files[0] if len(files) == 1 else f'{len(files)} files'}"
    )
    if annotations.scored and not FORMATS[chosen].scores:
        typer.echo(f"not kept: scores, which {FORMATS[chosen].title} has no place for", err=True)
