"""Parts of pages that people work with, in a real browser: mistakes to hear, thresholds to move, days to look over."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import soundfile

from pmam_plugin.evaluation.mistakes import find_mistakes, operating_curves
from pmam_plugin.report import DetectedRecording, StageSummary, write_detection_report, write_training_report
from tests.report import samples
from tests.report.test_browser import quiet
from tests.support_browser import Browser

LABELS = list(samples.LABELS)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which Cat's second event is found late and Dog's is missed, at a threshold of 0.5."""
    truth = pd.DataFrame(
        [("clip0", 1.0, 2.0, "Cat"), ("clip0", 3.2, 3.75, "Cat"), ("clip0", 0.5, 3.0, "Dog")],
        columns=["filename", "onset", "offset", "event_label"],
    )
    table = samples.scores()
    table["Dog"] = np.where((table.onset >= 0.5) & (table.onset < 3.0), 0.3, 0.05)
    detected = samples.EVENTS[samples.EVENTS.event_label == "Cat"].assign(filename="clip0")
    report = samples.training_report(clips=1)
    clip = replace(report.clips[0], scores=table, events=detected, truth=truth, thresholds=0.5)
    mistakes = find_mistakes(detected, truth, LABELS)
    points = [
        {"share": share, "event_f1_macro": share / 2, "events": dict.fromkeys(LABELS, 3), "event_f1": {"Cat": share}}
        for share in (0.25, 0.5, 1.0)
    ]
    page = tmp_path_factory.mktemp("page") / "training.html"
    write_training_report(
        page,
        replace(
            report,
            summary="On 1 recording it has not heard before <all is well>.",
            stages=[*report.stages, StageSummary("learning_curve", 3.0, notes={"points": points})],
            clips=[clip],
            mistakes=mistakes,
            mistake_examples=[(mistake, clip) for mistake in mistakes.found],
            operating=operating_curves({"clip0": table}, truth, {"clip0": 4.0}, LABELS),
            thresholds=0.5,
            hours=4 / 3600,
        ),
    )
    return page


def test_a_mistake_can_be_heard(browser: Browser, training: Path) -> None:
    browser.open(training)
    rows = browser.run(
        """const rows = [...document.querySelectorAll('.wrong tbody tr')];
        return rows.map(row => [...row.cells].map(cell => cell.textContent))"""
    )
    assert rows[0][:3] == ["Cat", "2", "1"]
    assert (rows[0][7], rows[1][3]) == ("1", "1")  # begins too late; missed
    browser.run("document.querySelector('button[data-label=Cat][data-kind=begins_late]').click()")
    browser.wait("document.querySelectorAll('#mistake-players .player').length === 1")
    assert "begins too late by 0.30 s" in browser.run(
        "return document.querySelector('.mistake figcaption').textContent"
    )
    browser.run("document.querySelector('#mistake-players .play').click()")
    browser.wait("document.querySelector('#mistake-players audio').currentTime > 0.2")
    browser.run("document.querySelector('#mistake-players .play').click()")
    heard = browser.run(
        """const rows = [...document.querySelectorAll('.confusions tbody tr')];
        return rows.map(row => [...row.cells].map(cell => cell.textContent))"""
    )
    assert heard[1][1:] == ["·", "·", "·", "1"]  # Dog: nothing was heard
    assert "On 1 recording it has not heard before <all is well>." in browser.run("return document.body.textContent")
    assert browser.run("return document.querySelectorAll('#learning-curve path.series').length") >= 2
    quiet(browser)


def test_a_threshold_moves_the_events_of_all_pictures(browser: Browser, training: Path) -> None:
    browser.open(training)
    browser.wait("document.querySelectorAll('rect.detected').length === 2")
    text = "return document.getElementById('threshold-text').textContent"
    assert browser.run(text) == "threshold 0.50: finds 50 % of 2 events, 0 false alarms per hour"
    browser.run(
        "const c = document.getElementById('threshold-class'); c.value = 1; c.dispatchEvent(new Event('change'))"
    )
    assert browser.run(text).startswith("threshold 0.50: finds 0 % of 1 event")
    browser.run(
        """const slider = document.getElementById('threshold-slider');
        slider.value = 1; slider.dispatchEvent(new Event('input'))"""
    )
    assert browser.run(text) == "threshold 0.15: finds 100 % of 1 event, 0 false alarms per hour"
    browser.wait("document.querySelectorAll('rect.detected').length === 3")
    onset, offset = browser.run(
        "const b = document.querySelector('.lane[data-label=Dog] rect.detected').dataset; return [b.onset, b.offset]"
    )
    assert (float(onset), float(offset)) == pytest.approx((0.48, 3.0), abs=0.05)
    browser.run("document.getElementById('threshold-reset').click()")
    browser.wait("document.querySelectorAll('rect.detected').length === 2")
    assert browser.run(text).startswith("threshold 0.50: finds 0 %")
    quiet(browser)


def test_a_day_of_recordings_is_counted_by_hour_and_a_count_leads_to_the_sound(
    browser: Browser, tmp_path: Path
) -> None:
    sound = np.random.default_rng(0).normal(0, 0.01, 60 * 16_000).astype(np.float32)
    recordings = []
    for name, rows in {
        "20240601_055930.wav": [(10.0, 11.0, "Dog", 0.9), (40.0, 42.0, "Dog", 0.8)],
        "20240601_120000.wav": [(5.0, 6.0, "Cat", 0.9)],
    }.items():
        soundfile.write(tmp_path / name, sound, 16_000)
        events = pd.DataFrame(rows, columns=["onset", "offset", "event_label", "score"])
        recordings.append(DetectedRecording(name, tmp_path / name, events, labels=["Cat", "Dog"]))
    write_detection_report(tmp_path / "day.html", recordings)
    browser.open(tmp_path / "day.html")
    cells = browser.run(
        """const cells = [...document.querySelectorAll('.day .cell')];
        return cells.map(cell => [cell.dataset.label, cell.dataset.hour, cell.textContent])"""
    )
    assert cells == [["Cat", "12", "1"], ["Dog", "5", "1"], ["Dog", "6", "1"]]
    assert browser.run("return document.querySelectorAll('.day td.unrecorded').length") == 2 * (24 - 3)
    browser.run("document.querySelector('.cell[data-label=Dog][data-hour=\"6\"]').click()")
    browser.wait("Math.abs(current.position - 40) < 0.01")
    browser.run("document.querySelector('.cell[data-label=Cat]').click()")
    browser.wait("current.recording.name === '20240601_120000.wav' && Math.abs(current.position - 5) < 0.01")
    assert browser.run("return document.querySelector('.events tbody td').textContent") == "12:00:05"
    link = browser.run("return document.getElementById('counts-csv').href")
    rows = list(csv.DictReader(io.StringIO(unquote(link.partition(",")[2]))))
    assert [(row["day"], row["hour"], row["Cat"], row["Dog"]) for row in rows] == [
        ("2024-06-01", "5", "0", "1"),
        ("2024-06-01", "6", "0", "1"),
        ("2024-06-01", "12", "1", "0"),
    ]
    assert browser.console() == []
