"""Text tables, read exactly or refused: one reader for training and evaluation."""

from pmam_plugin.tables.events import (
    clip_events,
    read_durations,
    read_events,
    read_weak,
    warn_of_look_alikes,
    write_events,
    write_weak,
)
from pmam_plugin.tables.reading import Table, join_names, split_names

__all__ = [
    "Table",
    "clip_events",
    "join_names",
    "read_durations",
    "read_events",
    "read_weak",
    "split_names",
    "warn_of_look_alikes",
    "write_events",
    "write_weak",
]
