"""``pmam import-checkpoint``: checkpoints that other projects published, as model folders."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pmam_plugin.cli import app
from pmam_plugin.errors import InputError

# Filters of the published systems, frames per class in DESED's order, and the frames per second they are counted in.
_ATST_SED_FILTER = ((6, 20, 7, 4, 7, 6, 6, 6, 6, 6), 15.625)
_PMAM_FILTER = ((32, 128, 32, 32, 32, 128, 128, 128, 32, 128), 100.0)
# YAMNet's scores were never calibrated, and a sound shorter than its 0.96 s seldom reaches one half.
_YAMNET_THRESHOLD = 0.3


class Kind(str, enum.Enum):
    """Formats that can be imported."""

    passt = "passt"
    transformer4sed = "transformer4sed"
    atst_frame = "atst-frame"
    atst_sed = "atst-sed"
    sedt = "sedt"
    yamnet = "yamnet"
    beats = "beats"
    pretrained_sed = "pretrained-sed"


class Network(str, enum.Enum):
    """Which of two networks in one file."""

    student = "student"
    teacher = "teacher"


@app.command(epilog="Example: pmam import-checkpoint --kind atst-sed stage2.ckpt atst-sed/")
def import_checkpoint(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="The published file.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="Model folder to write.")],
    kind: Annotated[
        Kind,
        typer.Option(
            help="passt, atst-frame, beats, yamnet: encoders; the others whole models; sedt: SP-SEDT and taggers too."
        ),
    ],
    labels: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Class names in the model's order; by default DESED's ten."),
    ] = None,
    network: Annotated[
        Network | None,
        typer.Option(help="Of a file with two networks; by default the teacher (atst-sed) or the student (sedt)."),
    ] = None,
    statistics: Annotated[
        Path | None, typer.Option(metavar="JSON", help="sedt: the statistics of its front end, saved beside it.")
    ] = None,
    detector: Annotated[
        bool,
        typer.Option(
            "--detector",
            help="yamnet: a whole model of its 521 AudioSet classes, named by yamnet_class_map.csv beside SRC.",
        ),
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Store the weights as float16.")] = False,
) -> None:
    """Convert a published checkpoint into a model folder.

    Every tensor is accounted for: one that is missing, unknown or of another shape stops the import. Pickles are read
    without running any code in them.
    """
    from pmam_plugin.checkpoints import save_model

    names = [name.strip() for name in labels.split(",")] if labels else None
    model, report, scoring = _import(kind, source, names, network, statistics, detector)
    provenance = {
        "imported_from": source.name,
        "kind": kind.value,
        "layout": report.layout,
        "sha256": _digest(source),
        "tensors": report.loaded,
    }
    save_model(destination, model, scoring, provenance, half=half)
    typer.echo(str(report))
    typer.echo(f"{destination}: {type(model).__name__} written")


def _import(
    kind: Kind,
    source: Path,
    labels: Sequence[str] | None,
    network: Network | None,
    statistics: Path | None,
    detector: bool,
) -> tuple[Any, Any, Any]:
    """Module, report and scoring (of whole models)."""
    if statistics is not None and kind is not Kind.sedt:
        raise typer.BadParameter("--statistics belongs to --kind sedt")
    if network is not None and kind not in (Kind.sedt, Kind.atst_sed):
        raise typer.BadParameter("--network belongs to --kind atst-sed and sedt; other files hold one network")
    if detector and kind is not Kind.yamnet:
        raise typer.BadParameter("--detector belongs to --kind yamnet; other files hold one thing")
    whole = detector or kind not in (Kind.passt, Kind.atst_frame, Kind.beats, Kind.yamnet)
    if labels is not None and not whole:
        raise typer.BadParameter("--labels belong to whole models; an encoder has no classes")
    from pmam_plugin.checkpoints import atst, beats, passt, pretrained_sed, sedt, transformer4sed, yamnet
    from pmam_plugin.postprocessing import PostProcessing, Scoring

    if not whole:
        encoders: dict[Kind, Callable[[Path], tuple[Any, Any]]] = {
            Kind.passt: passt.import_passt,
            Kind.atst_frame: atst.import_atst_frame,
            Kind.beats: beats.import_beats,
            Kind.yamnet: yamnet.import_yamnet,
        }
        return *encoders[kind](source), None
    if kind is Kind.yamnet:
        return *yamnet.import_detector(source, labels), Scoring(PostProcessing(threshold=_YAMNET_THRESHOLD))
    if kind is Kind.pretrained_sed:
        model, report = pretrained_sed.import_pretrained_sed(source, labels)
        filtered = Scoring(PostProcessing(median_seconds=pretrained_sed.MEDIAN_SECONDS))
        return model, report, filtered if hasattr(model, "labels") else None
    if kind is Kind.atst_sed:
        model, report = atst.import_atst_sed(source, labels, student=network is Network.student)
        return model, report, _scoring(model, *_ATST_SED_FILTER)
    if kind is Kind.transformer4sed:
        model, report = transformer4sed.import_transformer4sed(source, labels)
        return model, report, _scoring(model, *_PMAM_FILTER, weak_mask="soft")
    if statistics is None:
        raise InputError(
            f"{source}: SEDT keeps the statistics of its front end in a JSON file beside the checkpoint; "
            "name that file with --statistics"
        )
    return *sedt.import_any_sedt(source, labels, statistics, teacher=network is Network.teacher), None


def _scoring(model: Any, frames: Sequence[int], frame_rate: float, weak_mask: str = "none") -> Any:
    """The published filter, where the classes are the published ones; a model without labels needs none."""
    from pmam_plugin.checkpoints.foreign import DESED_LABELS
    from pmam_plugin.postprocessing import PostProcessing, Scoring

    if not hasattr(model, "labels"):
        return None
    seconds: Any = 0.0
    if tuple(model.labels) == DESED_LABELS:
        seconds = {label: round(count / frame_rate, 6) for label, count in zip(DESED_LABELS, frames, strict=True)}
    return Scoring(PostProcessing(weak_mask=weak_mask, median_seconds=seconds))  # type: ignore[arg-type]


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
