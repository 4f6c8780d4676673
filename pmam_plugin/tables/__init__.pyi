from .events import (
    clip_events as clip_events,
    read_durations as read_durations,
    read_events as read_events,
    read_weak as read_weak,
    warn_of_look_alikes as warn_of_look_alikes,
    write_events as write_events,
    write_weak as write_weak,
)
from .reading import Table as Table, join_names as join_names, split_names as split_names
