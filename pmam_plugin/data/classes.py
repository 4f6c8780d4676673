"""The class list of a corpus: it comes from the data, never from code."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from pmam_plugin.data.layout import PLACES, find_corpora, find_source
from pmam_plugin.errors import InputError
from pmam_plugin.tables import read_events, read_weak, warn_of_look_alikes


def class_list(data_folder: str | PathLike[str]) -> list[str]:
    """The classes of a corpus, or of several: all that occur in annotations, sorted.

    Args:
        data_folder: as for :func:`pmam_plugin.data.prepare`; only tables are read.

    Raises:
        InputError: no such folder, broken tables, or no annotations at all.
    """
    root = Path(data_folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; data_folder must name the corpus (the folder that holds audio/)")
    found = merged_classes(root, annotated_classes(root))
    if not found:
        raise InputError(f"{root}: no annotations found, so no classes; label some clips or list the classes yourself")
    return found


def annotated_classes(data_folder: Path) -> dict[str, list[str]]:
    """The classes that each corpus of a data folder annotates: those that occur in its tables, sorted, by its name."""
    return {name: _classes(folder) for name, folder in find_corpora(data_folder).items()}


def merged_classes(data_folder: Path, annotated: Mapping[str, list[str]]) -> list[str]:
    """One class list of all corpora: equal names are one class; names that look alike are told."""
    merged = {label for classes in annotated.values() for label in classes}
    warn_of_look_alikes(merged, str(data_folder))
    return sorted(merged)


def _classes(data_folder: Path) -> list[str]:
    found: set[str] = set()
    for name in PLACES:
        source = find_source(data_folder, name)
        if source is None or source.table is None:
            continue
        if source.kind == "weak":
            found.update(label for labels in read_weak(source.table)["event_labels"] for label in labels)
        else:
            found.update(read_events(source.table)["event_label"].dropna())
    return sorted(found)
