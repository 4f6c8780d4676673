"""``pmam detect``: sound events of files, folders and globs."""

from __future__ import annotations

import contextlib
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pmam_plugin import __version__
from pmam_plugin.audio.names import AUDIO_ENDINGS, clip_name, existing_path, expand_pattern, find_audio, plain_path
from pmam_plugin.cli import Device, app
from pmam_plugin.cli.progress import bars
from pmam_plugin.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from pmam_plugin.errors import Progress
    from pmam_plugin.inference import Result, SoundEventDetector
    from pmam_plugin.postprocessing import EventRows

COLUMNS = ["filename", "onset", "offset", "event_label", "score"]
BUILTIN_NOTICE = "no --model given: using the built-in model, which knows %s; pmam info says how sure it is of each"


@app.command(epilog="Example: pmam detect kitchen.wav recordings/ 'more/*.flac' --out events.tsv --report report.html")
def detect(
    inputs: Annotated[
        list[str], typer.Argument(metavar="FILES...", help="Audio files, folders (searched in depth) and globs.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|ORG/NAME",
            help="Model folder or Hugging Face Hub id; without it, a small model of ten household sounds.",
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Branch, tag or commit of a Hub repository.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write .tsv, .csv, .json, .rttm, .txt (Audacity), .TextGrid (Praat) or .selections.txt (Raven); an "
            "existing folder gets a file per recording. Without it, print a table.",
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="NAME", help="Of --out, where the ending does not say it; see pmam label convert."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Scores above it are events; by default as the model says."),
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="HTML", help="Also write a page to listen and look.")] = None,
    scores: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write score tables, which pmam evaluate --scores reads.")
    ] = None,
    counts: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Also write how many events of each class begin in every hour recorded."),
    ] = None,
    device: Device = None,
    precision: Annotated[
        str, typer.Option(metavar="float32|bfloat16|float16|auto", help="Of the network.")
    ] = "float32",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network first: for many hours of sound on a GPU.")
    ] = False,
) -> None:
    """Detect sound events in recordings of any length, sample rate and channel count.

    A recording that cannot be read is reported and does not stop the rest; the exit status is then 1.
    """
    # What imports pandas follows where there are files to write.
    from pmam_plugin.checkpoints.hub_folder import BUILTIN
    from pmam_plugin.files import check_writable, write_text
    from pmam_plugin.inference import SoundEventDetector

    if out is None and form is not None:
        raise InputError(f"--format {form}: has no effect without --out; name the file to write")
    chosen = None
    if out is not None:
        from pmam_plugin.tables.formats import FORMATS, format_named

        chosen = format_named(form, out)
    files = find_recordings(inputs)
    heard = {os.path.realpath(file) for file in files}
    for path in (out, report, counts):
        if path is not None:
            if os.path.realpath(path) in heard:
                raise InputError(f"{path}: is one of the recordings; give another file to write")
            check_writable(path / "events" if path is out and out.is_dir() else path)
    if out is not None and chosen is not None and out.is_dir():
        for file, name in files.items():
            labels = out / (clip_name(name) + FORMATS[chosen].endings[0])
            if labels.exists() and labels.parent.resolve() == file.parent.resolve():
                raise InputError(f"{labels}: labels of the recording lie there already; give another folder")
    if scores is not None:
        check_score_names(files.values())
        check_writable(scores / "scores.tsv")
    if model is None:
        model = BUILTIN
    detector = SoundEventDetector.from_pretrained(model, revision, device, precision=precision, compiled=compiled)
    if model == BUILTIN:
        typer.echo(BUILTIN_NOTICE % ", ".join(detector.labels), err=True)
    run = _Run(files, scores)
    unreported = None
    with _progress(len(files)) as (started, advanced):
        results = run.results(detector, threshold, started, advanced)
        if report is not None:
            try:
                _write_report(report, results, detector, {"model": model, "threshold": threshold})
            except InputError as error:
                unreported = error  # what was computed is not lost for it
        for _ in results:
            pass
    if out is None:
        typer.echo(run.text(), nl=False)
    else:
        from pmam_plugin.tables.annotations import Annotations
        from pmam_plugin.tables.formats import write_annotations

        facts = {"model": model, "labels": list(detector.labels), "failed": run.errors}
        write_annotations(out, Annotations(run.table(), dict(run.seconds)), chosen, facts, detections=True)
    if counts is not None:
        from pmam_plugin.report.day import hourly_counts

        events = run.table()
        recorded = [(name, length, events[events["filename"] == name]) for name, length in run.seconds.items()]
        write_text(counts, hourly_counts(recorded, detector.labels).to_csv(index=False))
    if unreported is not None:
        typer.echo(f"no report: {unreported}", err=True)
    run.summarise(failed=unreported is not None)


