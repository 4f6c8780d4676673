"""What time it was: recorders write it into the names of their files, and counts per class and hour follow from it."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import pandas as pd

# 20240601_063000 (AudioMoth, Song Meter), 20240601T063000, 2024-06-01 06-30-00, 2024-06-01_06.30, ...
_STAMP = re.compile(
    r"(?<!\d)((?:19|20)\d\d)([-_.]?)(\d\d)\2(\d\d)[T_ -]{1,3}(\d\d)[-_.:h]?(\d\d)(?:[-_.:m]?(\d\d))?(?!\d)"
)
_HOUR = 3600.0


def start_time(name: str) -> datetime | None:
    """When a recording begins, if its name tells date and time; by the recorder's clock."""
    for match in _STAMP.finditer(os.path.basename(name.replace("\\", "/"))):
        year, _, month, day, hour, minute, second = match.groups()
        try:
            return datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0))
        except ValueError:
            continue
    return None


def hourly_counts(recordings: Iterable[tuple[str, float, pd.DataFrame]], labels: Sequence[str]) -> pd.DataFrame:
    """Events of every class that begin in every hour that was recorded.

    Args:
        recordings: name, seconds and events ``onset, ..., event_label`` of each.
        labels: the classes.

    Returns:
        ``day, hour, minutes_recorded, <label>...``, in order. The day is a date where the recording's name tells when
        it begins, and the hour that of the day; else the day is the recording, and hours count from its start.
    """
    minutes: dict[tuple[str, int], float] = defaultdict(float)
    counts: dict[tuple[str, int], Counter[str]] = defaultdict(lambda: Counter(dict.fromkeys(labels, 0)))
    for name, seconds, events in recordings:
        begin = start_time(name)
        at, end = 0.0, max(seconds, 0.0)
        while at < end:
            day, hour, left = _hour_of(name, begin, at)
            step = min(left, end - at)
            minutes[day, hour] += step / 60
            at += step
        for onset, label in zip(events["onset"], events["event_label"]):
            day, hour, _ = _hour_of(name, begin, float(onset))
            counts[day, hour][str(label)] += 1
    rows = [
        {"day": day, "hour": hour, "minutes_recorded": round(minutes[day, hour], 2), **counts[day, hour]}
        for day, hour in sorted({*minutes, *counts})
    ]
    return pd.DataFrame(rows, columns=["day", "hour", "minutes_recorded", *labels])


def _hour_of(name: str, begin: datetime | None, at: float) -> tuple[str, int, float]:
    """Day and hour of a moment of a recording, and the seconds left in that hour."""
    if begin is None:
        return name, int(at // _HOUR), _HOUR - at % _HOUR
    now = begin + timedelta(seconds=at)
    past = 60.0 * now.minute + now.second + now.microsecond / 1e6
    return now.date().isoformat(), now.hour, _HOUR - past
