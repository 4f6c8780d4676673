import argparse
import collections
import datetime
import os
import pathlib
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pmam_plugin.checkpoints.foreign import ImportReport, read_checkpoint, tensors_in, under
from pmam_plugin.errors import InputError
from pmam_plugin.weights import load_strictly


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_both_pickle_layouts_are_read(tmp_path, zipped):
    torch.save({"a": torch.arange(3.0)}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    torch.testing.assert_close(read_checkpoint(tmp_path / "x.pt"), {"a": torch.arange(3.0)})


def test_safetensors_are_read_too(tmp_path):
    save_file({"a": torch.arange(3.0)}, tmp_path / "x.safetensors")
    torch.testing.assert_close(read_checkpoint(tmp_path / "x.safetensors"), {"a": torch.arange(3.0)})


def test_what_lightning_pickles_beside_tensors_does_not_get_in_the_way(tmp_path):
    content = {
        "state_dict": collections.OrderedDict(a=torch.ones(2)),
        "hyper_parameters": argparse.Namespace(rate=0.1, folder=pathlib.Path("/x")),
        "callbacks": {"best": np.float64(0.5), "array": collections.defaultdict(dict)},
        "epoch": 3,
    }
    torch.save(content, tmp_path / "x.ckpt")
    read = read_checkpoint(tmp_path / "x.ckpt")
    torch.testing.assert_close(dict(read["state_dict"]), {"a": torch.ones(2)})
    assert read["epoch"] == 3


def test_lightnings_own_containers_are_read_without_lightning(tmp_path, monkeypatch):
    name = "pytorch_lightning.utilities.parsing"
    module, container = types.ModuleType(name), type("AttributeDict", (dict,), {"__module__": name})
    module.AttributeDict = container
    for package in ("pytorch_lightning", "pytorch_lightning.utilities"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setitem(sys.modules, name, module)
    torch.save({"state_dict": {"a": torch.ones(2)}, "hyper_parameters": container(rate=0.1)}, tmp_path / "x.ckpt")
    monkeypatch.undo()
    torch.testing.assert_close(read_checkpoint(tmp_path / "x.ckpt")["state_dict"], {"a": torch.ones(2)})


def _as_if_from(module: str, name: str, **attributes):
    """An object of a class that another package would define."""
    return type(name, (), {"__module__": module, **attributes})


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("omegaconf.dictconfig", "DictConfig"),
        ("omegaconf.base", "ContainerMetadata"),
        ("pathlib._local", "WindowsPath"),
        ("lightning.pytorch.callbacks.timer", "Timer"),
        ("ml_collections.config_dict", "ConfigDict"),
        ("yacs.config", "CfgNode"),
        ("packaging.version", "Version"),
    ],
)
def test_settings_and_paths_of_other_packages_and_systems_are_left_aside(tmp_path, monkeypatch, module, name):
    kind = _as_if_from(module, name)
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    setattr(sys.modules[module], name, kind)
    thing = kind()
    thing.content = {"rate": 0.1}
    torch.save({"state_dict": {"a": torch.ones(2)}, "config": thing}, tmp_path / "x.ckpt")
    monkeypatch.undo()
    torch.testing.assert_close(read_checkpoint(tmp_path / "x.ckpt")["state_dict"], {"a": torch.ones(2)})


def test_plain_objects_beside_tensors_do_not_get_in_the_way(tmp_path):
    things = {
        "windows": pathlib.PureWindowsPath("C:/x"),
        "version": torch.torch_version.TorchVersion("2.8.0"),
        "array": np.arange(6.0).reshape(2, 3),
        "scalar": np.float32(0.5),
        "when": datetime.datetime(2025, 1, 1),
        "settings": types.SimpleNamespace(rate=0.1),
    }
    torch.save({"model": {"a": torch.ones(2)}, **things}, tmp_path / "x.pt")
    torch.testing.assert_close(read_checkpoint(tmp_path / "x.pt")["model"], {"a": torch.ones(2)})


class _Malicious:
    def __reduce__(self):
        return (os.mkdir, (os.environ["PMAM_TEST_MARK"],))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch, zipped):
    monkeypatch.setenv("PMAM_TEST_MARK", str(tmp_path / "mark"))
    torch.save({"a": _Malicious()}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"x\.pt: its pickle names \w+\.mkdir, which is no data and is not run"):
        read_checkpoint(tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(pickle.dumps({"a": _Malicious()}))
    with pytest.raises(InputError, match=r"y\.pt"):
        read_checkpoint(tmp_path / "y.pt")
    assert not (tmp_path / "mark").exists()


def test_strict_loading_takes_every_tensor_and_no_other():
    module, source = nn.Linear(3, 2), nn.Linear(3, 2)
    load_strictly(module, source.state_dict(), "x.pt")
    torch.testing.assert_close(module.state_dict(), source.state_dict())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for tensors, message in (
        ({"weight": torch.ones(2, 3)}, r"x\.pt: lacks bias of Linear"),
        ({**before, "more": torch.ones(1)}, r"x\.pt: more does not belong"),
        ({**before, "bias": torch.ones(5)}, r"bias is float32 of shape \(5,\), Linear needs float32 of shape \(2,\)"),
    ):
        with pytest.raises(InputError, match=message):
            load_strictly(module, tensors, "x.pt")
    torch.testing.assert_close(module.state_dict(), before)


def test_named_buffers_may_be_missing():
    module = nn.BatchNorm1d(2)
    tensors = {name: torch.full_like(t, 2) for name, t in module.state_dict().items() if "num_batches" not in name}
    load_strictly(module, tensors, "x.pt", ignore=["num_batches_tracked$"])
    assert module.weight.tolist() == [2, 2]
    assert module.num_batches_tracked == 0


def test_helpers_pick_tensors_by_kind_and_prefix():
    content = {"a.x": torch.ones(1), "b.x": torch.zeros(1), "epoch": 3}
    assert set(tensors_in(content)) == {"a.x", "b.x"}
    assert set(under(tensors_in(content), "a.")) == {"x"}


def test_a_report_reads_as_one_line():
    report = ImportReport("x.pt", "bare", 3, {"a": "b"}, ("head",))
    assert str(report) == "x.pt (bare): 3 tensors loaded, 1 of them renamed, 1 skipped"
