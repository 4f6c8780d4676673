import os

import pytest

from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path, check_writable, read_json, write_json


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "x.json"
    write_json(target, {"a": 1})

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read_json(target) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"x\.json: cannot be written \(No space left on device\)"):
        write_json(tmp_path / "x.json", {})
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_written_is_found_before_the_work(tmp_path):
    check_writable(tmp_path / "new/x.json")
    assert os.listdir(tmp_path / "new") == []
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")  # stands for devices, which root could replace by files
    for write in (check_writable, lambda path: write_json(path, {})):
        for name, what in (("new", "a folder"), ("pipe", "no file")):
            with pytest.raises(InputError, match=f"{name}: is {what}; give the name of a file"):
                write(tmp_path / name)
        with pytest.raises(InputError, match=r"file/x\.json: cannot be written \(.*\); choose another folder"):
            write(tmp_path / "file/x.json")