def find_recordings(inputs: Sequence[str]) -> dict[Path, str]:
    """The files that arguments mean, each with the name that results show.

    Args:
        inputs: files, folders (searched in depth for audio endings) and globs. Hidden and system files count only where
            they are named.

    Returns:
        File -> name: its place within the folder or its own name; where these are equal, its place below the folder
        that all of these files share.

    Raises:
        InputError: a folder without audio, a glob that matches nothing, an address, or no name at all.
    """
    files: dict[Path, str] = {}
    for given in inputs:
        if not given.strip():
            raise InputError("the name of a recording is empty; check the variables and quotation marks of the command")
        if "://" in given:
            raise InputError(
                f"{given}: is an address, and nothing is fetched; download the recording and give its path"
            )
        path = existing_path(given)
        if path.is_dir():
            inside = find_audio(path)
            if not inside:
                raise InputError(f"{given}: no audio in this folder (looked for {', '.join(sorted(AUDIO_ENDINGS))})")
            named = {file: plain_path(name) for name, file in inside.items()}
        elif os.path.lexists(path) or not glob.has_magic(given):
            # A link to nowhere is a file: reading it will say what is wrong.
            named = {path: plain_path(path.name)}
        else:
            named = {match: plain_path(match.name) for match in expand_pattern(given) if not match.is_dir()}
            if not named:
                raise InputError(f"{given}: matches no file; check the pattern")
        known = {os.path.abspath(file) for file in files}
        files.update({file: name for file, name in named.items() if os.path.abspath(file) not in known})
    return _distinct(files)


def _distinct(files: Mapping[Path, str]) -> dict[Path, str]:
    clips = Counter(map(clip_name, files.values()))
    equal = [os.path.abspath(file) for file, name in files.items() if clips[clip_name(name)] > 1]
    if not equal:
        return dict(files)
    shared = os.path.commonpath([os.path.dirname(file) for file in equal])
    below = {file: plain_path(os.path.relpath(os.path.abspath(file), shared)) for file in files}
    renamed = {file: below[file] if clips[clip_name(name)] > 1 else name for file, name in files.items()}
    renamed = renamed if len(set(renamed.values())) == len(renamed) else below
    for file, name in renamed.items():
        twin = next(other for other, given in renamed.items() if given == name)
        if twin != file:
            raise InputError(f"{str(twin)!r} and {str(file)!r} have one name as text; rename one of them")
    return renamed


def check_score_names(names: Iterable[str]) -> None:
    """Refuse recordings whose score tables would overwrite each other (``<clip>.tsv`` each).

    Raises:
        InputError: two recordings have the same name but for their ending.
    """
    clips: dict[str, str] = {}
    for name in names:
        other = clips.setdefault(clip_name(name), name)
        if other != name:
            raise InputError(
                f"--scores: {other} and {name} would both be written to {clip_name(name)}.tsv; "
                "score them into folders of their own"
            )


