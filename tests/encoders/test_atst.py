import math

import pytest
import torch

from pmam_plugin.config import from_config, to_config
from pmam_plugin.encoders.atst import ATSTFrame
from pmam_plugin.encoders.base import Wanted

TINY = {"dim": 16, "depth": 3, "heads": 2, "n_mels": 8, "max_tokens": 10}


@pytest.fixture
def encoder() -> ATSTFrame:
    torch.manual_seed(0)
    return ATSTFrame(**TINY).eval()


def mel(frames: int, batch: int = 2) -> dict[str, torch.Tensor]:
    return {"atst": torch.randn(batch, 8, frames, generator=torch.Generator().manual_seed(frames))}


def published_tensors(depth: int = 12) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the base encoder's published tensors."""
    shapes: dict[str, tuple[int, ...]] = {
        "mask_embed": (1, 1, 768),
        "pos_embed": (1, 251, 768),
        "patch_embed.patch_embed.weight": (768, 256),
        "patch_embed.patch_embed.bias": (768,),
        "norm_frame.weight": (768,),
        "norm_frame.bias": (768,),
    }
    block = {
        "norm1.weight": (768,),
        "norm1.bias": (768,),
        "attn.qkv.weight": (2304, 768),
        "attn.proj.weight": (768, 768),
        "attn.proj.bias": (768,),
        "norm2.weight": (768,),
        "norm2.bias": (768,),
        "mlp.fc1.weight": (3072, 768),
        "mlp.fc1.bias": (3072,),
        "mlp.fc2.weight": (768, 3072),
        "mlp.fc2.bias": (768,),
    }
    return shapes | {f"blocks.{index}.{name}": shape for index in range(depth) for name, shape in block.items()}


def test_the_base_encoder_has_the_published_tensors_and_parameter_count():
    with torch.device("meta"):
        base = ATSTFrame()
    assert {name: tuple(tensor.shape) for name, tensor in base.state_dict().items()} == published_tensors()
    assert sum(parameter.numel() for parameter in base.parameters()) == 85_419_264


def test_a_patch_is_flattened_mel_first(encoder):
    features = mel(8, batch=1)
    weight, bias = encoder.patch_embed.patch_embed.weight, encoder.patch_embed.patch_embed.bias
    second = torch.stack([features["atst"][0, m, 4 + t] for m in range(8) for t in range(4)])
    torch.testing.assert_close(encoder.patch_embed(features["atst"])[0, 1], weight @ second + bias)


def test_frames_that_do_not_fill_a_patch_are_dropped(encoder):
    whole = mel(9)
    cut = {"atst": whole["atst"][..., :8]}
    assert encoder(whole).frames.shape == (2, 2, 16)
    torch.testing.assert_close(encoder(whole).frames, encoder(cut).frames)


@pytest.mark.parametrize("frames", [4, 5, 39, 40, 41, 44, 100, 257])
def test_any_length_gives_the_stated_number_of_frames(encoder, frames):
    assert encoder(mel(frames)).frames.shape[1] == encoder.output_frames({"atst": frames}) == frames // 4
    assert torch.isfinite(encoder(mel(frames)).frames).all()


def test_entry_0_of_the_position_table_is_never_used(encoder):
    before = encoder(mel(40)).frames, encoder(mel(60)).frames
    with torch.no_grad():
        encoder.pos_embed[:, 0] = 1e3
    torch.testing.assert_close((encoder(mel(40)).frames, encoder(mel(60)).frames), before)


def test_short_clips_take_the_first_positions_and_long_ones_stretch_the_table(encoder):
    table = encoder.pos_embed[0, 1:]
    torch.testing.assert_close(encoder.positions(4)[0], table[:4])
    torch.testing.assert_close(encoder.positions(10)[0], table)
    long = encoder.positions(20)[0]
    torch.testing.assert_close(long[0], table[0])
    torch.testing.assert_close(long[-1], table[-1])
    torch.testing.assert_close(long[1], 0.75 * table[0] + 0.25 * table[1])


def test_hidden_tokens_do_not_reach_the_output(encoder):
    features, mask = mel(40), torch.zeros(2, 10, dtype=torch.bool)
    mask[:, 3:6] = True
    other = {"atst": features["atst"].clone()}
    other["atst"][..., 12:24] = 7.0
    hidden, as_hidden = (encoder.encode(each, Wanted(), mask).frames for each in (features, other))
    torch.testing.assert_close(hidden, as_hidden)
    assert not torch.allclose(hidden, encoder(features).frames)


def test_attention_is_the_textbook_formula_without_qkv_bias(encoder):
    """One block, written out: pre-norm, 8-wide heads, scale 1/sqrt(8), exact GELU."""
    block = encoder.blocks[0]
    tokens = torch.randn(1, 5, 16)
    hidden = torch.nn.functional.layer_norm(tokens, (16,), block.norm1.weight, block.norm1.bias, 1e-6)
    query, key, value = (hidden @ block.attn.qkv.weight.T).reshape(1, 5, 3, 2, 8).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(-1, -2) / math.sqrt(8)).softmax(dim=-1)
    attended = tokens + block.attn.proj((weights @ value).transpose(1, 2).reshape(1, 5, 16))
    hidden = torch.nn.functional.layer_norm(attended, (16,), block.norm2.weight, block.norm2.bias, 1e-6)
    expected = attended + block.mlp.fc2(torch.nn.functional.gelu(block.mlp.fc1(hidden)))
    torch.testing.assert_close(block(tokens), expected)


def test_embeddings_are_normalised_block_outputs_and_the_last_is_the_output(encoder):
    output = encoder(mel(40), embed=["block_1", "block_3"])
    assert set(output.embeddings) == {"block_1", "block_3"}
    torch.testing.assert_close(output.embeddings["block_3"], output.frames)
    assert output.embeddings["block_1"].mean(dim=-1).abs().max() < 1e-5
    with pytest.raises(ValueError, match="block_9"):
        encoder(mel(40), embed=["block_9"])


def test_too_little_audio_is_refused(encoder):
    with pytest.raises(ValueError, match="at least 4 mel frames"):
        encoder(mel(3))


def test_a_configuration_rebuilds_it(encoder):
    twin = from_config(to_config(encoder))
    twin.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(twin.eval()(mel(40)).frames, encoder(mel(40)).frames)


def test_drop_path_grows_linearly_over_the_depth():
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in ATSTFrame(**TINY, drop_path=0.1).blocks]
    assert rates == pytest.approx([0, 0.05, 0.1])
