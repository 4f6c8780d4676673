import pytest
import torch

from pmam_plugin.config import from_config, to_config
from pmam_plugin.encoders import PatchEncoder
from pmam_plugin.features import FrontEnds, LogMel
from pmam_plugin.models import Backbone
from pmam_plugin.nn.context import RelativePositionTransformer
from tests.models.support import tiny_backbone, tiny_features


def test_states_its_own_specification() -> None:
    backbone = tiny_backbone()
    assert (backbone.sample_rate, backbone.frame_rate, backbone.dim) == (16000, 25.0, 16)
    assert backbone.layers == ("stem", "block_1", "block_2", "encoder", "context_1", "context_2")


@pytest.mark.parametrize("samples", [1, 1000, 16000, 33333])
@torch.no_grad()
def test_counts_its_frames_exactly(samples: int) -> None:
    backbone = tiny_backbone()
    output = backbone(backbone.frontend(torch.randn(1, samples)))
    assert output.frames.shape[1] == backbone.output_frames(samples)


@torch.no_grad()
def test_embeds_with_every_layer() -> None:
    backbone, features = tiny_backbone(), tiny_features()
    for layer in backbone.layers:
        assert backbone.embed(features, layer).shape == (2, 25, 16)
    torch.testing.assert_close(backbone.embed(features, "context_2"), backbone(features).frames)
    torch.testing.assert_close(backbone.embed(features, "encoder"), backbone.encoder(features).frames)


def test_unknown_layer_is_refused_with_the_choice() -> None:
    with pytest.raises(ValueError, match=r"no layer 'context_3'.*choose from stem"):
        tiny_backbone().embed(tiny_features(), "context_3")


def test_configuration_rebuilds_the_same_network() -> None:
    backbone = Backbone(
        FrontEnds(mel=LogMel(n_mels=16)),
        PatchEncoder(mel_bins=16, dim=16, depth=1, heads=2, context_frames=5),
        RelativePositionTransformer(16, depth=1, heads=2),
    )
    rebuilt = from_config(to_config(backbone))
    rebuilt.load_state_dict(backbone.state_dict())
    features = tiny_features()
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(features).frames, backbone.eval()(features).frames)
