import pytest

from benchmarks import train_step


def test_tiny_run_prints_a_row_for_every_precision(capsys: pytest.CaptureFixture[str]) -> None:
    rows = train_step.main(["--tiny", "--batch", "1", "--seconds", "2", "--steps", "1", "--threads", "1"])
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
