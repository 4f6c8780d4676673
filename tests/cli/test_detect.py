import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from pmam_plugin.checkpoints import save_model
from pmam_plugin.cli.detect import find_recordings
from pmam_plugin.errors import InputError
from pmam_plugin.tables import read_events
from pmam_plugin.tables.formats import read_annotations
from pmam_plugin.tables.scores import read_scores
from tests.audio.files import encoded, flac_total, wav_sizes
from tests.inference.test_detector import RATE, balanced, noise
from tests.support import run


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    detector = balanced(median_seconds=0.2)
    return str(save_model(tmp_path_factory.mktemp("model"), detector.model, detector.scoring))


@pytest.fixture
def folder(tmp_path) -> Path:
    for seed, name in enumerate(("a.wav", "deep/b.flac", "deep/er/a.wav")):
        (tmp_path / "sounds" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "sounds" / name, noise(2.5, seed), RATE)
    (tmp_path / "sounds" / "notes.txt").write_text("no audio")
    return tmp_path / "sounds"


def test_a_folder_is_searched_in_depth_and_events_are_printed(folder, model, capsys):
    assert run("detect", folder, "--model", model) == 0
    captured = capsys.readouterr()
    table = pd.read_csv(io.StringIO(captured.out), sep="\t")
    assert list(table.columns) == ["filename", "onset", "offset", "event_label", "score"]
    assert set(table.filename) == {"a.wav", "deep/b.flac", "deep/er/a.wav"}
    assert f"{len(table)} events in 3 recordings" in captured.err


def test_events_are_counted_by_class_and_hour(folder, model, tmp_path, capsys):
    (folder / "a.wav").rename(folder / "20240601_055959.wav")
    assert run("detect", folder, "--model", model, "--counts", tmp_path / "counts.csv") == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out), sep="\t")
    counts = pd.read_csv(tmp_path / "counts.csv")
    assert counts.groupby("day").minutes_recorded.sum().round(2).to_dict() == {
        "2024-06-01": 0.05,
        "deep/b.flac": 0.04,
        "deep/er/a.wav": 0.04,
    }
    assert counts[counts.day == "2024-06-01"].hour.tolist() == [5, 6]
    assert int(counts.iloc[:, 3:].to_numpy().sum()) == len(table)


def test_files_folders_and_globs_may_be_mixed(folder):
    found = find_recordings([str(folder / "a.wav"), str(folder / "deep"), str(folder / "**" / "*.flac")])
    assert list(found) == [folder / "a.wav", folder / "deep/b.flac", folder / "deep/er/a.wav"]
    assert list(found.values()) == ["a.wav", "b.flac", "er/a.wav"]


def test_equal_names_become_places_below_the_folder_they_share(folder):
    files = [folder / "a.wav", folder / "deep/er/a.wav", folder / "deep/b.flac"]
    assert list(find_recordings([str(file) for file in files]).values()) == ["a.wav", "deep/er/a.wav", "b.flac"]
    assert list(find_recordings([str(folder / "deep"), str(folder / "deep/er")]).values()) == ["b.flac", "er/a.wav"]
    (folder / "deep/a.wav").write_bytes(b"x")
    assert list(find_recordings([str(folder / "deep/er"), str(folder / "deep")]).values()) == [
        "er/a.wav",
        "a.wav",
        "b.flac",
    ]


