"""What a clip is called, whoever writes its name."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from pmam_plugin.audio.names import clip_name, expand_pattern, find_audio, match_clips, relative_path
from pmam_plugin.errors import InputError

NFC, NFD = (unicodedata.normalize(form, "Café/Hähne") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("filename", "clip"),
    [
        ("a.wav", "a"),
        ("Yabc_30.000_40.000.wav", "Yabc_30.000_40.000"),
        ("Yabc_30.000_40.000", "Yabc_30.000_40.000"),
        ("weak_0001.OGG", "weak_0001"),
        ("a.w64", "a"),
        ("a.au", "a"),
        ("a.caf", "a"),
        ("a.m4a", "a"),
        ("a.mp4", "a"),
        ("day1/a.wav", "day1/a"),
        ("day1\\a.WAV", "day1/a"),
        ("./day1//a.wav", "day1/a"),
        (".\\day1\\.\\a.wav", "day1/a"),
        ("a.flac.wav", "a"),
        ("v1.2/a", "v1.2/a"),
        ("wav/a", "wav/a"),
        ("folder.wav/a.wav", "folder.wav/a"),
        (".wav", ".wav"),
        ("..wav", "..wav"),
        ("C:\\set\\a.wav", "C:/set/a"),
        (NFD + ".wav", NFC),
        (Path("x/b.aiff"), "x/b"),
        (os.fsdecode(b"caf\xe9.wav"), "café"),
        ("tab\there\n.wav", "tab_here_"),
    ],
)
def test_a_clip_has_one_name_however_it_is_written(filename, clip):
    assert clip_name(filename) == clip


@given(st.text("aé\u0301/\\.: wavflc", max_size=20))
def test_a_clip_name_is_its_own_name(text):
    assert clip_name(clip_name(text)) == clip_name(text)


def test_absolute_paths_count_from_the_folder_they_share():
    clips = ["day1/a", "day2/a", "b"]
    paths = ["/data/set/day1/a.wav", "/data/set/day2/a.wav", "/data/set/b.wav"]
    assert match_clips(paths, clips) == dict(zip(paths, clips))
    assert match_clips(["D:\\set\\day1\\a.wav", "b.wav"], clips) == {"D:\\set\\day1\\a.wav": "day1/a", "b.wav": "b"}

    assert match_clips(["day1/a.wav", "b"], ["/data/day1/a", "/data/day2/a", "/data/b"]) == {
        "day1/a.wav": "/data/day1/a",
        "b": "/data/b",
    }


def test_two_different_files_never_become_one_clip():
    paths = ["/data/day1/a.wav", "/data/day2/a.wav"]
    assert match_clips(paths, ["a"]) == {}
    assert match_clips(["day1/a.wav", "x"], ["a"]) == {}
    assert match_clips(["a", "b"], ["/day1/a", "/day2/a", "/day3/b"]) == {}


@pytest.mark.parametrize(
    "path", ["/elsewhere/a.wav", "../a.wav", "x\\..\\..\\a.wav", "C:\\a.wav", "C:", "", ".", "//host/a.wav"]
)
def test_paths_that_leave_their_folder_are_refused(tmp_path, path):
    with pytest.raises(InputError, match=r"table\.tsv: .* points outside of the audio folder; write a path inside it"):
        relative_path(path, "table.tsv", tmp_path)


def test_paths_within_the_folder_are_taken_from_there(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "set")
    (tmp_path / "set").mkdir()
    for path in (
        "day1/a.wav",
        "day1\\a.wav",
        "./day1/a.wav",
        f"{tmp_path}/set/day1/a.wav",
        f"{tmp_path}/link/day1//a.wav",
    ):
        assert relative_path(path, "t", tmp_path / "link") == "day1/a.wav"


def files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_hidden_and_system_files_are_no_recordings(tmp_path):
    files(tmp_path, "a.wav", "._a.wav", ".hidden/b.wav", "__MACOSX/c.wav", "x/.Trash-1000/files/d.wav", "notes.txt")
    files(tmp_path, "$RECYCLE.BIN/e.wav", "System Volume Information/f.wav", "@eaDir/g.wav", "x/B.W64", "x/v.m4a")
    assert list(find_audio(tmp_path)) == ["a.wav", "x/B.W64", "x/v.m4a"]
    assert [path.name for path in expand_pattern(f"{tmp_path}/**/*.wav")] == ["a.wav"]
    assert [path.name for path in expand_pattern(f"{tmp_path}/.*.wav")] == ["._a.wav"]


def test_sound_that_is_not_read_is_told_once_for_each_kind_unless_its_wav_lies_beside_it(tmp_path, caplog):
    files(tmp_path, "a.wav", "a.mp4", "b.MOV", "x/c.mkv", "d.wav.part", ".e.wav.icloud", "f.flac.gz", "g.DSS", "wav")
    assert list(find_audio(tmp_path)) == ["a.wav", "g.DSS"]
    cures = "wait for them, or fetch them again", "write their sound beside them, as with ffmpeg -i clip.mp4 clip.wav"
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: recordings that have not arrived wholly are passed over: 2, .e.wav.icloud for one; {cures[0]}",
        f"{tmp_path}: videos are passed over: 2, b.MOV for one; {cures[1]}",
        f"{tmp_path}: packed recordings are passed over: 1, f.flac.gz for one; unpack them",
    ]


def test_links_are_followed_once_and_links_to_nowhere_are_kept(tmp_path):
    files(tmp_path, "set/a.wav", "other/b.wav")
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")
    (tmp_path / "set/far").symlink_to(tmp_path / "other")
    (tmp_path / "set/gone.wav").symlink_to(tmp_path / "nowhere.wav")
    assert list(find_audio(tmp_path / "set")) == ["a.wav", "far/b.wav", "gone.wav"]


def test_a_pattern_finds_files_in_folders_whose_names_hold_brackets(tmp_path, monkeypatch):
    files(tmp_path, "take [2]/a.wav", "take [2]/b.flac", "take 2/c.wav", "take [2]/deep/d.wav", "e1.wav", "e2.wav")
    names = lambda pattern: [path.relative_to(tmp_path).as_posix() for path in expand_pattern(pattern)]  # noqa: E731
    assert names(f"{tmp_path}/take [2]/*.wav") == ["take [2]/a.wav"]
    assert names(f"{tmp_path}/*/a.wav") == ["take [2]/a.wav"]
    assert names(f"{tmp_path}/take [2]/**/*.wav") == ["take [2]/a.wav", "take [2]/deep/d.wav"]
    assert names(f"{tmp_path}/take [[]2]/?.wav") == ["take [2]/a.wav"]
    assert names(f"{tmp_path}/e[1-2].wav") == ["e1.wav", "e2.wav"]
    assert names(f"{tmp_path}/nothing/*.wav") == []
    monkeypatch.chdir(tmp_path)
    assert expand_pattern("take*/c.*") == [Path("take 2/c.wav")]


def test_a_pattern_matches_accents_in_either_form(tmp_path):
    files(tmp_path, NFD + "1.wav")
    assert len(expand_pattern(f"{tmp_path}/{NFC}*.wav")) == 1 or len(expand_pattern(f"{tmp_path}/*/*.wav")) == 1
