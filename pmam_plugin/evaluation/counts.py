"""Counting right, given and wanted events, segments and clips, per clip and class: what F1 scores are made of.

Definitions and averages are those of sed_eval (Mesaros et al., Applied Sciences 2016): events match within collars,
each at most once, as many as can be; a macro average runs over the classes that occur in the ground truth, whatever
else was detected; a micro average sums the counts of all classes. A class that occurs but is never detected scores
zero (sed_eval's ``zero_score``; its default leaves the class out and so rewards a system for never trying). Counts per
clip make a bootstrap one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pmam_plugin.evaluation.reference import EventArray, Reference

COLLAR_SECONDS = 0.2
# Wider ones tell a system that finds events but not their edges from one that finds none.
WIDE_COLLARS = {"500ms": 0.5, "1s": 1.0}
OFFSET_SHARE = 0.2
SEGMENT_SECONDS = 1.0
# An event 0.2 s late is 0.2 s late, whatever its floating-point times say, s.
TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Scores:
    """Precision, recall and F1 from counts; zero where nothing was detected, NaN where there is nothing to detect.

    Attributes:
        f1: per class, ``(..., classes)``; NaN for a class without ground truth.
        precision: per class, likewise.
        recall: per class, likewise.
        macro: mean F1 over the classes with ground truth, ``(...)``; NaN where there is none at all.
        micro: F1 of the summed counts, ``(...)``, likewise.
    """

    f1: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    macro: np.ndarray
    micro: np.ndarray


def f1_scores(counts: np.ndarray) -> Scores:
    """F1 of every class, their macro and micro averages.

    Args:
        counts: right, detected and wanted, ``(..., classes, 3)``, already summed over clips.
    """
    right, given, wanted = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    occurs = wanted > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(occurs, 2 * right / (given + wanted), np.nan)
        precision = np.where(occurs, right / np.maximum(given, 1), np.nan)
        recall = np.where(occurs, right / wanted, np.nan)
        macro = np.nansum(f1, axis=-1) / occurs.sum(axis=-1)
        micro = 2 * right.sum(axis=-1) / (given.sum(axis=-1) + wanted.sum(axis=-1))
    return Scores(f1, precision, recall, macro, np.where(occurs.any(axis=-1), micro, np.nan))


def event_counts(
    detected: EventArray, reference: Reference, tolerance: float = TOLERANCE, collar: float = COLLAR_SECONDS
) -> np.ndarray:
    """Events whose onset lies within the collar and whose offset within it or 20 % of the true length, if that is more.

    Args:
        detected: events over the reference's clips and classes.
        reference: ground truth, as annotated.
        tolerance: by which a collar may be exceeded, s; sed_eval allows none.
        collar: s.

    Returns:
        Right, detected and wanted events, ``(clips, classes, 3)``.
    """
    columns, given = reference.events.column(len(reference.labels)), detected.column(len(reference.labels))
    right = most_matches(*collar_pairs(given, detected.onset, detected.offset, reference, tolerance, collar))
    return _stack(reference, columns[right], given, columns)


def collar_pairs(
    column: np.ndarray,
    onset: np.ndarray,
    offset: np.ndarray,
    reference: Reference,
    tolerance: float = TOLERANCE,
    collar: float = COLLAR_SECONDS,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of events and of detections of their column (clip and class) whose times agree within the collars."""
    wanted = reference.events
    truth = pd.DataFrame({"column": wanted.column(len(reference.labels)), "wanted": np.arange(len(wanted))})
    guess = pd.DataFrame({"column": column, "detected": np.arange(len(column))})
    pairs = truth.merge(guess, on="column")
    one, other = pairs["wanted"].to_numpy(), pairs["detected"].to_numpy()
    late = np.maximum(collar, OFFSET_SHARE * (wanted.offset - wanted.onset))[one]
    hit = np.abs(wanted.onset[one] - onset[other]) <= collar + tolerance
    hit &= np.abs(wanted.offset[one] - offset[other]) <= late + tolerance
    return one[hit], other[hit]


def most_matches(wanted: np.ndarray, detected: np.ndarray) -> np.ndarray:
    """The events of as many pairs as can be when none is in two."""
    if len(np.unique(wanted)) == len(wanted) and len(np.unique(detected)) == len(detected):
        return wanted
    # Imported here: scipy.sparse takes a while, and most importers of this room never count events.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    events, one = np.unique(wanted, return_inverse=True)
    others, other = np.unique(detected, return_inverse=True)
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(len(events), len(others)))
    return events[maximum_bipartite_matching(graph.tocsr(), perm_type="column") >= 0]


def segment_counts(detected: EventArray, reference: Reference) -> np.ndarray:
    """Segments of one second in which a class is active, from the one its onset lies in to the one before its offset.

    Returns:
        Right, detected and wanted segments, ``(clips, classes, 3)``.
    """
    end = max(events.offset.max(initial=0.0) for events in (detected, reference.events))
    width = 1 + int(np.ceil(end / SEGMENT_SECONDS))
    given = _segments(detected, len(reference.labels), width)
    wanted = _segments(reference.events, len(reference.labels), width)
    right = np.intersect1d(given, wanted, assume_unique=True)
    return _stack(reference, right // width, given // width, wanted // width)


def clip_counts(present: np.ndarray, reference: Reference) -> np.ndarray:
    """Clips in which a class occurs at all.

    Args:
        present: where the system says so, booleans ``(clips, classes)``.
        reference: ground truth.

    Returns:
        Right, detected and wanted, zero or one each, ``(clips, classes, 3)``.
    """
    wanted = reference.counts > 0
    return np.stack((present & wanted, present, wanted), axis=-1).astype(np.float64)


def _segments(events: EventArray, classes: int, width: int) -> np.ndarray:
    """Active segments as ``column * width + segment``, each once."""
    first = np.floor(events.onset / SEGMENT_SECONDS).astype(np.int64)
    after = np.ceil(events.offset / SEGMENT_SECONDS).astype(np.int64)
    counts = after - first
    return np.unique(ranges(events.column(classes) * width + first, counts))


def ranges(start: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``start[0], start[0] + 1, ...`` (``counts[0]`` of them), then the same for the next, in one array."""
    return np.arange(counts.sum()) + np.repeat(start - (np.cumsum(counts) - counts), counts)


def _stack(reference: Reference, *columns: np.ndarray) -> np.ndarray:
    tallies = [np.bincount(column, minlength=reference.judged.size) for column in columns]
    return np.stack(tallies, axis=-1).astype(np.float64).reshape(*reference.judged.shape, len(columns))
