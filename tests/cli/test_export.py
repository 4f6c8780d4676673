"""``pmam export`` writes a file that onnxruntime reads."""

import pytest

from tests.support import run
from tests.upstream.models import write_folder

pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def test_a_model_folder_becomes_an_onnx_file(tmp_path, capsys):
    assert run("export", write_folder(tmp_path / "model"), "--onnx", tmp_path / "model.onnx") == 0
    assert "model.onnx: " in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [node.name for node in session.get_outputs()] == ["scores", "clips"]


def test_a_missing_model_ends_with_one_line(tmp_path, capsys):
    assert run("export", tmp_path / "absent", "--onnx", tmp_path / "model.onnx") == 1
    assert "no such model folder" in capsys.readouterr().err
    assert not (tmp_path / "model.onnx").exists()


def test_the_file_to_write_has_to_be_named(tmp_path, capsys):
    assert run("export", tmp_path) == 2


@pytest.mark.parametrize("verb", ["push", "pull", "export"])
def test_every_verb_has_help_with_an_example(verb, capsys):
    assert run(verb, "--help") == 0
    assert "Example: pmam" in capsys.readouterr().out
