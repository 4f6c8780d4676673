"""``pmam corpus``: lay a corpus of the field out so that recipes can train on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pmam_plugin.cli import app


@app.command(epilog="Example: pmam corpus urban-sed URBAN-SED_v2.0.0 data/urban_sed")
def corpus(
    kind: Annotated[
        str,
        typer.Argument(
            help="audioset-strong, urban-sed, maestro-real, urbansound8k, esc50, tut-sound-events, dcase2018-task5, "
            "webdataset or hugging-face."
        ),
    ],
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of the corpus as it was downloaded and unpacked; of webdataset also a pattern in quotation "
            "marks ('x-{000000..000099}.tar'), of hugging-face a Hub id (org/name) or a folder of Parquet files."
        ),
    ],
    folder: Annotated[Path, typer.Argument(help="Where to; audio is linked there, not copied.")],
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="TSV", help="Class map, a line each: the corpus's class, a tab, yours. Others are left out."
        ),
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=0, help="Fold to hold out, where a corpus has folds; 0 for none.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a Hugging Face data set, by default train.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column (hugging-face) or field of KEY.json (webdataset; txt: KEY.txt) that holds class names or "
            "events; without it, the recordings are unlabelled.",
        ),
    ] = None,
    merge: Annotated[bool, typer.Option(help="Join overlapping events of one class (urban-sed).")] = True,
) -> None:
    """Lay a corpus out as DESED is, from its official download: then train on it as on any other data.

    Recordings that annotations name and the download lacks are counted and left out.
    """
    import inspect

    from pmam_plugin.data.corpora import CORPORA, write_corpus
    from pmam_plugin.errors import InputError

    if kind not in CORPORA:
        raise InputError(f"{kind!r} is no known corpus; choose from {', '.join(CORPORA)}")
    taken = inspect.signature(CORPORA[kind]).parameters
    if "labels" not in taken and not source.is_dir():
        raise InputError(f"{source}: no such folder; name the folder of {kind} as downloaded")
    if folder.resolve() == source.resolve():
        raise InputError(f"{folder}: is the download itself, which is left as it is; give another folder to write to")
    given: dict[str, Any] = {"fold": fold, "split": split, "labels": labels, "merge": None if merge else False}
    options = {name: value for name, value in given.items() if value is not None}
    for name, value in options.items():
        if name not in taken:
            option = "--no-merge" if name == "merge" else f"--{name} {value}"
            raise InputError(f"{option}: means nothing for {kind}; leave it out")
    if fold == 0:
        options["fold"] = None
    if "folder" in taken:
        options["folder"] = folder
    counts = write_corpus(CORPORA[kind](source, **options), folder, _class_map(classes) if classes else None)
    typer.echo(f"{folder}: {', '.join(f'{count} {part}' for part, count in counts.items())} recordings")


def _class_map(path: Path) -> dict[str, str]:
    from pmam_plugin.errors import InputError
    from pmam_plugin.tables.reading import numbered_lines

    mapped: dict[str, str] = {}
    for number, line in numbered_lines(path):
        old, _, new = (part.strip() for part in line.partition("\t"))
        if not (old and new) or "\t" in new:
            raise InputError(f"{path}, line {number}: {line!r} is not two names separated by a tab")
        if old in mapped:
            raise InputError(f"{path}, line {number}: {old!r} is mapped for the second time; keep one line of it")
        mapped[old] = new
    if not mapped:
        raise InputError(f"{path}: is empty; write a line per class: old name, tab, new name")
    return mapped
