"""Recorders' names tell the time, and counts per class and hour follow."""

from datetime import datetime

import pandas as pd
import pytest

from pmam_plugin.report.day import hourly_counts, start_time


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("20240601_063000.WAV", datetime(2024, 6, 1, 6, 30)),
        ("site 3/SM4_20240601_235959.wav", datetime(2024, 6, 1, 23, 59, 59)),
        ("2024-06-01 06-30-05.flac", datetime(2024, 6, 1, 6, 30, 5)),
        ("2024-06-01_06.30.wav", datetime(2024, 6, 1, 6, 30)),
        ("20240601T063000Z.wav", datetime(2024, 6, 1, 6, 30)),
        ("20241301_063000.wav", None),
        ("Y00pbt6aJV8Y_350.000_360.000.wav", None),
        ("20240601_063000/take 2.wav", None),
        ("1202406010630001.wav", None),
    ],
)
def test_a_name_tells_when_a_recording_begins(name, expected):
    assert start_time(name) == expected


def test_events_are_counted_in_the_hour_they_begin_in_across_midnight():
    events = pd.DataFrame(
        [(60.0, 61.0, "Dog"), (1700.0, 1900.0, "Dog"), (1900.0, 1901.0, "Owl")],
        columns=["onset", "offset", "event_label"],
    )
    table = hourly_counts([("20240601_233000.wav", 3600.0, events), ("b.wav", 30.0, events[:1])], ("Dog", "Owl"))
    assert table.to_numpy().tolist() == [
        ["2024-06-01", 23, 30.0, 2, 0],
        ["2024-06-02", 0, 30.0, 0, 1],
        ["b.wav", 0, 0.5, 1, 0],
    ]
    assert list(table.columns) == ["day", "hour", "minutes_recorded", "Dog", "Owl"]
