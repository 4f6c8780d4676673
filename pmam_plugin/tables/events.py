"""Events, weak labels and durations in DESED's form, read and written alike for training and evaluation."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from os import PathLike
from unicodedata import normalize

import numpy as np
import pandas as pd

from pmam_plugin.audio.names import clip_name
from pmam_plugin.errors import InputError
from pmam_plugin.files import write_text
from pmam_plugin.tables.annotations import Entry
from pmam_plugin.tables.reading import Table, can_be_class, join_names, joins, rows_text, split_names

logger = logging.getLogger(__name__)

EVENT_COLUMNS = ("filename", "onset", "offset", "event_label")

# What R, pandas and databases write where nothing is.
_ABSENT = ("na", "nan", "n/a", "<na>", "none", "null")

# Letters of a name from which one of them may be a slip.
_LONG = 4

# An event without length happened all the same: it gets the shortest length that every measure can see, s.
_MOMENT = 1e-3


def read_events(path: str | PathLike[str]) -> pd.DataFrame:
    """Read events or detections.

    Args:
        path: table with the columns ``filename, onset, offset, event_label`` and perhaps ``score``, of a detection, or
            ``soft_label``: how much of a class is heard, in [0, 1].

    Returns:
        Those columns, times in seconds, in the order of the file (whose name is in ``attrs["source"]``); accents of
        classes composed (NFC). An event-free clip is one row whose onset and offset are NaN and whose label is None, as
        it is one row with three empty fields in the file.

    Raises:
        InputError: the file is absent or no such table; a row is too short or too long, half filled, holds a time that
            is no number, begins before 0 s, has its offset before its onset, or has a soft label outside of [0, 1].
    """
    table = Table.read(path, EVENT_COLUMNS, optional=("score", "soft_label"))
    label = table.columns["event_label"]
    empty = [not any(cells) for cells in zip(label, table.columns["onset"], table.columns["offset"])]
    absent = [all(cell.lower() in _ABSENT for cell in cells) for cells in zip(label, table.columns["onset"])]
    table.refuse(absent, "onset", "is no time; leave all cells but the filename empty where a clip has no events")
    table.refuse_unclear_commas("onset", "offset")
    onset, offset = (table.numbers(column, unless=empty) for column in ("onset", "offset"))
    label = [normalize("NFC", name) for name in label]
    for line, name, begin, end, cell, free in zip(table.lines, table.columns["filename"], onset, offset, label, empty):
        Entry(f"line {line}", name, begin, end, None if free else cell).check(path)
    names = [(name,) * bool(name) for name in label]
    _check_names(table, "event_label", names, "write a row for each")
    events = pd.DataFrame({"filename": table.columns["filename"], "onset": onset, "offset": offset})
    events["event_label"] = pd.Series([None if free else name for name, free in zip(label, empty)], dtype=object)
    events.attrs["source"] = str(path)
    if "score" in table.columns:
        events["score"] = table.numbers("score", unless=[not cell for cell in table.columns["score"]])
    if "soft_label" in table.columns:
        soft = table.numbers("soft_label", unless=empty)
        table.refuse((soft < 0) | (soft > 1), "soft_label", "is no share; write a number from 0 to 1")
        events["soft_label"] = soft
    return events


def read_weak(path: str | PathLike[str]) -> pd.DataFrame:
    """Read weak labels.

    Args:
        path: table with the columns ``filename, event_labels``; the classes of a clip are separated by commas, and one
            that holds a comma stands in quotation marks.

    Returns:
        Columns ``filename`` and ``event_labels``, the latter a tuple of class names per clip, perhaps empty.

    Raises:
        InputError: the file is absent or no such table, a clip is listed twice, or a cell holds no names of classes.
    """
    table = Table.read(path, ("filename", "event_labels"))
    _check_recordings(table, ", with all its classes, separated by commas")
    cells = table.columns["event_labels"]
    table.refuse(
        [cell.count('"') % 2 == 1 for cell in cells], "event_labels", "has a quotation mark that is not closed"
    )
    table.refuse(
        [re.fullmatch(r"\[.*\]|[({].*[\"'].*[)}]", cell) is not None for cell in cells],
        "event_labels",
        "is a list as Python prints it; separate the classes by commas alone",
    )
    table.refuse(
        [cell.lower() in _ABSENT for cell in cells], "event_labels", "names no class; leave the cell empty for none"
    )
    split = [split_names(normalize("NFC", cell)) for cell in cells]
    _check_names(table, "event_labels", split, "separate them by commas")
    return pd.DataFrame(
        {"filename": table.columns["filename"], "event_labels": pd.Series([*split, ()], dtype=object)[:-1]}
    )


def read_durations(path: str | PathLike[str]) -> dict[str, float]:
    """Read the durations of clips, in seconds, by file name.

    Raises:
        InputError: the file is absent or lacks a column (``filename, duration``), a clip is listed twice, or a duration
            is no positive number.
    """
    table = Table.read(path, ("filename", "duration"))
    _check_recordings(table)
    if not table.lines:
        raise InputError(f"{path}: names no recording; write a row for every recording of the set")
    table.refuse_unclear_commas("duration")
    duration = table.numbers("duration")
    table.refuse(duration <= 0, "duration", "is not positive; measure the recording again")
    return dict(zip(table.columns["filename"], duration.tolist()))


def clip_events(events: pd.DataFrame, seconds: Mapping[str, float], name: str) -> pd.DataFrame:
    """Fit events into their recordings, and log how many needed it; training and evaluation both do.

    DESED's annotations run up to 0.12 s beyond the clip here and there, which is no fault worth stopping for: they are
    cut. Events that begin after the end are dropped. An event without length becomes one of a millisecond: no measure
    of overlap can see less, and the class was heard.

    Args:
        events: as from :func:`read_events`.
        seconds: length of every recording by file name; events of other files stay as they are.
        name: what to call the table in the log.

    Returns:
        A new table; rows of event-free clips are kept.
    """
    end = events["filename"].map(seconds).astype(float).fillna(math.inf).to_numpy()
    onset, offset, kept = fit_events(events["onset"].to_numpy(float), events["offset"].to_numpy(float), end, name)
    return events.assign(onset=onset, offset=offset)[kept].reset_index(drop=True)


def fit_events(
    onset: np.ndarray, offset: np.ndarray, end: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rule of :func:`clip_events` on arrays of times ``(events,)`` and of their recordings' ends.

    Returns:
        Onsets, offsets, and which events are kept.

    Raises:
        InputError: most events begin where twice their recording has passed: their times are no seconds.
    """
    far = onset > 2 * end
    if far.sum() > 0.5 * np.isfinite(onset).sum():
        raise InputError(
            f"{name}: {far.sum()} events begin long after the end of their recording, at {onset[far][0]:g} s of "
            f"{end[far][0]:g} s for one; write times in seconds"
        )
    gone, beyond = onset > end, offset > end
    short = (np.minimum(offset, end) <= onset) & ~gone
    offset = np.minimum(offset, end)
    onset = np.where(short, np.clip(np.minimum(onset, end - _MOMENT), 0.0, None), onset)
    offset = np.where(short, onset + _MOMENT, offset)
    for rows, what in (
        (beyond & ~gone, "events end after their recording; cut at its end"),
        (short, "events have no length in their recording; taken as a millisecond long"),
        (gone, "events begin after the end of their recording; dropped"),
    ):
        if rows.any():
            logger.warning("%s: %d %s", name, int(rows.sum()), what)
    return onset, offset, ~gone


