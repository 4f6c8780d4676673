"""Recordings are found under the names that tables give them, and looked at again when they change."""

import logging
import os
import shutil
import unicodedata

import numpy as np
import pytest
import soundfile

from pmam_plugin.data import prepare, read_clip, recordings
from pmam_plugin.errors import InputError
from tests.data.corpus import EVENTS, noise, prepare_tiny, table


def test_missing_and_unlisted_recordings_are_counted(corpus, tmp_path, caplog):
    (corpus / "audio/train/weak/w1.wav").unlink()
    noise(corpus / "audio/train/weak/stranger.wav")
    with caplog.at_level(logging.WARNING):
        data = prepare_tiny(corpus, tmp_path / "out")
    report = data.report["subsets"]["weak"]
    assert (report["missing"], report["missing_examples"], report["unlisted"]) == (1, ["w1.wav"], 1)
    assert "1 of 4 listed clips are not in" in caplog.text


def test_unreadable_recordings_stop_the_run_only_beyond_the_limit(corpus, tmp_path, caplog):
    (corpus / "audio/train/unlabel_in_domain/u1.wav").write_bytes(b"")
    soundfile.write(corpus / "audio/train/weak/w2.wav", np.full(800, np.nan, np.float32), 8000, subtype="FLOAT")
    whole = (corpus / "audio/train/strong_label_real/s1.wav").read_bytes()
    (corpus / "audio/train/strong_label_real/s1.wav").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"3 of 22 recordings cannot be read, more than max_unreadable = 0\.1"):
        prepare_tiny(corpus, tmp_path / "out", max_unreadable=0.1)
    with caplog.at_level(logging.WARNING):
        data = prepare_tiny(corpus, tmp_path / "out", max_unreadable=0.2, selection="none")
    assert data.report["unreadable"] == 3
    assert data.counts == {"strong": 9, "weak": 3, "unlabelled": 4, "test": 3}
    assert caplog.text.count("left out, unreadable") == 3


def test_clips_of_one_name_in_several_subsets_get_different_ids(corpus, tmp_path):
    noise(corpus / "audio/train/unlabel_in_domain/w0.wav")
    noise(corpus / "audio/train/unlabel_in_domain/v0.wav")
    data = prepare_tiny(corpus, tmp_path / "out")
    ids = [clip.id for manifest in data.manifests.values() for clip in manifest]
    assert len(set(ids)) == len(ids)
    assert {"v0", "v0@unlabelled", "w0", "w0@unlabelled"} <= set(ids)
    assert "v0" in {clip.id for clip in data.manifests["test"]}


def test_folders_may_carry_their_sample_rate_and_files_another_format(corpus, tmp_path):
    folder = corpus / "audio/train/strong_label_real"
    shutil.copytree(folder, folder.with_name("strong_label_real_4k"))
    folder.rename(folder.with_name("strong_label_real_16k"))
    for file in sorted(folder.with_name("strong_label_real_16k").iterdir())[:4]:
        noise(file.with_suffix(".flac"), rate=44100, channels=2)
        file.unlink()
    data = prepare_tiny(corpus, tmp_path / "out", selection="none")
    assert data.report["subsets"]["strong"]["folder"] == "audio/train/strong_label_real_16k"
    assert data.report["subsets"]["strong"]["sample_rates"] == {"8000": 6, "44100": 4}


def test_a_plain_folder_of_recordings_is_unlabelled_and_long_ones_are_cut_into_clips(tmp_path):
    noise(tmp_path / "pile/one.wav", seconds=10.02)
    noise(tmp_path / "pile/deep/two.ogg", seconds=34.0, rate=16000)
    noise(tmp_path / "pile/deep/rest.wav", seconds=20.5)
    data = prepare(tmp_path / "pile", tmp_path / "out", selection="none")
    clips = {clip.id: (clip.start, round(clip.seconds, 2)) for clip in data.manifests["unlabelled"]}
    assert clips["one"] == (0.0, 10.0)
    assert [value for name, value in clips.items() if "two" in name] == [(0, 10), (10, 10), (20, 10), (30, 4)]
    assert [value for name, value in clips.items() if "rest" in name] == [(0, 10), (10, 10)]
    assert data.labels == ()
    with_selection = prepare(tmp_path / "pile", tmp_path / "out")
    assert with_selection.report["selection"] == "held out of unlabelled"


