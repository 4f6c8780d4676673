"""The class list of a corpus: it comes from the data, never from code."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from pmam_plugin.data.layout import PLACES, find_source
from pmam_plugin.errors import InputError
from pmam_plugin.tables import read_events, read_weak, warn_of_look_alikes


def class_list(data_folder: str | PathLike[str]) -> list[str]:
    """The classes of a corpus: all that occur in its annotations, sorted.

    Args:
        data_folder: as for :func:`pmam_plugin.data.prepare`; only tables are read.

    Raises:
        InputError: no such folder, broken tables, or no annotations at all.
    """
    root = Path(data_folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; data_folder must name the corpus (the folder that holds audio/)")
    found = find_classes(root)
    if not found:
        raise InputError(f"{root}: no annotations found, so no classes; label some clips or list the classes yourself")
    return found


def find_classes(data_folder: Path) -> list[str]:
    """As :func:`class_list`; empty where nothing is annotated."""
    found: set[str] = set()
    for name in PLACES:
        source = find_source(data_folder, name)
        if source is None or source.table is None:
            continue
        if source.kind == "weak":
            found.update(label for labels in read_weak(source.table)["event_labels"] for label in labels)
        else:
            found.update(read_events(source.table)["event_label"].dropna())
    warn_of_look_alikes(found, str(data_folder))
    return sorted(found)
