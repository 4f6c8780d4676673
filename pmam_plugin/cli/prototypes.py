"""``pmam prototypes``: a page that shows and plays what every prototype of a run stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pmam_plugin.cli import app
from pmam_plugin.cli.progress import counted
from pmam_plugin.errors import InputError


@app.command(epilog="Example: pmam prototypes results/pmam_small/1234")
def prototypes(
    run_folder: Annotated[Path, typer.Argument(help="Output folder of a training run.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page; default prototypes.html in the run folder.")
    ] = None,
    data_folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the training data are now, if they have been moved.")
    ] = None,
) -> None:
    """Explore the prototypes of a run: a map, typical sounds, spectra, labels and certainty, in one HTML file."""
    from pmam_plugin.explorer import collect, write_prototype_report
    from pmam_plugin.files import check_writable

    if not run_folder.is_dir():
        raise InputError(f"{run_folder}: no such folder; give the output folder of a training run")
    page = out or run_folder / "prototypes.html"
    check_writable(page)
    with counted() as show:
        report = collect(run_folder, data_folder, show)
    write_prototype_report(page, report)
    last = report.iterations[-1]
    if last.joint.sum() > 0:
        scores = last.scores()
        typer.echo(
            f"{last.name}: normalised mutual information with labels {scores['nmi']:.3f}, purity "
            f"{100 * scores['purity']:.1f} % (largest label alone {100 * scores['largest_label']:.1f} %)"
        )
    typer.echo(f"written: {page}")
