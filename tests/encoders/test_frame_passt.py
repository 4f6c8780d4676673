import pytest
import torch
from torch.nn import functional

from pmam_plugin.encoders import DualBranchEncoder, FramePaSSTEncoder, PatchEncoder
from pmam_plugin.encoders.frame_passt import FramePaSST
from pmam_plugin.features import MobileNetMel
from pmam_plugin.nn.lora import add_lora


def tiny():
    torch.manual_seed(0)
    return FramePaSSTEncoder(depth=2, dim=16, heads=2).eval()


@torch.no_grad()
def test_tokens_are_those_of_the_published_description():
    """Written out once more, as published: both edges padded and the first output dropped."""
    encoder = tiny()
    network = encoder.transformer
    mel = torch.randn(2, 128, 1000)
    image = mel[:, None]
    for number, stride in ((1, 2), (2, 1), (3, 2)):
        layer = getattr(network, f"conv_in_{number}")
        image = functional.gelu(functional.conv2d(image, layer.weight, layer.bias, stride, 1))
    assert image.shape == (2, 64, 32, 250)
    rows = torch.stack([torch.cat([image[:, 4 * c + k] for k in range(4)], dim=1) for c in range(16)], dim=1)
    projection = network.patch_embed["proj"]
    tokens = functional.conv2d(rows, projection.weight, projection.bias, 1, (0, 1))[:, :, 0, 1:]
    tokens = (tokens + network.time_new_pos_embed[:, :, 0] + network.freq_new_pos_embed[:, :, 0]).transpose(1, 2)
    special = torch.cat([network.cls_token, network.dist_token], dim=1) + network.new_pos_embed
    hidden = torch.cat([special.expand(2, -1, -1), tokens], dim=1)
    for block in network.blocks:
        hidden = block(hidden)
    expected = network.norm(hidden)[:, 2:]
    output = encoder({"mel": mel}, embed=["block_1", "block_2"])
    torch.testing.assert_close(output.frames, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.embeddings["block_2"], output.frames)
    assert not torch.allclose(output.embeddings["block_1"], output.frames)


def test_published_names_are_all_there():
    names = set(FramePaSST(dim=12, heads=2).state_dict())
    assert len(names) == 163 - 4  # less two heads
    assert {"conv_in_1.weight", "patch_embed.proj.weight", "new_pos_embed", "time_new_pos_embed"} <= names


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 320, 16000, 200_000])
def test_frames_are_as_many_as_promised_whatever_the_length(samples):
    encoder, front_end = tiny(), MobileNetMel(periodic=True).eval()
    promised = encoder.output_frames({"mel": front_end.frames(samples)})
    assert encoder({"mel": front_end(0.1 * torch.randn(1, samples))}).frames.shape == (1, promised, 16)
    assert abs(promised - samples / 640) <= 1


def test_it_learns_beside_a_second_encoder_by_adapters():
    encoder = DualBranchEncoder(tiny(), PatchEncoder(mel_bins=128, dim=8, depth=1, heads=2), dim=8)
    add_lora(encoder.transformer, blocks=[1], rank=2)
    encoder({"mel": torch.randn(2, 128, 100)}).frames.square().sum().backward()
    learning = {name for name, parameter in encoder.transformer.named_parameters() if parameter.grad is not None}
    assert {name.split(".lora_")[0] for name in learning if ".lora_" in name} == {
        f"transformer.blocks.1.{layer}" for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    assert {name for name in learning if ".lora_" not in name} == {"transformer.norm.weight", "transformer.norm.bias"}