class _Run:
    """Collects what became of the recordings."""

    def __init__(self, files: dict[Path, str], scores: Path | None) -> None:
        self.files, self.score_folder = files, scores
        self.events: list[tuple[str, EventRows]] = []
        self.seconds: dict[str, float] = {}
        self.errors: dict[str, str] = {}

    def results(
        self,
        detector: SoundEventDetector,
        threshold: float | None,
        started: Progress,
        advanced: Callable[[], None],
    ) -> Iterator[Result]:
        """Detect in every file; yields those that worked, under the names to show."""
        for result in detector.detect_each(list(self.files), threshold=threshold, progress=started):
            advanced()
            name = self.files[result.source]  # type: ignore[index]
            if result.found is None:
                self.errors[name] = str(result.error)
                continue
            result.name = name
            self.events.append((name, result.found))
            self.seconds[name] = result.seconds
            if self.score_folder is not None:
                from pmam_plugin.tables.scores import write_scores

                write_scores(self.score_folder, {clip_name(name): result.scores})
            yield result

    def table(self) -> pd.DataFrame:
        """All events."""
        import pandas as pd

        tables = [found.table(name) for name, found in self.events]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)

    def text(self) -> str:
        """All events as a tab-separated table, to the millisecond."""
        import numpy as np

        from pmam_plugin.tables.reading import rows_text

        rows: list[Sequence[object]] = [COLUMNS]
        for name, found in self.events:
            onsets, offsets, scores = (np.round(x, 3).tolist() for x in (found.onset, found.offset, found.score))
            rows += zip([name] * len(found), onsets, offsets, found.label, scores)
        return rows_text(rows)

    def summarise(self, failed: bool = False) -> None:
        """One line on standard error, and one for each failure; exit status 1 if there was any, or ``failed``."""
        from pmam_plugin.report.page import duration_text

        events = sum(len(found) for _, found in self.events)
        good = len(self.seconds)
        heard = duration_text(sum(self.seconds.values()))
        typer.echo(f"{events} event{'s' * (events != 1)} in {good} recording{'s' * (good != 1)}, {heard}", err=True)
        if self.errors:
            typer.echo(f"{len(self.errors)} of {len(self.files)} recordings failed:", err=True)
            for error in self.errors.values():
                typer.echo(f"  {error}", err=True)
        if self.errors or failed:
            raise typer.Exit(1)


def _write_report(path: Path, results: Iterator[Result], detector: SoundEventDetector, facts: dict[str, Any]) -> None:
    from pmam_plugin.checkpoints.card import knowledge
    from pmam_plugin.report import DetectedRecording, write_detection_report

    recordings = (
        DetectedRecording(
            result.name,
            str(result.source),
            result.events,
            result.scores,
            detector.labels,
            thresholds=detector.postprocessing.threshold if facts["threshold"] is None else facts["threshold"],
        )
        for result in results
    )
    origin = detector.config.get("provenance") or {}
    facts |= {"pmam_plugin": __version__, **{name: origin[name] for name in ("commit", "data") if name in origin}}
    shown = {name: fact for name, fact in facts.items() if fact is not None}
    # Cards are Markdown, a notice is plain text.
    note = str(origin.get("note") or "").replace("*", "").replace("`", "")
    if sure := knowledge(detector.config):
        measured_on = origin.get("measured_on", "test clips")
        note = f"{note} What it knows, and how well it did on {measured_on}: {sure}.".strip()
    write_detection_report(path, recordings, provenance=shown, note=note)


@contextlib.contextmanager
def _progress(recordings: int) -> Iterator[tuple[Progress, Callable[[], None]]]:
    """Bars on standard error for all recordings and for the one being read; nothing where it is no terminal."""
    with bars() as shown:
        overall = shown.add_task("recordings", total=recordings)
        single = shown.add_task("", total=1.0, visible=False)

        def started(name: str, done: float, total: float) -> None:
            shown.update(single, description=name, completed=done, total=max(total, done), visible=True)

        yield started, lambda: shown.advance(overall)
