"""``pmam compare``: train the rows of a comparison over seeds and hold them against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pmam_plugin.cli import app


@app.command(epilog="Example: pmam compare comparisons/pmam_from_nothing.yaml --data-folder DESED --seeds 1,2,3")
def compare(
    comparison: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="The comparison.", show_default=False)],
    data_folder: Annotated[Path, typer.Option(metavar="FOLDER", help="The corpus, in DESED's layout.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Default results/compare/<name of the file>.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="1,2,3", help="Instead of the file's.")] = None,
    rows: Annotated[
        list[str] | None, typer.Option("--row", help="Only rows that begin so (with what they are held against).")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key in every row.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each run.")] = None,
    device: Annotated[str | None, typer.Option(help="Of every run; otherwise the recipe's choice.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete and train again what was trained with other settings.")
    ] = False,
    only_table: Annotated[bool, typer.Option("--only-table", help="Train nothing; show what is there.")] = False,
) -> None:
    """Train every row with every seed, and write tables with intervals and paired differences (Markdown, JSON, HTML).

    A row is an experiment with overrides. Rows share the stages they have in common. Given again, the command goes on
    where it was stopped; finished runs are only read.
    """
    from pmam_plugin.comparison import load_comparison, markdown, summarise, train_all, write_comparison
    from pmam_plugin.files import check_writable

    pairs = [change.split("=", 1) for change in changes or []]
    if any(len(pair) != 2 for pair in pairs):
        raise typer.BadParameter("--set takes KEY=VALUE")
    try:
        numbers = [int(seed) for seed in seeds.split(",")] if seeds else None
    except ValueError as error:
        raise typer.BadParameter("--seeds takes numbers with commas between, such as 1,2,3") from error
    plan = load_comparison(comparison, {key: value for key, value in pairs}, numbers, rows or ())
    output = (out or Path("results") / "compare" / comparison.stem).resolve()
    check_writable(output / "summary.json")
    runs = plan.runs(output)
    sound = True
    if not only_table:
        fixed = ["--data_folder", str(data_folder.resolve()), *(["--device", device] if device else [])]
        sound = train_all(runs, fixed, typer.echo, jobs, threads, overwrite=overwrite)
    summary = summarise(plan, runs)
    typer.echo(markdown(summary))
    typer.echo("written: " + ", ".join(map(str, write_comparison(output, summary))))
    if not sound:
        raise typer.Exit(1)
