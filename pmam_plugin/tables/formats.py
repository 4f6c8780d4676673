"""The formats of annotation tools by name: which one a file is in, reading and writing it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from pmam_plugin.audio.names import clip_name, files_below, is_hidden, relative_path
from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path
from pmam_plugin.tables import columns, documents, textgrid, tracks
from pmam_plugin.tables.annotations import Annotations, parse_seconds
from pmam_plugin.tables.reading import decoded, numbered_lines

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        title: for people.
        endings: of its files; the first is written.
        read: events of a file.
        text: what a file of annotations holds; tables also take ``detections``, JSON ``facts``.
        single: whether a file belongs to one recording.
        scores: whether it keeps scores.
    """

    title: str
    endings: tuple[str, ...]
    read: Callable[[Path], Annotations]
    text: Callable[..., str]
    single: bool = False
    scores: bool = True


FORMATS = {
    "tsv": Format("DESED's table", (".tsv",), columns.read_table, partial(columns.table_text, separator="\t")),
    "csv": Format(
        "DESED's table with commas", (".csv",), columns.read_table, partial(columns.table_text, separator=",")
    ),
    "json": Format("recordings with their events", (".json",), documents.read_own, documents.own_text),
    "rttm": Format("RTTM", (".rttm",), tracks.read_rttm, tracks.rttm_text),
    "audacity": Format("Audacity", (".txt",), tracks.read_audacity, tracks.audacity_text, single=True, scores=False),
    "textgrid": Format(
        "Praat", (".TextGrid",), textgrid.read_textgrid, textgrid.textgrid_text, single=True, scores=False
    ),
    "raven": Format("Raven", (".selections.txt", ".txt"), columns.read_table, columns.raven_text),
    "elan": Format("ELAN's tab export", (".txt", ".tsv"), tracks.read_elan, columns.elan_text, True, False),
    "label-studio": Format("Label Studio", (".json",), documents.read_label_studio, documents.label_studio_text),
    "sonic-visualiser": Format(
        "Sonic Visualiser", (".csv",), tracks.read_sonic_visualiser, tracks.sonic_visualiser_text, True, False
    ),
}  # fmt: skip
# What an ending alone means when writing; the longest that fits counts.
_BY_ENDING = {
    ".selections.txt": "raven", ".txt": "audacity", ".textgrid": "textgrid", ".rttm": "rttm", ".json": "json",
    ".tsv": "tsv", ".csv": "csv",
}  # fmt: skip
# Projects of annotators' tools, spreadsheets, subtitles.
_NOT_READ = frozenset(
    (".eaf", ".svl", ".sv", ".aup", ".aup3", ".lab", ".mlf", ".trs", ".antx", ".srt", ".vtt", ".xlsx", ".xls", ".ods")
)
_READABLE = frozenset((".txt", ".csv", ".tsv", ".json", ".rttm", ".textgrid"))


def format_named(name: str | None, path: str | PathLike[str]) -> str:
    """The format to write: as named, or as the ending says; tables into a folder.

    Raises:
        InputError: no such format, or an ending that says none.
    """
    if name is not None:
        if name.lower() not in FORMATS:
            raise InputError(f"--format {name}: is no format; choose from {', '.join(FORMATS)}")
        return name.lower()
    if _is_folder(path):
        return "tsv"
    file = Path(path).name.lower()
    ending = next((ending for ending in _BY_ENDING if file.endswith(ending)), None)
    if ending is None:
        raise InputError(
            f"{path}: events are written as {', '.join(_BY_ENDING)}; choose one of these endings, or name a --format "
            f"({', '.join(FORMATS)})"
        )
    return _BY_ENDING[ending]


def format_of(path: Path) -> str:
    """The format that a file is in, by its content.

    Raises:
        InputError: it is none of :data:`FORMATS`.
    """
    text = decoded(path)
    if textgrid.is_textgrid(text):
        return "textgrid"
    if text.lstrip()[:1] in ("[", "{"):
        content = documents.read_document(path)
        if isinstance(content, dict) and "recordings" in content:
            return "json"
        if documents.is_label_studio(content):
            return "label-studio"
    _, first = next(numbered_lines(path), (1, ""))
    if re.match(r"(SPEAKER|SPKR-INFO)\s|;;", first) or path.suffix.lower() == ".rttm":
        return "rttm"
    if not first:
        # Nothing was marked: every tool leaves such a file for a recording without events.
        return "audacity"
    if columns.header_of(path) is not None:
        return "tsv"
    if "\t" in first:
        begins = [parse_seconds(cell) for cell in first.split("\t")[:2]]
        if all(time == time for time in begins):
            return "audacity"
        if re.search(r"\t\d+(:\d\d:\d\d)?[.,]\d+\t", first):
            return "elan"
    elif re.match(r"\s*-?\d*\.?\d+\s*,", first):
        return "sonic-visualiser"
    raise InputError(
        f"{path}, line 1: {first.strip()[:60]!r} begins no known label file; give the columns a header (filename, "
        f"onset, offset, event_label) or name its --from format ({', '.join(FORMATS)})"
    )


