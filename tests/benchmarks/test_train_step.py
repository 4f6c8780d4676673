import importlib.util
import sys

import pytest

from tests.support import ROOT


def test_tiny_run_prints_a_row_for_every_precision(capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("train_step", ROOT / "benchmarks" / "train_step.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_step"] = module
    spec.loader.exec_module(module)
    rows = module.main(["--tiny", "--batch", "1", "--seconds", "2", "--steps", "1", "--threads", "1"])
    assert [(row.what.split(",")[0], row.dtype) for row in rows] == [
        ("training step", "float32"),
        ("training step", "bfloat16"),
        ("window inference", "float32"),
        ("window inference", "bfloat16"),
    ]
    assert all(row.flops > 0 and row.seconds > 0 and row.share > 0 for row in rows)
    printed = capsys.readouterr().out
    assert "TFLOP/s" in printed
    assert printed.count("x\n") == 4
