import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import load_file

from pmam_plugin.encoders.atst_sed import ATSTSEDEncoder, dcase_cnn
from pmam_plugin.features import ATSTMel, CRNNMel, FrontEnds
from pmam_plugin.models import AttentionHead
from pmam_plugin.models.backbone import Backbone
from pmam_plugin.models.detector import FrameDetector
from pmam_plugin.nn.context import RecurrentContext
from tests.support import shared

LABELS = [f"class_{index}" for index in range(10)]


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    return load_file(shared("reference_outputs/atst_sed_components.safetensors"))


def test_context_and_head_reproduce_the_reference(reference):
    context, head = RecurrentContext(128, 128).eval(), AttentionHead(256, 10).eval()
    weights = {name.removeprefix("weights."): tensor for name, tensor in reference.items()}
    context.gru.load_state_dict({n.removeprefix("rnn.rnn."): t for n, t in weights.items() if n.startswith("rnn.rnn.")})
    head.load_state_dict(
        {f"classifier.{kind}": weights[f"dense.{kind}"] for kind in ("weight", "bias")}
        | {f"attention.{kind}": weights[f"dense_softmax.{kind}"] for kind in ("weight", "bias")}
    )
    with torch.inference_mode():
        frames = context(reference["merge"])
        detection = head(reference["rnn"])
    torch.testing.assert_close(frames, reference["rnn"], atol=1e-4, rtol=0)
    torch.testing.assert_close(detection.frames.transpose(1, 2), reference["strong"], atol=1e-4, rtol=0)
    torch.testing.assert_close(detection.clips, reference["weak"], atol=1e-4, rtol=0)


def test_the_full_models_have_the_published_sizes():
    front_ends = FrontEnds(crnn=CRNNMel()), FrontEnds(crnn=CRNNMel(), atst=ATSTMel())
    with torch.device("meta"):
        crnn, atst_sed = _crnn(front_ends[0]), _atst_sed(front_ends[1])
    assert sum(parameter.numel() for parameter in crnn.parameters()) == 1_112_420
    assert sum(parameter.numel() for parameter in atst_sed.parameters()) == 86_646_500
    for model in (crnn, atst_sed):
        assert (model.sample_rate, model.frame_rate, model.output_frames(160_000)) == (16_000, 15.625, 156)


@pytest.mark.slow
def test_the_full_model_scores_a_clip():
    torch.manual_seed(0)
    model = _atst_sed(FrontEnds(crnn=CRNNMel(), atst=ATSTMel())).eval()
    with torch.inference_mode():
        detection = model(model.frontend(torch.randn(1, 160_000)))
    assert detection.frames.shape == (1, 156, 10)
    assert detection.embedding.shape == (1, 156, 256)
    table = model.score_tables(detection, [10.0])[0]
    assert (len(table), table.offset.iloc[-1]) == (157, 10.0)


@given(st.integers(0, 2**31 - 1), st.integers(1, 8))
def test_clip_scores_lie_between_the_smallest_and_the_largest_frame_score(seed, valid):
    torch.manual_seed(seed)
    head = AttentionHead(6, 3).eval()
    padding = (torch.arange(8) >= valid).expand(2, 8)
    detection = head(torch.randn(2, 8, 6), padding=padding)
    heard = detection.frames[:, :valid]
    assert (detection.clips <= heard.amax(dim=1) + 1e-6).all()
    assert (detection.clips >= heard.amin(dim=1) - 1e-6).all()
    assert detection.frames[:, valid:].abs().sum() == 0


def test_padding_does_not_change_the_clip_scores():
    torch.manual_seed(0)
    head, frames = AttentionHead(6, 3).eval(), torch.randn(2, 8, 6)
    padding = (torch.arange(8) >= 5).expand(2, 8)
    torch.testing.assert_close(head(frames, padding=padding).clips, head(frames[:, :5]).clips)
    silent = head(frames, padding=torch.ones(2, 8, dtype=torch.bool))
    assert silent.clips.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_low_temperature_sharpens():
    torch.manual_seed(0)
    head, frames = AttentionHead(6, 3).eval(), torch.randn(2, 8, 6)
    plain, sharp = head(frames).frames, head(frames, temperature=0.5).frames
    assert ((sharp - 0.5).abs() >= (plain - 0.5).abs()).all()
    assert torch.equal(sharp > 0.5, plain > 0.5)


def test_the_embedding_is_taken_before_the_dropout():
    head, frames = AttentionHead(6, 3, dropout=0.9).train(), torch.randn(2, 8, 6)
    assert head(frames).embedding is frames


def _crnn(front_ends: FrontEnds) -> FrameDetector:
    return FrameDetector(Backbone(front_ends, dcase_cnn(), RecurrentContext(128, 128)), AttentionHead(256, 10), LABELS)


def _atst_sed(front_ends: FrontEnds) -> FrameDetector:
    backbone = Backbone(front_ends, ATSTSEDEncoder(), RecurrentContext(128, 128))
    return FrameDetector(backbone, AttentionHead(256, 10), LABELS)
