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
    with pytest.raises(InputError, match=r"new: is a folder"):
        check_writable(tmp_path / "new")
    (tmp_path / "file").write_text("")
    for write in (check_writable, lambda path: write_json(path, {})):
        with pytest.raises(InputError, match=r"file/x\.json: cannot be written \(.*\); choose another folder"):
            write(tmp_path / "file/x.json")


def test_missing_and_broken_json_name_the_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json: not valid JSON"):
        read_json(tmp_path / "bad.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"deep\.json: not valid JSON"):
        read_json(tmp_path / "deep.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"bytes\.json: not valid JSON"):
        read_json(tmp_path / "bytes.json")