def warn_of_look_alikes(labels: Iterable[str], name: str) -> None:
    """Log classes whose names look alike and count as two all the same, and those that are others with a separator
    between.

    Args:
        labels: all of them.
        name: where they stand, for the log.
    """
    classes = set(labels)
    for label in sorted(classes):
        if joins(label, classes, ";|,/+& "):
            logger.warning(
                "%s: %r counts as a class of its own; label each class for itself if it means them", name, label
            )
    for one, other in look_alikes(classes):
        logger.warning("%s: %r and %r count as two classes; spell them alike if they are one", name, one, other)


def look_alikes(labels: Iterable[str], slips: bool = False) -> list[tuple[str, str]]:
    """Pairs of class names that differ in case, punctuation and what does not show only, or in a final s.

    Args:
        labels: all of them.
        slips: also those that differ in one letter; numbers tell classes apart.
    """
    plain = {label: re.sub(r"[\W_]+", "", label.casefold()) for label in sorted(set(labels))}
    return [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(plain.items(), 2)
        if a.rstrip("s") == b.rstrip("s") or (slips and _one_slip(*sorted((a, b), key=len)))
    ]


def _one_slip(short: str, long: str) -> bool:
    """Whether a letter of a name that is long enough for it was added, changed, or exchanged with its neighbour."""
    if len(short) < _LONG or len(long) > len(short) + 1 or re.findall(r"\d+", short) != re.findall(r"\d+", long):
        return False
    if len(long) == len(short):
        places = [place for place, (a, b) in enumerate(zip(short, long)) if a != b]
        swapped = len(places) == 2 and short[places[0] : places[1] + 1] == long[places[0] : places[1] + 1][::-1]
        return len(places) == 1 or swapped
    return any(long[:i] + long[i + 1 :] == short for i in range(len(long)))


