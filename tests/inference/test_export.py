"""ONNX scores are the model's, for any number of clips of any length."""

import json

import numpy as np
import pytest
import torch

from pmam_plugin.checkpoints import LoadedModel, load_model, save_model
from pmam_plugin.encoders import CNNEncoder, DualBranchEncoder, PaSSTEncoder, YAMNetEncoder, YAMNetPatches
from pmam_plugin.errors import InputError
from pmam_plugin.features import FrontEnds, PaSSTMel, YAMNetMel
from pmam_plugin.inference.export import export_onnx, shortest_samples
from pmam_plugin.inference.tracing import adaptive_average, stretched, unflatten
from pmam_plugin.models import AttentionHead, Backbone, FrameDetector, LinearSoftmaxHead
from pmam_plugin.nn.context import IdentityContext, RelativePositionTransformer
from pmam_plugin.postprocessing import PostProcessing, Scoring
from tests.sedt_models import tiny_sedt
from tests.upstream.models import (
    LABELS,
    atst_detector,
    beats_detector,
    ctrans_detector,
    dual_detector,
    frame_mn_detector,
    frame_passt_detector,
    noise,
    patch_detector,
    recurrent_detector,
)

pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def differences(model, path, lengths, options=None):
    """Largest differences of frame scores and of clip scores, for each (batch, seconds)."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, seconds in lengths:
        waveform = torch.stack([noise(seconds, seed, model.sample_rate) for seed in range(batch)])
        with torch.inference_mode():
            detection = model(model.frontend(waveform), **(options or {}))
        scores, clips = session.run(["scores", "clips"], {"waveform": waveform.numpy()})
        assert scores.shape == detection.frames.shape
        yield (
            np.abs(scores - detection.frames.numpy()).max(),
            np.abs(clips - model.clip_scores(detection).numpy()).max(),
        )


def yamnet_detector(encoder):
    backbone = Backbone(FrontEnds(mel=YAMNetMel()), encoder, IdentityContext(encoder.dim))
    return FrameDetector(backbone, LinearSoftmaxHead(encoder.dim, len(LABELS)), LABELS).eval()


def yamnet_whole():
    return yamnet_detector(YAMNetEncoder(8, {"layer_4": "mean", "layer_7": "mean_max"}, (4, 4, 8, 8, 8, 8, 8)))


def yamnet_patches():
    return yamnet_detector(YAMNetPatches(8, True, channels=(4, 4, 8, 8, 8, 8, 8)))


@pytest.mark.parametrize(
    "build",
    [
        patch_detector,
        dual_detector,
        recurrent_detector,
        atst_detector,
        ctrans_detector,
        yamnet_whole,
        yamnet_patches,
        beats_detector,
        lambda: beats_detector("mean"),
        frame_passt_detector,
        frame_mn_detector,
    ],
)
def test_scores_are_equal_for_clips_of_many_lengths(build, tmp_path):
    model = build()
    path = export_onnx(LoadedModel(model), tmp_path / "model.onnx")
    shortest = shortest_samples(model) / model.sample_rate
    lengths = [(1, 10.0), (3, 4.0), (1, shortest), (2, 3.337), (1, 14.5)]
    assert np.max(list(differences(model, path, lengths))) < 1e-5


def test_the_export_leaves_the_model_as_it_was(tmp_path):
    model = dual_detector()
    waveform = noise(1.0, sample_rate=32000)[None]
    before = model(model.frontend(waveform)).frames
    kinds = [type(module) for module in model.modules()]
    export_onnx(LoadedModel(model), tmp_path / "model.onnx")
    assert [type(module) for module in model.modules()] == kinds
    assert torch.equal(model(model.frontend(waveform)).frames, before)


def test_the_file_says_what_its_reader_needs(tmp_path):
    folder = save_model(
        tmp_path / "model",
        patch_detector(),
        Scoring(PostProcessing(median_seconds=0.2), temperature=0.5),
        {"seed": 3},
    )
    loaded = load_model(folder)
    path = export_onnx(loaded, tmp_path / "new" / "model.onnx")
    facts = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert json.loads(facts["labels"]) == list(LABELS)
    assert (facts["sample_rate"], facts["frame_rate"], facts["shortest_samples"]) == ("16000", "25.0", "8000")
    assert json.loads(facts["postprocessing"])["median_seconds"] == 0.2
    assert json.loads(facts["provenance"]) == {"seed": 3}
    # The temperature that the folder asks for is part of the graph.
    assert np.max(list(differences(loaded.model, path, [(1, 2.0)], {"temperature": 0.5}))) < 1e-5
    assert np.max(list(differences(loaded.model, path, [(1, 2.0)]))) > 1e-3


def test_models_of_sets_are_refused(tmp_path):
    with pytest.raises(InputError, match="SEDT predicts sets of intervals"):
        export_onnx(LoadedModel(tiny_sedt()), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


class CountingHead(AttentionHead):
    """Its scores depend on a length that a tracer takes for a constant."""

    def forward(self, frames, tokens=None, padding=None, temperature=1.0):
        return super().forward(frames / int(frames.shape[1]), tokens, padding, temperature)


def test_an_export_that_is_wrong_for_other_lengths_is_not_kept(tmp_path):
    model = recurrent_detector()
    model.head = CountingHead(8, 3).eval()
    with pytest.raises(InputError, match="scores differ"):
        export_onnx(LoadedModel(model), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [1, 7, 99, 100, 250])
def test_a_stretched_table_is_what_the_encoders_use(length):
    table = torch.randn(1, 4, 99)
    expected = table[..., :length]
    if length > 99:
        expected = torch.nn.functional.interpolate(table, size=length, mode="linear")
    torch.testing.assert_close(stretched(table, length), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("before", "after"), [(250, 156), (25, 15), (7, 7), (3, 8)])
def test_adaptive_average_is_torchs(before, after):
    frames = torch.randn(2, 4, before)
    expected = torch.nn.functional.adaptive_avg_pool1d(frames, after)
    torch.testing.assert_close(adaptive_average(frames, after), expected)


def test_unflatten_is_torchs():
    tensor = torch.randn(2, 12, 3)
    for dim in (1, -2):
        assert torch.equal(unflatten(tensor, dim, (3, 4)), tensor.unflatten(dim, (3, 4)))
    assert torch.equal(unflatten(tensor, 1, (2, -1)), tensor.unflatten(1, (2, -1)))


@pytest.mark.slow
def test_the_full_size_pmam_exports(tmp_path):
    torch.manual_seed(0)
    encoder = DualBranchEncoder(PaSSTEncoder(), CNNEncoder())
    backbone = Backbone(FrontEnds(mel=PaSSTMel()), encoder, RelativePositionTransformer())
    model = FrameDetector(backbone, LinearSoftmaxHead(384, 10, token_dim=768), list("abcdefghij")).eval()
    path = export_onnx(LoadedModel(model), tmp_path / "pmam.onnx")  # compares a clip of 10 s and two of 3.7 s itself
    assert np.max(list(differences(model, path, [(1, 1.3)]))) < 1e-4
