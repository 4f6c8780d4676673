from __future__ import annotations

import pytest
import torch

from pmam_plugin.config import from_config, to_config
from pmam_plugin.encoders.ctrans import CTransEncoder
from pmam_plugin.nn.cnn import ConvStack


def conv_encoder(layers: int = 2) -> CTransEncoder:
    torch.manual_seed(0)
    stack = ConvStack((4, 8), ((2, 4), (2, 8)))
    return CTransEncoder(stack, mel_rate=50.0, encoder_layers=layers, dim=16, heads=2, feedforward=32).eval()


@pytest.mark.parametrize("frames", [3, 40, 99])
def test_frames_come_on_the_stated_grid(frames: int) -> None:
    encoder = conv_encoder()
    with torch.no_grad():
        output = encoder({"mel": torch.randn(2, 32, frames)}, embed=["cnn", "block_2"])
    assert output.frames.shape == (2, encoder.output_frames({"mel": frames}), 16)
    assert {name: value.shape for name, value in output.embeddings.items()} == {
        "cnn": output.frames.shape,
        "block_2": output.frames.shape,
    }
    assert output.tokens is None
    assert encoder.frame_rate == 12.5
    assert encoder.layers == ("cnn", "block_1", "block_2")


def test_every_frequency_cell_and_every_moment_counts() -> None:
    encoder = conv_encoder()
    mel = torch.randn(1, 32, 80)
    with torch.no_grad():
        plain = encoder({"mel": mel}).frames
        for changed in (slice(0, 8), slice(24, 32)):
            other = mel.clone()
            other[:, changed, :4] += 3.0
            assert not torch.allclose(encoder({"mel": other}).frames[:, -1], plain[:, -1])


def test_a_wrong_number_of_bands_and_an_unknown_layer_are_refused() -> None:
    encoder = conv_encoder()
    with pytest.raises(ValueError, match="2 frequency cells instead of 1"):
        encoder({"mel": torch.randn(1, 64, 40)})
    with pytest.raises(ValueError, match="block_9"):
        encoder({"mel": torch.randn(1, 32, 40)}, embed=["block_9"])


def test_the_configuration_rebuilds_it() -> None:
    encoder = conv_encoder(layers=3)
    rebuilt = from_config(to_config(encoder)).eval()
    rebuilt.load_state_dict(encoder.state_dict())
    mel = {"mel": torch.randn(1, 32, 40)}
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(mel).frames, encoder(mel).frames)