def read_annotations(
    path: str | PathLike[str], name: str | None = None, label_column: str | None = None
) -> Annotations:
    """Annotations of a file in any of :data:`FORMATS`, or of all label files in a folder.

    Args:
        path: the file, or a folder, searched in depth; hidden files and other endings are passed over.
        name: of the format; None finds it out from the content.
        label_column: of a table, which column holds the class.

    Raises:
        InputError: a file cannot be read exactly, two label the same recording, or there is none.
    """
    source = Path(path)
    if not source.is_dir():
        return _read_file(source, _format(source, name), label_column)
    files = label_files(source)
    if name is not None:
        endings = tuple(ending.lower() for ending in FORMATS[format_named(name, path)].endings)
        files = [file for file in files if file.name.lower().endswith(endings)]
    if not files:
        raise InputError(
            f"{path}: holds no label file (looked for {', '.join(sorted(_READABLE))}); give another folder"
        )
    return Annotations.join({file: read_within(source, file, name, label_column) for file in files})


def label_files(folder: Path) -> list[Path]:
    """Files of a folder, searched in depth, whose ending labels have; hidden ones are passed over."""
    files = sorted(file for file in files_below(folder).values() if not is_hidden(file.name))
    others = [file for file in files if file.suffix.lower() in _NOT_READ]
    if others:
        logger.warning(
            "%s: files of labels are passed over: %d, %s for one; export them as text or tables",
            folder, len(others), others[0].name,
        )  # fmt: skip
    return [file for file in files if file.suffix.lower() in _READABLE]


def read_within(folder: Path, file: Path, name: str | None = None, label_column: str | None = None) -> Annotations:
    """Annotations of a file inside ``folder``, whose recordings are named by their place in it; see
    :func:`read_annotations`."""
    chosen = _format(file, name)
    part = _read_file(file, chosen, label_column)
    header = columns.header_of(file) if FORMATS[chosen].read is columns.read_table else None
    if FORMATS[chosen].single or (header is not None and not columns.names_files(header[1])):
        place = file.parent.relative_to(folder)
        part.events["filename"] = [(place / value).as_posix() for value in part.events["filename"]]
        part.seconds = {(place / value).as_posix(): length for value, length in part.seconds.items()}
    return part


def write_annotations(
    path: str | PathLike[str],
    annotations: Annotations,
    name: str | None = None,
    facts: Mapping[str, Any] | None = None,
    detections: bool = False,
) -> list[Path]:
    """Write annotations, each file whole or not at all.

    Args:
        path: the file; for a format of single recordings and several of them, ``<stem>_<recording><ending>`` beside it.
            An existing folder, or a path that ends with a slash, gets one file per recording.
        annotations: to write.
        name: of the format; None means what the ending says, and .tsv in a folder.
        facts: about a model, for JSON.
        detections: whether they are a model's: tables then have no rows of recordings without events.

    Returns:
        The files written.

    Raises:
        InputError: an unknown format, names that it cannot hold or tell apart, or a file cannot be written.
    """
    target, chosen = Path(path), format_named(name, path)
    form = FORMATS[chosen]
    if _is_folder(path):
        inside = {r: relative_path(clip_name(r), f"{path}") + form.endings[0] for r in annotations.seconds}
        repeated = [file for file in inside.values() if list(inside.values()).count(file) > 1]
        if repeated:
            raise InputError(f"{target / repeated[0]}: two recordings would be written here; rename one of them")
        contents = {target / file: annotations.of(recording) for recording, file in inside.items()}
    elif not form.single or len(annotations.seconds) == 1:
        contents = {target: annotations}
    elif not annotations.seconds:
        contents = {target: Annotations(annotations.events, {target.stem: 0.0})}
    else:
        ending = next(e for e in (*form.endings, target.suffix) if target.name.lower().endswith(e.lower()))
        stem = target.name[: -len(ending)] if ending else target.name
        files = [target.with_name(f"{stem}_{name}{target.name[len(stem) :]}") for name in _plain(annotations.seconds)]
        contents = {file: annotations.of(name) for file, name in zip(files, annotations.seconds)}
    options: dict[str, Any] = {"json": {"facts": facts}, "tsv": {"detections": detections}}
    options["csv"] = options["tsv"]
    texts = {file: form.text(part, **options.get(chosen, {})) for file, part in contents.items()}
    for file, text in texts.items():
        with atomic_path(file) as temporary:
            temporary.write_bytes(text.encode("utf-8"))
    return list(texts)


def _is_folder(path: str | PathLike[str]) -> bool:
    """Whether files go into a folder, which need not be there yet."""
    return Path(path).is_dir() or str(path).endswith(("/", "\\"))


def _format(path: Path, name: str | None) -> str:
    chosen = format_named(name, path) if name is not None else format_of(path)
    if chosen in ("elan", "sonic-visualiser", "audacity") and decoded(path).strip() and columns.header_of(path):
        return "tsv"  # the tool can write a header
    return chosen


def _read_file(path: Path, chosen: str, label_column: str | None) -> Annotations:
    if FORMATS[chosen].read is columns.read_table:
        return columns.read_table(path, label_column)
    if label_column is not None:
        raise InputError(f"{path}: is no table with named columns; leave --label-column out")
    return FORMATS[chosen].read(path)


def _plain(names: Mapping[str, Any]) -> list[str]:
    """Names without what files cannot have, numbered where that makes two of them equal."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w.-]", "_", clip_name(name))
        numbered = (f"{plain}_{number}" for number in range(2, len(names) + 2))
        found.append(plain if plain not in found else next(other for other in numbered if other not in found))
    return found
