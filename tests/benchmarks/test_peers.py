import importlib.util
import sys

import pytest

from tests.support import ROOT

STANDIN = '''
import torch
from torch import nn
from tests.checkpoints.sedt_reference import Layout, sedt_forward


class Standin(nn.Module):
    """SEDT, written from its description."""

    def __init__(self):
        super().__init__()
        state = Layout(classes=10).sedt()
        self.state = {name: nn.Parameter(value, value.is_floating_point()) for name, value in state.items()}
        self.held = nn.ParameterList(self.state.values())

    def state_dict(self):
        return {name: value.detach() for name, value in self.state.items()}

    def forward(self, mel):
        clips = [sedt_forward(self.state, clip) for clip in mel]
        return torch.stack([clip["logits"] for clip in clips], 1), torch.stack([clip["boxes"] for clip in clips], 1)


def build():
    def call(model, features, windows):
        if windows:
            return None
        logits, boxes = model(features["mel"])
        return {"output.layer_logits": logits, "output.layer_boxes": boxes}

    return Standin(), call
'''


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("peers", ROOT / "benchmarks" / "peers.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "peers", module)
    spec.loader.exec_module(module)
    return module


def test_a_reference_is_timed_beside_ours_on_the_same_weights(peers, tmp_path, capsys):
    (tmp_path / "standin.py").write_text(STANDIN)
    command = ["--checkout", str(tmp_path), "--kind", "sedt", "--reference", "standin:build"]
    rows = peers.main([*command, "--batch", "1", "--repeats", "2"])
    assert [row.what for row in rows] == ["whole clip", "step, batch 1"]
    assert all(len(row.ours) == len(row.reference) == 2 and min(row.ours + row.reference) > 0 for row in rows)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("1 thread(s), float32")
    assert all(float(part.split()[-1]) < 1e-4 for part in printed[1].removeprefix("largest differences: ").split(","))
    assert printed[3].startswith("whole clip")


def test_the_interval_holds_the_ratio(peers):
    row = str(peers.Comparison("x", [1.0, 1.1, 0.9, 1.0], [2.0, 2.0, 2.0, 2.0], (10.0, 20.0)))
    assert row.split() == ["x", "1.000", "2.000", "0.50", "[0.45,", "0.55]", "10", "20"]
