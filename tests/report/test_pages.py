"""Pages as files: complete, self-contained, escaped, and of a size that can be mailed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from pmam_plugin.errors import InputError
from pmam_plugin.evaluation.psds import PSDROC
from pmam_plugin.explorer import PrototypeIteration, PrototypeReport, write_prototype_report
from pmam_plugin.report import (
    DetectedRecording,
    TrainingReport,
    detections,
    write_detection_report,
    write_training_report,
)
from pmam_plugin.report.page import duration_text, number, write_page
from pmam_plugin.report.training import class_figures, roc_curves
from tests.report import samples


def data_of(page: Path) -> dict:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r'<script type="application/json" id="report-data">(.*?)</script>', text, re.S)
    assert len(found) == 1
    return json.loads(found[0])


@pytest.mark.parametrize("make", [samples.detection_page, samples.training_page, samples.prototype_page])
def test_a_page_fetches_nothing_and_forbids_it(tmp_path: Path, make) -> None:
    text = make(tmp_path).read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#|\$)""", text)
    assert not re.search(r"@import|url\((?!#)|\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon", text)
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert list(tmp_path.iterdir()) == [tmp_path / next(tmp_path.iterdir()).name]


def test_names_are_text_not_markup(tmp_path: Path) -> None:
    page = samples.detection_page(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "<b>hall.wav" not in text
    assert "small &amp; &lt;new&gt;" in text
    assert data_of(page)["recordings"][1]["name"] == "</script><b>hall.wav"


def test_numbers_without_a_value_become_null(tmp_path: Path) -> None:
    write_page(tmp_path / "a.html", "t", "s", "", {"a": [float("nan"), float("inf"), np.float32(0.5)]}, ())
    assert data_of(tmp_path / "a.html") == {"a": [None, None, 0.5]}


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((InputError, OSError), match="file"):
        write_page(tmp_path / "file" / "a.html", "t", "s", "", {}, ())


def test_six_clips_of_ten_seconds_make_less_than_four_megabytes(tmp_path: Path) -> None:
    report = samples.training_report(6, 10.0)
    for clip in report.clips:
        clip.source = np.random.default_rng(0).normal(0, 0.1, 160_000).astype(np.float32), samples.RATE
    write_training_report(tmp_path / "t.html", report)
    assert (tmp_path / "t.html").stat().st_size < 4_000_000


def test_an_empty_training_report_is_a_page(tmp_path: Path) -> None:
    write_training_report(tmp_path / "t.html", TrainingReport("Nothing yet"))
    text = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert "Nothing yet" in text
    assert "<section" not in text


def test_the_selected_system_leads(tmp_path: Path) -> None:
    text = samples.training_page(tmp_path).read_text(encoding="utf-8")
    assert re.search(r'<div class="figure">40\.0</div><div class="range">35\.0 – 45\.0</div>', text)
    assert "30.0" in text


def test_configuration_is_shown_word_for_word(tmp_path: Path) -> None:
    text = samples.training_page(tmp_path).read_text(encoding="utf-8")
    shown = re.search(r"<pre>(.*?)</pre>", text, re.S)
    assert shown is not None
    plain = re.sub(r"<[^>]+>", "", shown[1])
    assert plain == "seed: 1  # fixed\nmodel: !new:a.B\n    classes: !ref &lt;labels&gt;"


def test_classes_are_ordered_by_metric_without_their_numbers_of_events() -> None:
    figures = class_figures({"student": samples.figures(0.3), "teacher": samples.figures(0.4), "empty": {}})
    assert figures["names"] == ["student", "teacher"]
    assert list(figures["metrics"]) == ["psds1", "event_f1"]
    assert figures["metrics"]["event_f1"][1] == ["Dog", [None, None]]


def test_curves_end_at_a_hundred_false_positives_and_stay_small() -> None:
    rate = np.linspace(0, 500, 100_000)
    points = roc_curves(PSDROC(0.1, 0.1, rate, rate / 500, {}, {}))["all"]
    assert len(points) <= 301
    assert points[-1][0] == pytest.approx(100, abs=0.01)
    assert points[-1][1] == pytest.approx(0.2, abs=0.001)


def test_a_roc_with_classes_brings_their_curves() -> None:
    rate, ratio = np.array([0.0, 10.0, 60.0]), np.array([0.1, 0.2, 0.3])
    roc = PSDROC(0.2, 0.25, rate, ratio, {"Cat": 0.25}, {"Cat": (rate, ratio * 2)})
    curves = roc_curves(roc)
    assert curves["all"] == [[0.0, 0.1], [10.0, 0.2], [60.0, 0.3]]
    np.testing.assert_allclose(curves["classes"]["Cat"], [[0.0, 0.2], [10.0, 0.4], [60.0, 0.6]])


def test_recordings_beyond_the_limit_are_referred_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detections, "EMBEDDED_SECONDS", 5.0)
    soundfile.write(tmp_path / "a b.wav", samples.wave(), samples.RATE)
    found = [
        DetectedRecording("short", (samples.wave(), samples.RATE), samples.EVENTS),
        DetectedRecording("file", tmp_path / "a b.wav", samples.EVENTS),
        DetectedRecording("array", (samples.wave(), samples.RATE), samples.EVENTS),
        DetectedRecording("tiny", (samples.wave(0.5), samples.RATE), samples.EVENTS),
    ]
    write_detection_report(tmp_path / "d.html", found)
    audio = [recording["audio"] for recording in data_of(tmp_path / "d.html")["recordings"]]
    assert "base64" in audio[0]
    assert audio[1] == {"href": "a%20b.wav"}
    assert audio[2] is None
    assert "base64" in audio[3]


