"""SEDT and its pre-training on frame encoders instead of a ResNet."""

import pytest
import torch

from pmam_plugin.config import from_config, to_config
from pmam_plugin.encoders import (
    ATSTFrame,
    BEATsEncoder,
    FrameMobileNetEncoder,
    FrozenEncoder,
    PatchEncoder,
    SetBackbone,
    YAMNetEncoder,
)
from pmam_plugin.features import ATSTMel, FrontEnds, KaldiMel, LogMel, MobileNetMel, YAMNetMel
from pmam_plugin.models import SEDT, SPSEDT, AudioTagger, PatchSampler
from pmam_plugin.nn.query_decoder import SetNetwork
from pmam_plugin.stages import PretrainPatches
from tests.sedt_models import LABELS

SIZES = {"dim": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 2, "feedforward": 32}


def patch():
    return LogMel(), PatchEncoder(dim=16, depth=1, heads=2)


def yamnet():
    encoder = YAMNetEncoder(8, {"layer_5": "mean_max"}, (4, 4, 8, 8, 8))
    return YAMNetMel(), FrozenEncoder(encoder, 16)


def atst():
    return ATSTMel(), ATSTFrame(dim=16, depth=1, heads=2, feature="mel")


def beats():
    return KaldiMel(), BEATsEncoder(depth=1, dim=16, heads=2, patch_dim=8, position_kernel=8, position_groups=2)


def frame_mn():
    return MobileNetMel(), FrameMobileNetEncoder(0.1)


@pytest.fixture(params=[patch, yamnet, atst, beats, frame_mn])
def sedt(request):
    torch.manual_seed(0)
    mel, encoder = request.param()
    network = SetNetwork(SetBackbone(encoder), queries=6, **SIZES)
    return SEDT(FrontEnds(mel=mel), network, LABELS, clip_seconds=4.0).eval()


@torch.no_grad()
@pytest.mark.parametrize("seconds", [0.5, 4.0, 5.1])
def test_clips_of_any_length_give_sets_and_scores(sedt, seconds):
    waves = 0.1 * torch.randn(2, round(seconds * 16000), generator=torch.Generator().manual_seed(1))
    detection = sedt(sedt.frontend(waves))
    assert detection.output.boxes.shape == (2, 6, 2)
    assert detection.frames.shape == (2, sedt.output_frames(waves.shape[1]), 3)
    tables = sedt.score_tables(detection, [seconds, seconds])
    assert tables[0]["offset"].iloc[-1] == pytest.approx(seconds)


@torch.no_grad()
def test_a_padded_clip_is_the_clip(sedt):
    wave = 0.1 * torch.randn(1, 40000, generator=torch.Generator().manual_seed(2))
    padded = torch.nn.functional.pad(wave, (0, 24000))
    frames = sedt.output_frames(64000)
    hidden = torch.arange(frames)[None] >= sedt.output_frames(40000)
    alone = sedt(sedt.frontend(padded), padding=hidden).output.boxes
    louder = padded.clone()
    louder[:, 48000:] = 0.5  # what lies in padding is masked, but for the reach of the encoder
    beside = sedt(sedt.frontend(torch.cat([padded, louder])), padding=hidden.expand(2, -1)).output.boxes
    torch.testing.assert_close(beside[:1], alone, rtol=1e-4, atol=1e-5)


def test_tagging_and_finding_patches_teach_what_may_learn(sedt):
    features = sedt.frontend(0.1 * torch.randn(2, 64000))
    backbone = sedt.network.backbone
    learning = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    tagger = AudioTagger(sedt.frontend, backbone, LABELS)
    tagger(features).sum().backward()
    assert {name for name, parameter in backbone.named_parameters() if parameter.grad is not None} <= learning
    pretext = SPSEDT(sedt.frontend, sedt.network, PatchSampler(patches=3), patch_frames=32, clip_seconds=4.0)
    finding = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    new = isinstance(backbone.encoder, FrozenEncoder)  # its projection was drawn at random: nothing in it to keep
    assert finding == ({"encoder.projection.weight", "encoder.projection.bias"} if new else set())
    assert pretext.train().network.backbone.training == new
    backbone.zero_grad()
    result = pretext(features)
    assert not result.targets.features.requires_grad
    result.output.boxes.sum().backward()
    assert {name for name, parameter in backbone.named_parameters() if parameter.grad is not None} == finding
    backbone.thaw()
    assert {name for name, parameter in backbone.named_parameters() if parameter.requires_grad} == learning


@torch.no_grad()
def test_pooled_patches_are_found_in_stored_embeddings_as_in_the_sound():
    torch.manual_seed(0)
    mel, encoder = yamnet()
    network = SetNetwork(SetBackbone(encoder), queries=6, anchors=True, pointed_edges=True, **SIZES)
    frontend = FrontEnds(mel=mel)
    pretext = SPSEDT(frontend, network, PatchSampler(patches=3), clip_seconds=4.0, pooled_patches=True).eval()
    features = frontend(0.1 * torch.randn(2, 64000))
    bounds = torch.tensor([[[0, 40], [100, 300], [56, 64]]]).expand(2, -1, -1)
    stored = {"embeddings": encoder.encoder(features, tokens=False).frames.transpose(1, 2)}
    heard, read = pretext(features, bounds=bounds), pretext(stored, bounds=bounds)
    torch.testing.assert_close(read.output.boxes, heard.output.boxes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(read.targets.features, heard.targets.features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(read.targets.boxes[0, 1], torch.tensor([0.5, 0.5]), atol=0.01, rtol=0)
    with pytest.raises(ValueError, match="give pooled_patches: true"):
        PretrainPatches(None, None, None, stored=True)


def test_it_is_built_from_its_configuration(sedt):
    other = from_config(to_config(sedt))
    other.load_state_dict(sedt.state_dict())
    with pytest.raises(ValueError, match="no multiple of the encoder's 25"):
        SetBackbone(PatchEncoder(dim=16, depth=1, heads=2), feature_rate=62.5)
