import pytest
import torch

from pmam_plugin.encoders import PatchEncoder


def tiny(**arguments: object) -> PatchEncoder:
    torch.manual_seed(0)
    settings = {"mel_bins": 16, "dim": 16, "depth": 2, "heads": 2}
    return PatchEncoder(**{**settings, **arguments}).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 50, 101])
@torch.no_grad()
def test_one_frame_for_every_four_mel_frames(frames: int) -> None:
    encoder = tiny()
    output = encoder({"mel": torch.randn(2, 16, frames)})
    assert output.frames.shape == (2, encoder.output_frames({"mel": frames}), 16)
    assert encoder.frame_rate == 25.0
    assert output.tokens is output.frames


@torch.no_grad()
def test_limited_context_keeps_far_away_sound_out() -> None:
    features = torch.randn(1, 16, 400)
    changed = features.clone()
    changed[..., 200:204] += 1
    reach = {}
    for limit in (None, 8):
        encoder = tiny(context_frames=limit)
        difference = encoder({"mel": changed}).frames - encoder({"mel": features}).frames
        moved = difference.abs().amax(dim=(0, 2)).gt(1e-6).nonzero().squeeze(1)
        reach[limit] = max(50 - int(moved[0]), int(moved[-1]) - 50)
    assert reach[None] == 50
    # The stem and the positions look four frames further.
    assert 8 <= reach[8] <= 12


@torch.no_grad()
def test_a_later_clip_start_gives_the_same_frames() -> None:
    encoder = tiny(context_frames=4)
    features = torch.randn(1, 16, 400)
    whole, part = encoder({"mel": features}).frames, encoder({"mel": features[..., 100:]}).frames
    torch.testing.assert_close(part[:, 15:], whole[:, 40:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_hidden_layers_are_named_and_returned() -> None:
    encoder = tiny()
    output = encoder({"mel": torch.randn(2, 16, 40)}, embed=encoder.layers, tokens=False)
    assert tuple(output.embeddings) == encoder.layers == ("stem", "block_1", "block_2")
    assert all(value.shape == (2, 10, 16) for value in output.embeddings.values())
    assert output.tokens is None


def test_a_context_smaller_than_the_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="context_frames of 1"):
        tiny(context_frames=1)


def test_bfloat16_autocast_trains() -> None:
    encoder = tiny(context_frames=4).train()
    with torch.autocast("cpu", torch.bfloat16):
        frames = encoder({"mel": torch.randn(2, 16, 40)}).frames
    frames.float().square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in encoder.parameters())
