"""``pmam evaluate``: figures of detections, scores or operating points against a ground truth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from pmam_plugin.cli import app
from pmam_plugin.cli.progress import counted
from pmam_plugin.errors import InputError


@app.command(
    epilog="Example: pmam evaluate --events detections.tsv --ground-truth validation.tsv "
    "--durations validation_durations.tsv"
)
def evaluate(
    ground_truth: Annotated[
        Path, typer.Option(metavar="TSV", help="filename, onset, offset, event_label; an event-free clip has one row.")
    ],
    durations: Annotated[Path, typer.Option(metavar="TSV", help="filename, duration of every clip of the set.")],
    events: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Detections (tab- or comma-separated): event, segment and clip F1."),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Score tables, one <clip>.tsv each: PSDS1, PSDS2 and F1 at the threshold."),
    ] = None,
    operating_points: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Detections in predictions_th_<threshold>.tsv files: PSDS1 and PSDS2."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="With --scores: what a score must exceed to count for F1; 0.5 unless given."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|ORG/NAME", help="With --scores: the model whose own thresholds count for F1."),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, metavar="N", help="Resamples for the 95 % intervals; 0 for none.")
    ] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the resamples.")] = 0,
    sed_eval: Annotated[
        bool, typer.Option("--sed-eval", help="With --events: match as sed_eval does, to compare with its reports.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write all figures, per class too, as shares of 1.")
    ] = None,
) -> None:
    """Evaluate detections, scores or operating points against a ground truth.

    Give one of --events, --scores and --operating-points. Prints percentages; every clip of the durations counts.
    """
    if sum(source is not None for source in (events, scores, operating_points)) != 1:
        raise typer.BadParameter("give one of --events, --scores and --operating-points")
    if (threshold is not None or model is not None) and scores is None:
        raise typer.BadParameter("--threshold and --model belong to --scores")
    if threshold is not None and model is not None:
        raise typer.BadParameter("give --threshold or --model, whose thresholds are its own")
    if sed_eval and events is None:
        raise typer.BadParameter("--sed-eval belongs to --events")
    from pmam_plugin.evaluation import metrics
    from pmam_plugin.files import check_writable, write_json
    from pmam_plugin.tables import read_durations, read_events
    from pmam_plugin.tables.scores import read_operating_points, read_scores

    if threshold is not None and not math.isfinite(threshold):
        raise InputError(f"--threshold {threshold}: is no number that scores can exceed; give one such as 0.5")
    if json is not None:
        check_writable(json)
    exceeded: Any = 0.5 if threshold is None else threshold
    if model is not None:
        from pmam_plugin.checkpoints import load_model

        exceeded = load_model(model).scoring.postprocessing.threshold
    resampling: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed}
    truth, seconds = read_events(ground_truth), read_durations(durations)
    with counted() as progress:
        if events is not None:
            figures = metrics.evaluate_events(read_events(events), truth, seconds, sed_eval=sed_eval, **resampling)
        elif scores is not None:
            tables = read_scores(scores, progress)
            figures = metrics.evaluate_scores(
                tables, truth, seconds, threshold=exceeded, progress=progress, **resampling
            )
        elif operating_points is not None:
            points = read_operating_points(operating_points, progress)
            figures = metrics.evaluate_operating_points(points, truth, seconds, progress=progress, **resampling)
    if json is not None:
        write_json(json, figures)
    _print(figures)


def _print(figures: dict[str, Any]) -> None:
    from pmam_plugin.evaluation.figures import CLASS_FIGURES, FIGURES

    rows = [[name, _percent(figures[key])] for key, name in FIGURES.items() if key in figures]
    intervals = [" - ".join(map(_percent, figures[f"{key}_ci"])) for key in FIGURES if f"{key}_ci" in figures]
    if intervals:
        rows = [[*row, interval] for row, interval in zip(rows, intervals)]
    _table("overall", ["figure", "%", *(["95 % interval"] if intervals else [])], rows)
    measures = [key for key in CLASS_FIGURES if any(key in values for values in figures["per_class"].values())]
    _table(
        "per class",
        ["class", "events", *(f"{CLASS_FIGURES[key]} %" for key in measures)],
        [
            [label, str(values["events"]), *(_percent(values.get(key)) for key in measures)]
            for label, values in figures["per_class"].items()
        ],
    )


def _table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """A drawn table on a terminal; tab-separated lines elsewhere, for other programs and for logs."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        typer.echo("\n".join("\t".join(row) for row in [[f"# {title}"], header, *rows]))
        return
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
