"""UrbanSound8K and ESC-50: recordings of one class each, in folds that keep cuts of one recording together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pmam_plugin.data.corpora.base import Corpus, Recording, require_folder
from pmam_plugin.errors import InputError
from pmam_plugin.tables import Table


def urbansound8k(source: Path, fold: int | None = 10) -> Corpus:
    """Read UrbanSound8K (Salamon et al., ACM MM 2014): 8 732 cuts of up to 4 s, ten classes, ten folds.

    Args:
        source: folder with ``audio/fold1 ... fold10`` and ``metadata/UrbanSound8K.csv``.
        fold: held out, see :func:`_folds`.
    """
    table, audio = require_folder(source, "UrbanSound8K", "metadata/UrbanSound8K.csv", "audio")
    return _folds(table, ("slice_file_name", "class", "fold"), lambda name, of: audio / f"fold{of}" / name, fold)


def esc50(source: Path, fold: int | None = 5) -> Corpus:
    """Read ESC-50 (Piczak, ACM MM 2015): 2 000 cuts of 5 s, fifty classes, five folds.

    Args:
        source: folder with ``audio`` and ``meta/esc50.csv``.
        fold: held out, see :func:`_folds`.
    """
    table, audio = require_folder(source, "ESC-50", "meta/esc50.csv", "audio")
    return _folds(table, ("filename", "category", "fold"), lambda name, of: audio / name, fold)


def _folds(table: Path, columns: tuple[str, str, str], place: Callable[[str, int], Path], fold: int | None) -> Corpus:
    """Clips of all folds but one are weakly labelled training clips.

    The fold held out is left out altogether: its labels say what is heard, not when, so that no event-based figure
    could be taken on it. Train on the rest beside a strongly labelled set, or set it aside for a benchmark of tags.
    None holds nothing out.
    """
    corpus = Corpus({"weak": []})
    folds: set[int] = set()
    rows = Table.read(table, columns)
    names, labels, numbers = (rows.columns[column] for column in columns)
    rows.refuse([not label for label in labels], columns[1], "is empty; restore the official table")
    rows.refuse([not number.isdecimal() for number in numbers], "fold", "is no number; restore the official table")
    for name, label, number in zip(names, labels, numbers):
        folds.add(int(number))
        path = place(name, int(number))
        if int(number) == fold:
            continue
        if path.is_file():
            corpus.parts["weak"].append(Recording(f"fold{number}/{name}", path, labels=(label,)))
        else:
            corpus.missing.append(path.name)
    if fold is not None and fold not in folds:
        raise InputError(f"fold {fold} is not in {table}; it has {', '.join(map(str, sorted(folds)))}")
    return corpus