def test_no_event_is_lost_at_the_cuts_of_a_long_recording_and_a_test_recording_stays_whole(tmp_path):
    root = tmp_path / "c"
    for part in ("train/strong", "validation/validation"):
        noise(root / "audio" / part / "long.wav", seconds=25.2)
    rows = [("long.wav", 8, 12, "Dog"), ("long.wav", 15, 24.8, "Cat"), ("long.wav", 24.9, 25.1, "Dog")]
    table(root / "metadata/train/strong.tsv", EVENTS, rows)
    table(root / "metadata/validation/validation.tsv", EVENTS, rows)
    data = prepare(root, tmp_path / "out", selection="none")
    clips = {(clip.start, round(clip.seconds, 1)): clip.events for clip in data.manifests["strong"]}
    assert list(clips) == [(0, 10), (7.5, 10), (14.5, 10), (15.2, 10)]
    events = [[(event.onset, event.offset, event.label) for event in found] for found in clips.values()]
    whole = (0.5, 4.5, "Dog")
    assert events[:2] == [[(8, 10, "Dog")], [whole, (7.5, 10, "Cat")]]
    assert events[2:] == [[(0.5, 10, "Cat")], [(0, 9.6, "Cat"), (9.7, 9.9, "Dog")]]
    assert set(data.durations("test").values()) == {25.2}


def test_links_that_run_in_circles_or_lead_nowhere_are_survived(tmp_path):
    noise(tmp_path / "pile/deep/one.wav")
    (tmp_path / "pile/deep/round").symlink_to(tmp_path / "pile")
    (tmp_path / "pile/lost.wav").symlink_to(tmp_path / "nowhere.wav")
    data = prepare(tmp_path / "pile", tmp_path / "out", selection="none", max_unreadable=0.5)
    assert data.counts == {"unlabelled": 1}
    assert data.report["unreadable"] == 1


def test_clips_have_the_names_that_tables_and_folders_give_them(tmp_path):
    """Backslashes, ./, absolute paths, accents and endings: what a table means is found, and nothing is lost."""
    root = tmp_path / "corpus"
    folder = root / "audio/validation/validation"
    names = [
        "day1/a.wav",
        "day2/a.wav",
        "b.W64",
        "c.au",
        unicodedata.normalize("NFD", "Café.wav"),
        "d_30.000_40.000.wav",
    ]
    for seed, name in enumerate(names):
        noise(folder / name, seed=seed)
    noise(folder / "._b.wav")
    noise(root / "audio/train/unlabel_in_domain/x/a.wav")
    rows = [
        ("day1\\a.wav", 0.1, 0.2, "Cat"),
        ("./day1//a.wav", 0.3, 0.4, "Dog"),  # the same clip, spelt differently
        (folder / "day2/a.wav", 0.1, 0.2, "Dog"),
        ("b", 0.1, 0.2, "Cat"),
        ("c.wav", 0.1, 0.2, "Cat"),
        ("Café.WAV", 0.1, 0.2, "Cat"),
        ("d_30.000_40.000.wav", 0.1, 0.2, "Cat"),
    ]
    table(root / "metadata/validation/validation.tsv", EVENTS, rows)
    data = prepare_tiny(root, tmp_path / "out", selection="none")
    assert data.report["subsets"]["test"]["missing"] == 0
    events = data.events("test")
    assert set(events["filename"]) == {"day1/a", "day2/a", "b", "c", "Café", "d_30.000_40.000"}
    assert list(events.loc[events["filename"] == "day1/a", "event_label"]) == ["Cat", "Dog"]
    assert [clip.id for clip in data.manifests["unlabelled"]] == ["x/a"]


