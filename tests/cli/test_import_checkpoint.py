import json

import pytest
import torch

from pmam_plugin.checkpoints import load_model, load_module
from pmam_plugin.encoders.atst import ATSTFrame
from tests.checkpoints.test_atst import prefixed, sed_tensors
from tests.official_passt import OfficialPaSST
from tests.support import run


def test_an_atst_frame_encoder_becomes_a_folder(tmp_path, capsys):
    encoder = ATSTFrame(dim=64, depth=1, heads=1)
    torch.save({"state_dict": prefixed("encoder.encoder.", encoder.state_dict())}, tmp_path / "x.ckpt")
    assert run("import-checkpoint", "--kind", "atst-frame", tmp_path / "x.ckpt", tmp_path / "out") == 0
    assert "17 tensors loaded" in capsys.readouterr().out
    torch.testing.assert_close(dict(load_module(tmp_path / "out").model.state_dict()), dict(encoder.state_dict()))
    provenance = json.loads((tmp_path / "out" / "config.json").read_text())["provenance"]
    assert provenance["imported_from"] == "x.ckpt"
    assert len(provenance["sha256"]) == 64


def test_a_passt_becomes_a_folder(tmp_path):
    torch.save(dict(OfficialPaSST(depth=1, dim=64, heads=1).state_dict()), tmp_path / "x.pt")
    assert run("import-checkpoint", "--kind", "passt", tmp_path / "x.pt", tmp_path / "out", "--half") == 0
    assert load_module(tmp_path / "out").config["architecture"] == "PaSSTEncoder"


def test_an_atst_sed_becomes_a_detector_with_its_filter(tmp_path):
    torch.save({"sed_teacher": sed_tensors(), "sed_student": sed_tensors(0.5)}, tmp_path / "x.ckpt")
    command = ["import-checkpoint", "--kind", "atst-sed", tmp_path / "x.ckpt"]
    assert run(*command, tmp_path / "teacher") == 0
    assert run(*command, tmp_path / "student", "--network", "student") == 0
    teacher, student = load_model(tmp_path / "teacher"), load_model(tmp_path / "student")
    torch.testing.assert_close(student.model.head.classifier.weight, teacher.model.head.classifier.weight / 2)
    assert teacher.scoring.postprocessing.median_seconds["Blender"] == pytest.approx(20 * 0.064)


def test_own_labels_come_without_the_published_filter(tmp_path):
    torch.save(sed_tensors(), tmp_path / "x.ckpt")
    labels = ",".join("abcdefghij")
    command = ["import-checkpoint", "--kind", "atst-sed", tmp_path / "x.ckpt", tmp_path / "out", "--labels", labels]
    assert run(*command) == 0
    loaded = load_model(tmp_path / "out")
    assert loaded.model.labels == tuple("abcdefghij")
    assert loaded.scoring.postprocessing.median_seconds == 0.0


@pytest.mark.parametrize(
    "options",
    [
        ["--kind", "passt", "--labels", "a,b"],
        ["--kind", "passt", "--network", "teacher"],
        ["--kind", "atst-sed", "--statistics", "x.json"],
        ["--kind", "nonsense"],
        [],
    ],
)
def test_options_that_do_not_belong_are_wrong_usage(tmp_path, options):
    torch.save({"weight": torch.ones(3)}, tmp_path / "x.pt")
    assert run("import-checkpoint", *options, tmp_path / "x.pt", tmp_path / "out") == 2