def test_labels_come_from_the_model_the_scores_or_the_events(tmp_path: Path) -> None:
    source = (samples.wave(1.0), samples.RATE)
    found = [
        DetectedRecording("a", source, samples.EVENTS, labels=["Dog", "Cat"]),
        DetectedRecording("b", source, samples.EVENTS, samples.scores()),
        DetectedRecording("c", source, samples.EVENTS),
    ]
    write_detection_report(tmp_path / "d.html", found)
    lanes = [[lane["label"] for lane in item["lanes"]] for item in data_of(tmp_path / "d.html")["recordings"]]
    assert lanes == [["Dog", "Cat"], list(samples.LABELS), ["Cat", "Dog"]]


def test_a_prototype_page_without_any_label_or_sound_is_a_page(tmp_path: Path) -> None:
    bare = PrototypeIteration(
        "iteration 1",
        np.ones(2) / 2,
        (),
        np.zeros((2, 1)),
        np.zeros(40),
        0.0,
        {"Principal": samples.prototype_iteration(prototypes=2).maps["Principal"]},
        [[], []],
        np.zeros(2),
        np.zeros(2),
        np.zeros((2, 64)),
        {},
    )
    write_prototype_report(tmp_path / "p.html", PrototypeReport([bare], {"run": "1"}))
    shown = data_of(tmp_path / "p.html")["iterations"][0]
    assert shown["sprite"] is None
    assert shown["labelled"] is False
    assert shown["telling"] == [-1, -1]
    with pytest.raises(ValueError, match="at least one"):
        write_prototype_report(tmp_path / "q.html", PrototypeReport([], {"run": "1"}))


def test_people_read_numbers_and_durations() -> None:
    assert [number(value) for value in (1234, 0.123456, None, "x", True, float("nan"))] == [
        "1,234", "0.1235", "–", "x", "True", "–",
    ]  # fmt: skip
    assert [duration_text(value) for value in (0.04, 59.9, 61, 3600)] == ["0.0 s", "59.9 s", "1 min 01 s", "1 h 00 min"]


def test_a_dataframe_of_no_detections_is_fine(tmp_path: Path) -> None:
    empty = pd.DataFrame(columns=["filename", "onset", "offset", "event_label"])
    write_detection_report(tmp_path / "d.html", [DetectedRecording("a", (samples.wave(1.0), samples.RATE), empty)])
    assert "0 events in 1 recording, 1.0\N{NO-BREAK SPACE}s" in (tmp_path / "d.html").read_text(encoding="utf-8")
