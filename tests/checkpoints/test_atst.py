import collections
import itertools

import pytest
import torch
from safetensors.torch import load_file

from pmam_plugin.checkpoints import load_model, load_module, save_model
from pmam_plugin.checkpoints.atst import import_atst_frame, import_atst_sed, load_atst_frame
from pmam_plugin.encoders.atst import ATSTFrame
from pmam_plugin.errors import InputError
from tests.checkpoints.beats_files import prefixed
from tests.encoders.test_atst import published_tensors
from tests.support import shared

SMALL = {"dim": 128, "depth": 2, "heads": 2}


@pytest.fixture(scope="module")
def encoder() -> ATSTFrame:
    torch.manual_seed(0)
    return ATSTFrame(**SMALL).eval()


def heads(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": torch.ones(2) for name in ("0.weight", "1.weight", "1.running_mean", "3.weight")}


def layouts(encoder: ATSTFrame) -> dict[str, dict]:
    bare = dict(encoder.state_dict())
    other = {name: tensor + 1 for name, tensor in bare.items()}
    old = {name.replace("norm_frame.", "norm."): tensor for name, tensor in bare.items()}
    old["cls_token"] = torch.zeros(1, 1, 128)
    self_supervised = {
        **prefixed("model.student.encoder.", other),
        **prefixed("model.teacher.encoder.", bare),
        **heads("model.student.projector."),
        **heads("model.teacher.projector."),
        **heads("model.student.predictor."),
    }
    sed = {
        **prefixed("sed_student.atst_frame.atst.", other),
        **prefixed(
            "sed_teacher.atst_frame.atst.",
            {**bare, "total_ops": torch.zeros(1), "norm_frame.total_params": torch.ones(1)},
        ),
        "sed_teacher.dense.weight": torch.ones(10, 256),
        "mel_spec.mel_scale.fb": torch.ones(3),
    }
    return {
        "bare": bare,
        "self-supervised": {"state_dict": self_supervised, "epoch": 1, "hyper_parameters": {"lr": 0.1}},
        "old self-supervised": {"state_dict": prefixed("model.teacher.encoder.", old)},
        "tuned": {"state_dict": {**prefixed("encoder.encoder.", bare), "head.linear.weight": torch.ones(527, 128)}},
        "C2F": {
            "state_dict": {
                **prefixed("encoder.encoder.frame_encoder.", bare),
                **prefixed("encoder.encoder.teacher_module.", other),
            }
        },
        "PretrainedSED": {**prefixed("model.atst.", bare), "strong_head.weight": torch.ones(447, 128)},
        "ATST-SED": {"state_dict": sed},
        "ATST-SED, flat": {**prefixed("atst_frame.atst.", bare), "dense.weight": torch.ones(10, 256)},
    }


NAMES = [
    "bare",
    "self-supervised",
    "old self-supervised",
    "tuned",
    "C2F",
    "PretrainedSED",
    "ATST-SED",
    "ATST-SED, flat",
]


@pytest.mark.parametrize("layout", NAMES)
def test_every_published_layout_gives_the_same_encoder(encoder, tmp_path, layout):
    content = layouts(encoder)[layout]
    torch.save(content, tmp_path / "x.ckpt")
    found, report = import_atst_frame(tmp_path / "x.ckpt")
    torch.testing.assert_close(dict(found.state_dict()), dict(encoder.state_dict()))
    features = {"atst": torch.randn(1, 64, 100)}
    torch.testing.assert_close(found.eval()(features).frames, encoder(features).frames)
    assert report.loaded == 2 * 11 + 6
    stored = content.get("state_dict", content)
    assert report.loaded + len(report.skipped) == len(stored)
    assert set(report.renamed) <= set(stored)
    twin = ATSTFrame(**SMALL)
    load_atst_frame(twin, tmp_path / "x.ckpt")
    torch.testing.assert_close(dict(twin.state_dict()), dict(encoder.state_dict()))


def test_an_imported_folder_loads_into_an_encoder(encoder, tmp_path):
    save_model(tmp_path, encoder)
    twin = ATSTFrame(**SMALL)
    assert load_atst_frame(twin, tmp_path).loaded == 28
    torch.testing.assert_close(dict(twin.state_dict()), dict(load_module(tmp_path).model.state_dict()))


def sed_tensors(scale: float = 1.0, full: bool = False) -> dict[str, torch.Tensor]:
    """Random tensors under ATST-SED's published names; the encoder is small unless ``full``."""
    torch.manual_seed(1)
    if full:
        encoder = {name: torch.zeros(shape) for name, shape in published_tensors().items()}
    else:
        encoder = dict(ATSTFrame(**SMALL).state_dict())
    dim = encoder["norm_frame.weight"].shape[0]
    tensors = prefixed("atst_frame.atst.", encoder)
    channels = [1, 16, 32, 64, 128, 128, 128, 128]
    for i, (before, after) in enumerate(itertools.pairwise(channels)):
        tensors[f"cnn.cnn.conv{i}.weight"] = torch.randn(after, before, 3, 3)
        tensors[f"cnn.cnn.cg{i}.linear.weight"] = torch.randn(after, after)
        for name in (f"conv{i}.bias", f"batchnorm{i}.weight", f"batchnorm{i}.bias", f"cg{i}.linear.bias"):
            tensors[f"cnn.cnn.{name}"] = torch.randn(after)
        tensors[f"cnn.cnn.batchnorm{i}.running_mean"] = torch.randn(after)
        tensors[f"cnn.cnn.batchnorm{i}.running_var"] = torch.rand(after) + 0.5
        tensors[f"cnn.cnn.batchnorm{i}.num_batches_tracked"] = torch.tensor(7)
    tensors |= prefixed("rnn.rnn.", torch.nn.GRU(128, 128, 2, batch_first=True, bidirectional=True).state_dict())
    for name, shape in {"cat_tf": (128, 128 + dim), "dense": (10, 256), "dense_softmax": (10, 256)}.items():
        tensors |= {f"{name}.weight": torch.randn(shape), f"{name}.bias": torch.randn(shape[0])}
    return {name: tensor * scale if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def test_the_full_model_has_223_tensors():
    assert len(sed_tensors(full=True)) == 223


@pytest.mark.parametrize("student", [False, True])
@pytest.mark.parametrize("layout", ["state_dict", "top-level", "flat"])
def test_a_detector_is_imported_from_every_place_it_may_lie_in(tmp_path, student, layout):
    chosen, other = sed_tensors(), sed_tensors(0.5)
    mine, theirs = ("sed_student", "sed_teacher") if student else ("sed_teacher", "sed_student")
    content = {
        "state_dict": {
            "state_dict": collections.OrderedDict(
                {
                    **prefixed(f"{theirs}.", other),
                    **prefixed(f"{mine}.", chosen),
                    "mel_spec.spectrogram.window": torch.ones(3),
                }
            ),
            "hyper_parameters": {"net": {"n_class": 10}},
        },
        "top-level": {mine: collections.OrderedDict(chosen), theirs: other, "state_dict": {"mel": torch.ones(2)}},
        "flat": {**chosen, "cnn.total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
    }[layout]
    torch.save(content, tmp_path / "x.ckpt")
    model, report = import_atst_sed(tmp_path / "x.ckpt", student=student)
    assert report.loaded == len(chosen) == len(model.state_dict())
    for old, new in report.renamed.items():
        torch.testing.assert_close(model.state_dict()[new], chosen[old])
    assert model.labels[0] == "Alarm_bell_ringing"
    save_model(tmp_path / "model", model)
    loaded = load_model(tmp_path / "model").model
    with torch.inference_mode():
        assert loaded(loaded.frontend(torch.randn(1, 16_000))).frames.shape == (1, 15, 10)


def test_imported_weights_reproduce_the_reference(tmp_path):
    """From the CRNN's features and the encoder's tokens to strong and weak scores, by the importer's own renaming."""
    reference = load_file(shared("reference_outputs/atst_sed_components.safetensors"))
    tensors = {name.removeprefix("weights."): t for name, t in reference.items() if name.startswith("weights.")}
    tensors |= {f"cnn.cnn.batchnorm{index}.num_batches_tracked": torch.tensor(1) for index in range(7)}
    tensors |= prefixed("atst_frame.atst.", ATSTFrame(depth=1).state_dict())
    torch.save({"sed_teacher": tensors}, tmp_path / "x.ckpt")
    model, _ = import_atst_sed(tmp_path / "x.ckpt")
    backbone = model.eval().backbone
    with torch.inference_mode():
        local = backbone.encoder.cnn({"crnn": reference["frontend.crnn_scaled"]}).frames
        merged = backbone.encoder.fuse(local, reference["atst_tokens"].transpose(1, 2))
        detection = model.head(backbone.context(merged))
    torch.testing.assert_close(merged, reference["merge"], atol=1e-4, rtol=0)
    torch.testing.assert_close(detection.embedding, reference["rnn"], atol=1e-4, rtol=0)
    torch.testing.assert_close(detection.frames.transpose(1, 2), reference["strong"], atol=1e-4, rtol=0)
    torch.testing.assert_close(detection.clips, reference["weak"], atol=1e-4, rtol=0)


def test_own_classes_need_their_names(tmp_path):
    tensors = sed_tensors()
    for name in ("dense", "dense_softmax"):
        tensors |= {f"{name}.weight": torch.ones(3, 256), f"{name}.bias": torch.ones(3)}
    torch.save(tensors, tmp_path / "x.ckpt")
    model, _ = import_atst_sed(tmp_path / "x.ckpt", labels=["a", "b", "c"])
    assert model.labels == ("a", "b", "c")
    with pytest.raises(InputError, match="3 classes but 10 labels"):
        import_atst_sed(tmp_path / "x.ckpt")