def test_recordings_whose_names_are_no_utf8_are_prepared(corpus, tmp_path):
    path = corpus / "audio/train/weak/w0.wav"
    try:
        path.rename(path.with_name(os.fsdecode(b"w\xe4.wav")))
    except OSError:
        pytest.skip("this file system has no such names")
    rows = corpus / "metadata/train/weak.tsv"
    rows.write_text(rows.read_text().replace("w0.wav", "wä.wav"))
    data = prepare_tiny(corpus, tmp_path / "out")
    assert data.report["subsets"]["weak"]["missing"] == 0
    again = prepare_tiny(corpus, tmp_path / "out")
    [clip] = [clip for clip in again.manifests["weak"] if clip.id == "wä"]
    assert len(read_clip(clip, 8000, 1.0)) == 8000


def test_of_two_recordings_of_one_name_the_ending_in_the_table_tells(corpus, tmp_path):
    noise(corpus / "audio/train/weak/w0.flac")
    assert prepare_tiny(corpus, tmp_path / "out").counts["weak"] == 4  # the table says w0.wav


@pytest.mark.parametrize("check", ["decode", "header"])
def test_a_recording_replaced_by_another_of_its_size_is_noticed(corpus, tmp_path, check):
    path = corpus / "audio/train/unlabel_in_domain/u1.wav"
    os.utime(path, (1e9, 1e9))
    first = prepare_tiny(corpus, tmp_path / "out", check=check)
    other = noise(tmp_path / "other.wav", seed=77).read_bytes()
    assert len(other) == path.stat().st_size
    path.write_bytes(other)
    second = prepare_tiny(corpus, tmp_path / "out", check=check)
    assert second.fingerprint != first.fingerprint
    contents = [{clip.id: clip.content for clip in data.manifests["unlabelled"]} for data in (first, second)]
    assert [name for name in contents[0] if contents[0][name] != contents[1][name]] == ["u1"]
    # Just written: its time says nothing yet, its content does.
    times = path.stat().st_mtime_ns
    path.write_bytes(noise(tmp_path / "third.wav", seed=78).read_bytes())
    os.utime(path, ns=(times, times))
    assert prepare_tiny(corpus, tmp_path / "out", check=check).fingerprint != second.fingerprint


def test_a_copy_of_the_corpus_with_other_times_is_the_same_corpus(corpus, tmp_path):
    first = prepare_tiny(corpus, tmp_path / "out")
    for path in corpus.rglob("*.wav"):
        os.utime(path, (1.1e9, 1.1e9))
    assert prepare_tiny(corpus, tmp_path / "out").fingerprint == first.fingerprint
    assert prepare_tiny(corpus, tmp_path / "new").fingerprint == first.fingerprint


def test_recordings_are_only_compared_again_where_their_time_has_changed(corpus, tmp_path, monkeypatch):
    for path in corpus.rglob("*.wav"):
        os.utime(path, (1e9, 1e9))
    prepare_tiny(corpus, tmp_path / "out")
    read: list[int] = []
    blake = recordings.hashlib.blake2b
    monkeypatch.setattr(recordings.hashlib, "blake2b", lambda **options: (read.append(1), blake(**options))[1])
    prepare_tiny(corpus, tmp_path / "out")
    assert read == []
    os.utime(corpus / "audio/train/weak/w1.wav", (1.2e9, 1.2e9))
    prepare_tiny(corpus, tmp_path / "out")
    assert len(read) == 1


def test_recordings_that_are_odd_but_whole_are_used_and_reported(corpus, tmp_path, caplog):
    path = corpus / "audio/train/unlabel_in_domain/u2.wav"
    content = path.read_bytes()
    path.write_bytes(content[:40] + bytes(4) + content[44:])  # an unfinished header
    with caplog.at_level(logging.WARNING):
        data = prepare_tiny(corpus, tmp_path / "out")
    assert (data.report["odd"], data.report["unreadable"]) == (1, 0)
    assert "1 recordings are odd but whole" in caplog.text
    assert {clip.id: clip.seconds for clip in data.manifests["unlabelled"]}["u2"] == 1.0
