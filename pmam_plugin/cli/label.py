"""``pmam label``: annotations of the tools that people label sound with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pmam_plugin.cli import Device, app
from pmam_plugin.cli.progress import counted

label = typer.Typer(no_args_is_help=True, help="Work with annotations: convert them between annotators' tools.")
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
    from pmam_plugin.tables.formats import FORMATS, format_named, read_annotations, write_annotations

    chosen = format_named(form, target)
    annotations = read_annotations(source, source_format, label_column)
    files = write_annotations(target, annotations, chosen)
    events, recordings = len(annotations.events), len(annotations.seconds)
    typer.echo(
        f"{events} event{'s' * (events != 1)} of {recordings} recording{'s' * (recordings != 1)} -> "
        f"{files[0] if len(files) == 1 else f'{len(files)} files'}"
    )
    if annotations.scored and not FORMATS[chosen].scores:
        typer.echo(f"not kept: scores, which {FORMATS[chosen].title} has no place for", err=True)


@label.command(epilog="Example: pmam label suggest results/pmam_small/1/model recordings/ suggestions/ --minutes 30")
def suggest(
    model: Annotated[str, typer.Argument(metavar="FOLDER|ORG/NAME", help="Model whose doubts count.")],
    folder: Annotated[Path, typer.Argument(help="Recordings without labels (in depth).")],
    out: Annotated[Path, typer.Argument(help="Folder for the label tracks, one per recording, to open beside it.")],
    minutes: Annotated[float, typer.Option(min=0.1, help="How much to choose.")] = 30.0,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of a passage.")] = 5.0,
    form: Annotated[
        str, typer.Option("--format", metavar="NAME", help="Of the tracks, as in pmam label convert.")
    ] = "audacity",
    device: Device = None,
) -> None:
    """Choose the passages of unlabelled recordings that are worth an annotator's next half hour.

    Those the model is most undecided about, each unlike the ones chosen before. A passage is named by its rank and the
    class in doubt ("1 Dog?"); ranking.tsv lists them all, best first.
    """
    import pandas as pd

    from pmam_plugin.audio.names import find_audio
    from pmam_plugin.errors import InputError
    from pmam_plugin.files import check_writable
    from pmam_plugin.inference import SoundEventDetector
    from pmam_plugin.inference.suggestion import suggest_passages
    from pmam_plugin.tables import write_events
    from pmam_plugin.tables.annotations import Annotations
    from pmam_plugin.tables.formats import format_named, write_annotations

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name one that holds recordings")
    if out.resolve() == folder.resolve():
        raise InputError(f"{out}: suggestions would replace the labels that lie there; give another folder")
    files = {str(path): name for name, path in find_audio(folder).items()}
    chosen = format_named(form, out)
    check_writable(out / "ranking.tsv")
    detector = SoundEventDetector.from_pretrained(model, device=device)
    with counted() as show:
        passages = suggest_passages(detector, list(files), minutes, seconds, progress=show)
    rows = [
        (files[passage.filename], passage.onset, passage.offset, f"{rank} {passage.label}?", passage.uncertainty)
        for rank, passage in enumerate(passages, 1)
    ]
    table = pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label", "score"])
    write_events(out / "ranking.tsv", table)
    for name, part in table.groupby("filename"):
        write_annotations(f"{out}/", Annotations(part.reset_index(drop=True), {str(name): None}), chosen)
    heard = sum(passage.offset - passage.onset for passage in passages) / 60
    typer.echo(f"{out}: {len(passages)} passages, {heard:.1f} minutes, of {table.filename.nunique()} recordings")
