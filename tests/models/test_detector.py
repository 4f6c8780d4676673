import pytest
import torch
from safetensors.torch import load_file

from pmam_plugin.checkpoints.transformer4sed import rename_keys
from pmam_plugin.config import from_config, to_config
from pmam_plugin.models import FrameDetector, LinearSoftmaxHead
from pmam_plugin.nn.context import RelativePositionTransformer
from tests.models.support import tiny_backbone, tiny_features
from tests.support import shared

LABELS = ("Cat", "Dog", "Speech")


def tiny_detector(tags: bool = True) -> FrameDetector:
    head = LinearSoftmaxHead(16, 3, token_dim=16 if tags else None, tag_heads=2)
    return FrameDetector(tiny_backbone(), head, LABELS).eval()


@torch.no_grad()
def test_context_and_detection_agree_with_the_reference() -> None:
    stored = load_file(shared("reference_outputs/pmam_components.safetensors"))
    weights = rename_keys({name[8:]: tensor for name, tensor in stored.items() if name.startswith("weights.")})
    context, head = RelativePositionTransformer(), LinearSoftmaxHead(384, 10)
    for module, prefix in ((context, "backbone.context."), (head, "head.")):
        module.load_state_dict({n[len(prefix) :]: t for n, t in weights.items() if n.startswith(prefix)})
    states = context.hidden_states(stored["context.input"])
    for number, state in enumerate(states):
        torch.testing.assert_close(state, stored[f"context.block{number}"], atol=1e-4, rtol=0)
    detection = head(states[-1])
    torch.testing.assert_close(detection.frames, stored["detection.frame_scores"].transpose(1, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(detection.clips, stored["detection.clip_scores"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_detection_has_the_stated_shapes() -> None:
    detector = tiny_detector()
    detection = detector(tiny_features())
    assert detection.frames.shape == (2, detector.output_frames(15900), 3) == (2, 25, 3)
    assert detection.clips.shape == (2, 3)
    assert detection.tags is not None
    assert detection.tags.shape == (2, 3)
    assert detection.embedding is not None
    assert detection.embedding.shape == (2, 25, 16)


@torch.no_grad()
def test_padding_scores_zero_and_does_not_count() -> None:
    detector, padding = tiny_detector(), torch.zeros(2, 25, dtype=torch.bool)
    padding[1, 10:] = True
    plain, padded = detector(tiny_features()), detector(tiny_features(), padding=padding)
    assert (padded.frames[1, 10:] == 0).all()
    torch.testing.assert_close(padded.frames[1, :10], plain.frames[1, :10])
    torch.testing.assert_close(padded.clips[0], plain.clips[0])
    assert not torch.allclose(padded.clips[1], plain.clips[1])


@torch.no_grad()
def test_temperature_sharpens_frames() -> None:
    detector = tiny_detector()
    plain, sharp = (detector(tiny_features(), temperature=t).frames.logit() for t in (1.0, 0.5))
    torch.testing.assert_close(sharp, 2 * plain, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_clip_scores_prefer_the_tag_branch() -> None:
    with_tags, without = tiny_detector(), tiny_detector(tags=False)
    detection = with_tags(tiny_features())
    assert with_tags.clip_scores(detection) is detection.tags
    detection = without(tiny_features())
    assert detection.tags is None
    assert without.clip_scores(detection) is detection.clips


@torch.no_grad()
def test_score_tables_follow_durations_and_labels() -> None:
    detector = tiny_detector()
    tables = detector.score_tables(detector(tiny_features()), [1.0, 0.5])
    assert [len(table) for table in tables] == [25, 13]
    assert list(tables[0].columns) == ["onset", "offset", *LABELS]
    assert tables[1].offset.iloc[-1] == 0.5


def test_starts_from_a_pretrained_backbone() -> None:
    detector, pretrained = tiny_detector(), tiny_backbone()
    with torch.no_grad():
        for parameter in pretrained.parameters():
            parameter.add_(0.1)
    head = {name: tensor.clone() for name, tensor in detector.head.state_dict().items()}
    detector.load_pretrained(pretrained.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(detector.backbone.parameters(), pretrained.parameters(), strict=True))
    assert all(torch.equal(tensor, head[name]) for name, tensor in detector.head.state_dict().items())


def test_labels_must_fit_the_head() -> None:
    with pytest.raises(ValueError, match="as many distinct labels"):
        FrameDetector(tiny_backbone(), LinearSoftmaxHead(16, 3), ["Cat", "Dog"])


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="no option 'window'"):
        tiny_detector()(tiny_features(), window=3)


def test_configuration_rebuilds_the_detector() -> None:
    detector = tiny_detector()
    rebuilt = from_config(to_config(detector))
    rebuilt.load_state_dict(detector.state_dict())
    assert rebuilt.labels == LABELS
