"""Score tables and ground truth, brought together clip by clip: what all figures of scores begin with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from pmam_plugin.audio.names import clip_name, match_clips
from pmam_plugin.errors import InputError
from pmam_plugin.evaluation.reference import Reference
from pmam_plugin.tables.scores import check_scores

logger = logging.getLogger(__name__)

# Frames do not end where recordings do, s.
_LENGTH_TOLERANCE = 1.0


def aligned(
    scores: Mapping[str, pd.DataFrame],
    events: pd.DataFrame,
    durations: Mapping[str, float],
    given: Sequence[str] | None,
) -> tuple[dict[str, pd.DataFrame], Reference]:
    """Tables by clip name, and the ground truth of exactly these clips.

    Raises:
        InputError: as :func:`evaluate_scores`.
    """
    tables = {clip_name(clip): table for clip, table in scores.items()}
    if not tables:
        raise InputError("no scores were given; pass a table for every clip of the durations")
    if len(tables) < len(scores):
        raise InputError("two score tables name one clip; keep one of them")
    labels = tuple(next(iter(tables.values())).columns[2:] if given is None else given)
    for clip, table in tables.items():
        check_scores(table, f"scores of {clip}")
        lacking = [label for label in labels if label not in table]
        if given is not None and len(lacking) < len(labels):
            continue
        if lacking:
            raise InputError(f"scores of {clip}: no column for {', '.join(lacking)}; all clips need the same classes")
        others = [] if given is not None else [label for label in table.columns[2:] if label not in labels]
        if others:
            raise InputError(
                f"scores of {clip}: a column for {', '.join(others)}, which other clips lack; all need the same classes"
            )
    reference = Reference.from_tables(events, durations, labels)
    named = match_clips(tables, reference.clips)
    tables = {named.get(clip, clip): table for clip, table in tables.items()}
    unscored, unlisted = set(reference.clips) - tables.keys(), tables.keys() - set(reference.clips)
    for clips, fault in (
        (unscored, "have a duration but no scores; score them too or take them out of the durations"),
        (unlisted, "have scores but no duration; add them to the durations"),
    ):
        if clips:
            raise InputError(f"{len(clips)} clip(s) such as {min(clips)} {fault}")
    _warn_of_lengths(tables, reference)
    judged = np.array([[label in tables[clip] for label in labels] for clip in reference.clips])
    unasked = ~judged.ravel()[reference.events.column(len(labels))]
    if unasked.any():
        event = reference.events.select(unasked)
        raise InputError(
            f"scores of {reference.clips[event.clip[0]]}: no column for {labels[event.label[0]]}, of which the ground "
            "truth has an event there; all clips whose corpus annotates a class need its scores"
        )
    if not judged.all():
        clips_of = zip(labels, judged.sum(axis=0))
        logger.info("clips in which a class is judged: %s", ", ".join(f"{n} for {label}" for label, n in clips_of))
        # What is not judged is never detected.
        columns = ["onset", "offset", *labels]
        tables = {clip: table.reindex(columns=columns, fill_value=-np.inf) for clip, table in tables.items()}
    return tables, replace(reference, judged=judged)


def _warn_of_lengths(tables: Mapping[str, pd.DataFrame], reference: Reference) -> None:
    seconds = dict(zip(reference.clips, reference.durations))
    spans = {clip: (table["onset"].iloc[0], table["offset"].iloc[-1]) for clip, table in tables.items()}
    odd = [clip for clip, (begin, end) in spans.items() if max(begin, abs(end - seconds[clip])) > _LENGTH_TOLERANCE]
    if odd:
        begin, end = spans[odd[0]]
        logger.warning(
            "%d score table(s) do not last as long as their recordings, such as %s: from %g to %g s of %g s",
            len(odd),
            odd[0],
            begin,
            end,
            seconds[odd[0]],
        )
