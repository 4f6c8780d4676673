"""bfloat16 only where it is fast, and whoever insists on it elsewhere is told what it costs."""

import logging
import subprocess
import sys

import pytest
import torch

from pmam_plugin.errors import InputError
from pmam_plugin.nn import precision
from pmam_plugin.nn.precision import choose_precision
from pmam_plugin.stages import RunContext
from tests.support import ROOT


@pytest.fixture
def plain(monkeypatch):
    """A CPU without bfloat16 units."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")


@pytest.fixture
def fast(monkeypatch):
    """A CPU with them."""
    monkeypatch.setattr(precision, "bfloat16_units", lambda device: "AMX")


def test_auto_is_float32_without_units_and_says_why(plain):
    chosen = choose_precision("auto", "cpu")
    assert (chosen.format, chosen.short, chosen.warning) == ("float32", "fp32", "")
    assert str(chosen) == "float32 (auto: no bfloat16 units in this CPU)"


def test_auto_is_bfloat16_where_it_is_fast(fast):
    chosen = choose_precision("auto", "cpu")
    assert (chosen.format, chosen.short) == ("bfloat16", "bf16")
    assert "AMX" in str(chosen)
    with chosen.autocast(torch.device("cpu"))():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["bf16", "bfloat16"])
def test_bfloat16_without_units_warns_with_the_factor_measured_here(plain, name, monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_cost", lambda: 390.4)
    chosen = choose_precision(name, "cpu")
    assert chosen.format == "bfloat16"
    assert chosen.warning == (
        f"precision {name}: this CPU has no bfloat16 units; a matrix product takes 390 times as long as in float32; "
        "use auto"
    )


def test_the_factor_is_a_ratio_of_times():
    assert precision.bfloat16_cost(size=16) > 0


def test_formats_a_device_cannot_compute_in_are_refused():
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        choose_precision("fp16", "cpu")
    with pytest.raises(InputError, match="'half' is unknown; choose from auto, "):
        choose_precision("half", "cpu")


def test_a_run_resolves_it_once_tells_the_reason_and_keeps_both(plain, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        context = RunContext(tmp_path, 1, {"device": "cpu", "precision": "auto"})
    assert context.run_opts["precision"] == "fp32"
    assert context.precision.asked == "auto"
    assert "precision: float32 (auto: no bfloat16 units in this CPU)" in caplog.messages


WATCH = """
import os, runpy, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch is imported with", os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
            sys.meta_path.remove(self)
sys.meta_path.insert(0, Watch())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("script", ["recipes/DESED/train.py", "pmam_plugin/upstream/__main__.py"])
def test_waiting_threads_are_told_to_sleep_soon_before_torch_is_imported(script, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    done = subprocess.run(
        [sys.executable, "-c", WATCH, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "torch is imported with passive 1000" in done.stdout, done.stderr[-2000:]
