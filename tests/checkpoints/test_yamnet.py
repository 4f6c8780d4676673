import itertools

import numpy as np
import pytest
import torch

from pmam_plugin import SoundEventDetector
from pmam_plugin.checkpoints import load_module, save_model
from pmam_plugin.checkpoints.yamnet import import_detector, import_yamnet, load_yamnet
from pmam_plugin.encoders.yamnet import CHANNELS, YAMNetEncoder
from tests.support import run, shared

h5py = pytest.importorskip("h5py", reason="h5py is not installed")


def write_keras(folder):
    """``yamnet.h5`` of random weights in the published layout, and a class map beside it."""
    random = np.random.default_rng(0)
    layers = {"layer1/conv": ("kernel", (3, 3, 1, 32))}
    for number, (inputs, outputs) in enumerate(itertools.pairwise(CHANNELS), start=2):
        layers[f"layer{number}/depthwise_conv"] = ("depthwise_kernel", (3, 3, inputs, 1))
        layers[f"layer{number}/pointwise_conv"] = ("kernel", (1, 1, inputs, outputs))
    with h5py.File(folder / "yamnet.h5", "w") as file:
        for layer, (kind, shape) in layers.items():
            width = shape[2] if kind == "depthwise_kernel" else shape[3]
            weights = {kind: 0.1 * random.standard_normal(shape), "beta": np.zeros(width)}
            weights |= {"moving_mean": np.zeros(width), "moving_variance": np.ones(width)}
            for name in (layer, f"{layer}/bn"):
                own = {f"{name}/{w}:0": v for w, v in weights.items() if (w == kind) == (name == layer)}
                for weight, value in own.items():
                    file.require_group(name).create_dataset(weight, data=value.astype(np.float32))
                file[name].attrs["weight_names"] = [weight.encode() for weight in own]
        file.require_group("dense").create_dataset("dense/kernel:0", data=np.zeros((1024, 521), np.float32))
        file["dense"].create_dataset("dense/bias:0", data=np.zeros(521, np.float32))
        file["dense"].attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        names = [name for layer in layers for name in (layer, f"{layer}/bn")]
        file.attrs["layer_names"] = [name.encode() for name in (*names, "activation", "dense")]
        file.require_group("activation").attrs["weight_names"] = np.zeros(0, "S1")
    rows = [f'{index},/m/{index},"Sound, {index}"' for index in range(521)]
    (folder / "yamnet_class_map.csv").write_text("\n".join(["index,mid,display_name", *rows]))


def test_a_layout_without_the_published_weights_is_read_too(tmp_path):
    write_keras(tmp_path)
    detector, report = import_detector(tmp_path / "yamnet.h5")
    assert (report.loaded, report.skipped, detector.labels[520]) == (56, (), "Sound, 520")


@pytest.fixture(scope="module")
def published():
    return shared("yamnet/yamnet.h5")


@torch.inference_mode()
@pytest.mark.parametrize("clip", ["noise_wav0", "noise_wav1", "noise_wav2", "noise_wav3", "wav0", "wav3"])
def test_embeddings_and_scores_are_those_of_the_published_model(published, clip):
    detector, report = import_detector(published, hop=48, centred=False)
    assert report.loaded == 56
    outputs = np.load(shared("yamnet/outputs.npz"))
    detection = detector(detector.frontend(torch.from_numpy(outputs[clip])[None]))
    embeddings = outputs[clip.replace("noise_wav", "noise_embeddings").replace("wav", "emb")]
    np.testing.assert_allclose(detection.embedding[0], embeddings, atol=1e-4)
    np.testing.assert_allclose(detection.frames[0], outputs[clip.replace("wav", "scores")], atol=1e-4)


def test_the_imported_detector_answers_in_audioset_classes(published, tmp_path, capsys):
    assert run("import-checkpoint", "--kind", "yamnet", published, tmp_path / "out", "--detector") == 0
    assert "56 tensors loaded" in capsys.readouterr().out
    detector = SoundEventDetector.from_pretrained(tmp_path / "out")
    assert (len(detector.labels), detector.labels[0], detector.frame_rate) == (521, "Speech", 12.5)
    outputs = np.load(shared("yamnet/outputs.npz"))
    scores = detector.scores(outputs["wav3"], sample_rate=16000)
    assert len(scores) == 125
    # Frame 12 (0.96 s to 1.04 s) hears about what the published patch from 0.48 s on hears.
    np.testing.assert_allclose(scores.iloc[12, 2:].to_numpy(float), outputs["scores3"][1], atol=0.1)
    events = detector.detect(outputs["wav3"], sample_rate=16000)
    assert set(events.event_label) <= set(detector.labels)
    assert len(events)


def test_the_encoder_serves_from_its_folder_as_from_the_file(published, tmp_path, capsys):
    assert run("import-checkpoint", "--kind", "yamnet", published, tmp_path / "out") == 0
    encoder, report = import_yamnet(published)
    assert (report.loaded, len(report.skipped)) == (54, 2)
    torch.testing.assert_close(dict(load_module(tmp_path / "out").model.state_dict()), dict(encoder.state_dict()))
    shallow = YAMNetEncoder(4, {"layer_12": "mean_max"}, CHANNELS[:12])
    assert len(load_yamnet(shallow, tmp_path / "out").skipped) == 8
    torch.testing.assert_close(shallow.network.conv.weight, encoder.network.conv.weight)
    save_model(tmp_path / "half", encoder, half=True)
    assert (tmp_path / "half" / "model.safetensors").stat().st_size < 7e6
