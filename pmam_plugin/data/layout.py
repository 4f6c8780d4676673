"""Where DESED, and corpora laid out like it, keep audio and annotations.

Audio lies in ``audio/train``, ``audio/validation`` and ``audio/eval``, tables in ``metadata`` or, as some mirrors have
it, beside them. Folder names may end in the sample rate of a resampled copy (``weak_16k``). A folder whose folders are
laid out so holds several corpora; any other without ``audio`` inside it is a plain pile of recordings and taken as
unlabelled.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

logger = logging.getLogger(__name__)

Kind = Literal["strong", "weak", "none"]

_RATE = re.compile(r"^(?P<name>.+?)(?:_(?P<rate>\d+)k(?:hz)?)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where one subset may be found, relative to the data folder; patterns are regular expressions of one name each.

    Attributes:
        part: folder below ``audio`` and ``metadata``.
        folder: pattern of the audio folder's name, without a sample rate at its end.
        inner: pattern of a folder inside it that holds the audio (synthetic sets), if it is there.
        tables: candidates of the annotation table, relative to ``metadata/part``, best first.
        kind: of annotation.
    """

    part: str
    folder: str
    tables: tuple[str, ...]
    kind: Kind
    inner: str = r"soundscapes"


_SYNTHETIC_TABLES = (r"{folder}/soundscapes.tsv", r"{folder}.tsv", r"{bare}.tsv", r"soundscapes.tsv")

PLACES: dict[str, Place] = {
    "strong": Place(
        "train", r"strong_label_real|audioset_strong|strong", ("audioset_strong.tsv", "strong.tsv"), "strong"
    ),
    "synthetic": Place("train", r"synthetic\d*(_train)?", _SYNTHETIC_TABLES, "strong"),
    "weak": Place("train", r"weak", ("weak.tsv",), "weak"),
    "unlabelled": Place("train", r"unlabel(l?ed)?(_in_domain)?", (), "none"),
    "synthetic_validation": Place("validation", r"synthetic\d*(_val(idation)?)?", _SYNTHETIC_TABLES, "strong"),
    "validation": Place("validation", r"validation", ("validation.tsv",), "strong"),
    "public": Place("eval", r"public|eval", ("public.tsv", "ground_truth_public.tsv"), "strong"),
}
"""Every set that can be read, by the name that ``selection`` and ``test`` may use."""


@dataclass(frozen=True)
class Source:
    """A set that was found.

    Attributes:
        name: key of :data:`PLACES`.
        folder: of the audio.
        kind: of annotation.
        table: the annotation table; None for unlabelled sets, and where it is missing.
        expected_table: where the table would be looked for first.
    """

    name: str
    folder: Path
    kind: Kind
    table: Path | None
    expected_table: Path | None = None


def is_plain_folder(data_folder: Path) -> bool:
    """Whether this is a pile of recordings rather than a corpus with ``audio`` and ``metadata``."""
    return not (data_folder / "audio").is_dir()


def find_corpora(data_folder: Path) -> dict[str, Path]:
    """Folders of the corpora in a data folder, by their names; one corpus has no name.

    Several are the folders within that hold ``audio``, if one of them holds ``metadata`` beside it.
    """
    if not is_plain_folder(data_folder):
        return {"": data_folder}
    inside = sorted(path for path in data_folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    corpora = {path.name: path for path in inside if not is_plain_folder(path)}
    if not any((path / "metadata").is_dir() for path in corpora.values()):
        return {"": data_folder}
    for path in inside:
        if path.name not in corpora:
            logger.warning("%s: has no audio/ as the corpora beside it have; left out", path)
    return corpora


def find_source(data_folder: Path, name: str) -> Source | None:
    """Locate a set.

    Args:
        data_folder: of the corpus.
        name: key of :data:`PLACES`.

    Returns:
        The set, or None when its audio folder is not there. Of several folders the one without a sample rate in its
        name is taken, then the one with the highest rate: nothing is lost by resampling downwards.
    """
    if is_plain_folder(data_folder):
        return Source(name, data_folder, "none", None) if name == "unlabelled" else None
    place = PLACES[name]
    folder = _best_folder(data_folder / "audio" / place.part, place.folder)
    if folder is None:
        return None
    named = folder
    folder = _best_folder(folder, place.inner) or folder
    if place.kind == "none":
        return Source(name, folder, place.kind, None)
    candidates = _tables(data_folder, place, named)
    return Source(name, folder, place.kind, next((path for path in candidates if path.is_file()), None), candidates[0])


def expected_folders(names: Sequence[str]) -> str:
    """For messages: where the sets are looked for."""
    return ", ".join(f"audio/{PLACES[name].part}/({PLACES[name].folder})" for name in names)


def _best_folder(parent: Path, pattern: str) -> Path | None:
    if not parent.is_dir():
        return None
    candidates = []
    for folder in sorted(parent.iterdir()):
        match = _RATE.match(folder.name)
        if folder.is_dir() and match and re.fullmatch(pattern, match["name"], re.IGNORECASE):
            candidates.append((float(match["rate"] or "inf"), folder))
    return max(candidates, key=lambda item: item[0])[1] if candidates else None


def _tables(data_folder: Path, place: Place, folder: Path) -> list[Path]:
    """Where the annotations of an audio folder may be, best first."""
    match = _RATE.match(folder.name)
    bare = match["name"] if match else folder.name
    names = [table.format(folder=folder.name, bare=bare) for table in place.tables]
    names += [table.format(folder=bare, bare=bare) for table in place.tables if "{folder}" in table]
    metadata = data_folder / "metadata"
    bases = [metadata / place.part, *([metadata / "validation"] if place.part == "eval" else []), metadata]
    return [base / name for base in bases for name in names]