def write_events(path: str | PathLike[str], events: pd.DataFrame) -> None:
    """Write events as a tab-separated table, whole or not at all; times to the microsecond.

    Args:
        path: the file.
        events: columns ``filename, onset, offset, event_label`` and perhaps ``score`` and ``soft_label``.

    Raises:
        InputError: the file cannot be written.
    """
    columns = [*EVENT_COLUMNS, *(name for name in ("score", "soft_label") if name in events)]
    table = events[columns].round(6).astype(object)
    write_text(path, rows_text([columns, *table.where(table.notna(), None).itertuples(index=False, name=None)]))


def write_weak(path: str | PathLike[str], labels: Mapping[str, Collection[str]]) -> None:
    """Write weak labels, whole or not at all.

    Args:
        path: the file.
        labels: classes by file name.

    Raises:
        InputError: the file cannot be written.
    """
    rows = ((name, join_names(list(names))) for name, names in labels.items())
    write_text(path, rows_text([("filename", "event_labels"), *rows]))


def _check_names(table: Table, column: str, names: Sequence[Sequence[str]], cure: str) -> None:
    """Refuse names that no class may bear, and those that are other classes with a separator between; warn once of
    others that hold a separator."""
    classes = set().union(*names)
    unusable = {name for name in classes if not can_be_class(name)}
    fault = "cannot name a class: it names a column, or holds a control character; rename it"
    table.refuse([not unusable.isdisjoint(row) for row in names], column, fault)
    joined = {name for name in classes if joins(name, classes)}
    fault = f"joins classes that also stand by themselves; {cure}, or rename the class"
    table.refuse([not joined.isdisjoint(row) for row in names], column, fault)
    held = {name for name in classes if re.search("[;|]", name)}
    if held:
        line, name = next((line, n) for line, row in zip(table.lines, names) for n in row if n in held)
        which = f"{name!r} counts as one class, as do {len(held)} names with ; or | in all"
        _warn_once(f"{table.path}, line {line}: {which}; if they are several, {cure}")


@functools.lru_cache
def _warn_once(message: str) -> None:
    logger.warning("%s", message)


def _check_recordings(table: Table, keeping: str = "") -> None:
    """Refuse a row without a recording, and a second one of the same."""
    names = table.columns["filename"]
    table.refuse([not name for name in names], "filename", "is empty; fill it or remove the row")
    repeated = pd.Index([clip_name(name) for name in names]).duplicated()
    table.refuse(repeated, "filename", f"is listed for the second time; keep one row of it{keeping}")