def test_a_file_given_twice_is_one_recording(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert len(find_recordings(["a.wav", "./a.wav", str(folder / "a.wav"), ".", "*.wav"])) == 3
    with pytest.raises(InputError, match="the name of a recording is empty"):
        find_recordings([""])  # of a variable that is not set; not all of the current folder


def test_hidden_files_other_formats_and_brackets_in_folders(folder):
    for name in ("._a.wav", "__MACOSX/a.wav", ".cache/x.wav", "deep [1]/c.W64", "deep [1]/._c.W64", "deep [1]/d.m4a"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert list(find_recordings([str(folder)]).values()) == [
        "a.wav",
        "deep [1]/c.W64",
        "deep [1]/d.m4a",
        "deep/b.flac",
        "deep/er/a.wav",
    ]
    assert list(find_recordings([str(folder / "deep [1]/*.W64")]).values()) == ["c.W64"]
    assert list(find_recordings([str(folder / "**/*.wav")]).values()) == ["a.wav", "deep/er/a.wav"]


def test_names_of_any_bytes_and_of_any_length_come_through(folder, model, tmp_path, capsys):
    """Latin-1 names, tabs, line breaks, 80 Chinese characters: none of them may cost the results of a batch."""
    names = [b"caf\xe9.wav", b"tab\there.wav", b"new\nline.wav", ("長" * 80 + ".wav").encode()]
    try:
        for name in names:
            (folder / os.fsdecode(name)).hardlink_to(folder / "a.wav")
        (folder / os.fsdecode(b"b\xe4d.wav")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system has no such names")
    shown = {"café.wav", "tab_here.wav", "new_line.wav", "長" * 80 + ".wav", "a.wav", "deep/b.flac", "deep/er/a.wav"}
    for ending in ("tsv", "json"):
        out, page = tmp_path / f"e.{ending}", tmp_path / "e.html"
        assert run("detect", folder, "--model", model, "--out", out, "--report", page, "--scores", tmp_path / "s") == 1
        assert "no report" not in capsys.readouterr().err
    assert set(read_events(tmp_path / "e.tsv").filename) == shown
    content = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert {recording["filename"] for recording in content["recordings"]} == shown
    assert list(content["failed"]) == ["bäd.wav"]
    assert len(read_scores(tmp_path / "s")) == len(shown)


@pytest.mark.parametrize("ending", ["tsv", "csv", "json", "rttm"])
def test_every_format_is_written(folder, model, tmp_path, ending, capsys):
    out = tmp_path / f"events.{ending}"
    assert run("detect", folder, "--model", model, "--out", out) == 0
    assert out.stat().st_size > 100
    assert capsys.readouterr().out == ""


def test_labels_beside_recordings_are_not_replaced(model, tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    (tmp_path / "a.tsv").write_text("somebody's work")
    assert run("detect", tmp_path, "--model", model, "--out", tmp_path) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {tmp_path / 'a.tsv'}: labels of the recording lie there already; give another folder"
    )
    assert (tmp_path / "a.tsv").read_text() == "somebody's work"


def test_detections_open_in_tools_for_labels(folder, model, tmp_path, capsys):
    """Praat gets the same events as the table, a file for each recording."""
    assert run("detect", folder, "--model", model, "--out", tmp_path / "e.tsv") == 0
    assert run("detect", folder, "--model", model, "--out", tmp_path / "praat" / "e.TextGrid") == 0
    assert run("detect", folder, "--model", model, "--out", tmp_path / "praat", "--format", "textgrid") == 0
    events = read_events(tmp_path / "e.tsv")
    files = {
        "a.wav": ("e_a", "a"),
        "deep/b.flac": ("e_deep_b", "deep/b"),
        "deep/er/a.wav": ("e_deep_er_a", "deep/er/a"),
    }
    for name, written in files.items():
        for file in written:
            back = read_annotations(tmp_path / "praat" / f"{file}.TextGrid").events
            assert sorted(zip(back.onset, back.event_label)) == sorted(
                (row.onset, row.event_label) for row in events.itertuples() if row.filename == name
            )
    assert run("detect", folder, "--model", model, "--format", "raven") == 1
    assert "--format raven: has no effect without --out" in capsys.readouterr().err


def test_a_bad_file_does_not_stop_the_rest_and_is_named_at_the_end(folder, model, tmp_path, capsys):
    (folder / "bad.wav").write_bytes(b"broken")
    missing = tmp_path / "missing.wav"
    assert run("detect", folder, missing, "--model", model, "--out", tmp_path / "e.tsv") == 1
    error = capsys.readouterr().err
    assert "2 of 5 recordings failed" in error
    assert "bad.wav" in error
    assert "missing.wav" in error
    assert set(read_events(tmp_path / "e.tsv").filename) == {"a.wav", "deep/b.flac", "deep/er/a.wav"}


def test_no_kind_of_recording_costs_the_others_their_results(folder, model, tmp_path, capsys):
    """Voicemail codecs, pipes' placeholders, an MP3 that breaks off: each is heard or named, and the rest goes on."""
    samples = noise(2.5, 3)
    soundfile.write(folder / "voice.wav", samples, RATE, format="WAV", subtype="GSM610")
    content = encoded(samples, "FLAC", rate=RATE)
    (folder / "pipe.flac").write_bytes(flac_total(content, 0))
    (folder / "unfinished.wav").write_bytes(wav_sizes(encoded(samples, "WAV", "PCM_16", RATE), 0, 0))
    (folder / "cut.mp3").write_bytes(encoded(noise(40.0, 4), "MP3", rate=RATE)[:-3000])
    (folder / "endless.flac").write_bytes(flac_total(content, 2**36 - 1))
    assert run("detect", folder, "--model", model, "--out", tmp_path / "e.json") == 1
    results = json.loads((tmp_path / "e.json").read_text())
    heard = {recording["filename"]: recording["duration"] for recording in results["recordings"]}
    assert {name for name in heard if "/" not in name} == {"a.wav", "voice.wav", "pipe.flac", "unfinished.wav"}
    assert all(seconds == pytest.approx(2.5, abs=0.05) for seconds in heard.values())
    assert results["labels"] == ["bell", "dog", "speech"]
    assert set(results["failed"]) == {"cut.mp3", "endless.flac"}
    assert all("ends before its header says" in reason for reason in results["failed"].values())


def test_a_threshold_may_be_given(folder, model, tmp_path):
    assert run("detect", folder, "--model", model, "--threshold", 1.0, "--out", tmp_path / "none.tsv") == 0
    assert len(pd.read_csv(tmp_path / "none.tsv", sep="\t")) == 0
    assert run("detect", folder, "--threshold", 1.5) == 2


def test_a_report_shows_every_recording(folder, model, tmp_path):
    pytest.importorskip("pmam_plugin.report.detections")
    page = tmp_path / "report.html"
    assert run("detect", folder, "--model", model, "--report", page, "--out", tmp_path / "e.tsv") == 0
    text = page.read_text()
    assert "deep/er/a.wav" in text
    assert "For research and evaluation." not in text
    assert run("detect", folder / "a.wav", "--report", page) == 0
    text = page.read_text()
    assert "For research and evaluation." in text
    assert re.search(r"What it knows, and how well it did on .*: .*Speech \d+ \(\d+\)", text)
    assert len(read_events(tmp_path / "e.tsv"))


def test_recordings_of_one_name_in_two_folders_are_scored_and_evaluated(folder, model, tmp_path, capsys):
    """What detect writes, evaluate finds, whoever wrote the table."""
    assert run("detect", folder, "--model", model, "--scores", tmp_path / "scores") == 0
    frames = int(np.ceil(2.5 * 25))
    scores = read_scores(tmp_path / "scores")
    assert {clip: len(table) for clip, table in scores.items()} == dict.fromkeys(("a", "deep/b", "deep/er/a"), frames)
    clips = ("a.wav", "deep\\b.flac", "./deep/er/a.wav")
    (tmp_path / "durations.tsv").write_text("filename\tduration\n" + "".join(f"{clip}\t2.5\n" for clip in clips))
    rows = "".join(f"{clip}\t0.5\t1.5\tdog\n" for clip in (folder / "a.wav", folder / "deep/b.flac"))
    (tmp_path / "truth.tsv").write_text("filename\tonset\toffset\tevent_label\n" + rows)
    tables = ("--ground-truth", tmp_path / "truth.tsv", "--durations", tmp_path / "durations.tsv", "--bootstrap", 0)
    assert run("evaluate", "--scores", tmp_path / "scores", *tables) == 0, capsys.readouterr().err


def test_score_tables_that_would_overwrite_each_other_are_refused(folder, model, tmp_path, capsys):
    soundfile.write(folder / "a.flac", noise(1.0), RATE)
    assert run("detect", folder, "--model", model, "--scores", tmp_path / "scores") == 1
    assert "a.flac and a.wav would both be written to a.tsv" in capsys.readouterr().err
    assert not (tmp_path / "scores").exists()


def test_a_report_that_fails_does_not_lose_the_events(folder, model, tmp_path, capsys, monkeypatch):
    def full(*arguments, **named):
        raise InputError("report.html: cannot be written (No space left on device)")

    monkeypatch.setattr("pmam_plugin.report.detections.write_page", full)
    out = tmp_path / "e.tsv"
    assert run("detect", folder, "--model", model, "--report", tmp_path / "report.html", "--out", out) == 1
    assert "no report: report.html: cannot be written" in capsys.readouterr().err
    assert set(read_events(out).filename) == {"a.wav", "deep/b.flac", "deep/er/a.wav"}


def test_without_a_model_the_built_in_one_says_what_it_is(folder, capsys):
    assert run("detect", folder / "a.wav") == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("no --model given: using the built-in model, which knows Alarm_bell_ringing, Baby_cry")
    assert "pmam info says how sure it is of each" in first


def test_help_waits_for_no_heavy_import():
    code = "import sys, pmam_plugin.cli; print([name for name in ('torch', 'pandas', 'scipy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_detection_that_prints_its_events_waits_for_torch_alone(folder):
    """Of what else a detection imported, pandas and scipy took most of the time."""
    heavy = (
        *("timm", "torchvision", "torchaudio", "torch._dynamo", "torch.onnx.utils", "sklearn", "speechbrain", "h5py"),
        *("pandas", "scipy", "pyarrow", "matplotlib", "huggingface_hub", "transformers", "datasets", "webdataset"),
    )
    code = (
        "import sys; from pmam_plugin.cli import app; app(['detect', sys.argv[1]], standalone_mode=False);"
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "a.wav")], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == "filename\tonset\toffset\tevent_label\tscore"
    assert done.stdout.splitlines()[-1] == ""


def test_what_is_printed_is_what_a_table_holds(folder, model, tmp_path, capsys):
    assert run("detect", folder, "--model", model, "--threshold", "0.3") == 0
    printed = capsys.readouterr().out
    assert run("detect", folder, "--model", model, "--threshold", "0.3", "--out", tmp_path / "e.tsv") == 0
    assert capsys.readouterr().out == ""
    table = pd.read_csv(tmp_path / "e.tsv", sep="\t")
    assert len(table) > 0
    assert printed == table.round(3).to_csv(sep="\t", index=False)


def test_help_shows_an_example(capsys):
    assert run("detect", "--help") == 0
    assert "Example: pmam detect" in capsys.readouterr().out
