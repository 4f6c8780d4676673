import torch

from pmam_plugin.encoders import CNNEncoder, DualBranchEncoder
from tests.encoders.test_passt import mel, tiny


def tiny_dual() -> DualBranchEncoder:
    torch.manual_seed(0)
    cnn = CNNEncoder(channels=(4, 6), pooling=((2, 4), (2, 9)), dropout=0.0)
    return DualBranchEncoder(tiny(), cnn, dim=10).eval()


@torch.no_grad()
def test_both_branches_stay_aligned_for_any_length() -> None:
    """The same sound at the same place gives the same local embedding, however long the clip is."""
    encoder = tiny_dual()
    torch.nn.init.zeros_(encoder.transformer_projection.weight)
    long = mel(407)["mel"]
    for frames in (407, 203, 100, 37, 3):
        output = encoder({"mel": long[..., :frames]})
        assert output.frames.shape == (2, frames, 10)
        kept = max(frames - 12, 0)
        torch.testing.assert_close(output.frames[:, :kept], encoder({"mel": long}).frames[:, :kept])


def test_merge_weight_scales_the_second_branch_and_learns() -> None:
    encoder = tiny_dual()
    with torch.no_grad():
        encoder.merge_weight.zero_()
        plain = encoder.transformer_projection(encoder.transformer(mel()).frames)
        torch.testing.assert_close(encoder(mel()).frames, plain)
    encoder(mel()).frames.sum().backward()
    assert encoder.merge_weight.grad is not None


@torch.no_grad()
def test_tokens_and_layers_are_those_of_the_transformer() -> None:
    encoder = tiny_dual()
    output = encoder(mel(), embed=("block_1",))
    assert encoder.layers == encoder.transformer.layers
    assert output.embeddings["block_1"].shape == (2, 100, 24)
    assert encoder(mel(), tokens=False).tokens is None


@torch.no_grad()
def test_cnn_encoder_counts_its_frames() -> None:
    encoder = CNNEncoder(channels=(4, 6), pooling=((2, 4), (2, 9))).eval()
    for frames in (1, 3, 4, 43, 100):
        assert encoder(mel(frames)).frames.shape[1] == encoder.output_frames({"mel": frames})
    assert encoder.frame_rate == 25.0
