import pytest
import torch
from safetensors.torch import load_file

from pmam_plugin.config import from_config, to_config
from pmam_plugin.encoders.atst import ATSTFrame
from pmam_plugin.encoders.atst_sed import ATSTSEDEncoder, dcase_cnn, pool_frames
from pmam_plugin.encoders.cnn import CNNEncoder
from pmam_plugin.features import ATSTMel, CRNNMel
from tests.support import shared


def tiny() -> ATSTSEDEncoder:
    torch.manual_seed(0)
    cnn = CNNEncoder("crnn", 62.5, (4, 8), ((2, 2), (2, 4)), dropout=0.0)
    return ATSTSEDEncoder(cnn, ATSTFrame(dim=16, depth=2, heads=2), dim=12).eval()


def features(samples: int, batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(samples)
    return {
        "atst": torch.randn(batch, 64, ATSTMel().frames(samples), generator=generator),
        "crnn": torch.rand(batch, 128, CRNNMel().frames(samples), generator=generator),
    }


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    return load_file(shared("reference_outputs/atst_sed_components.safetensors"))


@pytest.fixture(scope="module")
def published(reference) -> ATSTSEDEncoder:
    """The full-size encoder without transformer blocks, with the reference's CNN and merge weights."""
    encoder = ATSTSEDEncoder(atst=ATSTFrame(depth=0)).eval()
    ours = {"conv": "conv", "batchnorm": "norm", "cg": "gate"}
    state = encoder.state_dict()
    for name, tensor in reference.items():
        if name.startswith("weights.cnn.cnn."):
            part, rest = name.removeprefix("weights.cnn.cnn.").split(".", 1)
            kind, index = part.rstrip("0123456789"), part[-1]
            state[f"cnn.stack.stages.{index}.{ours[kind]}.{rest.removeprefix('linear.')}"] = tensor
    state["merge.weight"], state["merge.bias"] = reference["weights.cat_tf.weight"], reference["weights.cat_tf.bias"]
    encoder.load_state_dict(state)
    return encoder


def test_the_cnn_reproduces_the_reference(reference, published):
    with torch.inference_mode():
        frames = published.cnn({"crnn": reference["frontend.crnn_scaled"]}).frames
    torch.testing.assert_close(frames, reference["cnn"].squeeze(3).transpose(1, 2), atol=1e-4, rtol=0)


def test_the_merge_reproduces_the_reference(reference, published):
    with torch.inference_mode():
        local = reference["cnn"].squeeze(3).transpose(1, 2)
        merged = published.fuse(local, reference["atst_tokens"].transpose(1, 2))
    torch.testing.assert_close(merged, reference["merge"], atol=1e-4, rtol=0)


def test_sizes_are_the_published_ones():
    with torch.device("meta"):
        encoder = ATSTSEDEncoder()
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in encoder.named_children()}
    assert count == {"cnn": 612_688, "atst": 85_419_264, "merge": 114_816}
    assert encoder.frame_rate == 15.625
    assert encoder.output_frames({"crnn": 626, "atst": 1001}) == 156


def test_batch_norm_remembers_more_than_the_last_batch_unless_told_otherwise():
    assert {stage.norm.momentum for stage in dcase_cnn().stack.stages} == {0.01}
    assert {stage.norm.momentum for stage in dcase_cnn(momentum=0.99).stack.stages} == {0.99}
    assert {stage.norm.eps for stage in dcase_cnn().stack.stages} == {1e-3}


def test_pooling_averages_the_tokens_that_a_frame_overlaps():
    tokens = torch.randn(1, 250, 3)
    expected = [tokens[0, i * 250 // 156 : -(-(i + 1) * 250 // 156)].mean(dim=0) for i in range(156)]
    torch.testing.assert_close(pool_frames(tokens, 156)[0], torch.stack(expected))


@pytest.mark.parametrize("samples", [4_800, 16_000, 160_000, 175_000, 400_000])
def test_any_length_gives_the_stated_number_of_frames(samples):
    encoder, inputs = tiny(), features(samples, batch=1)
    lengths = {name: tensor.shape[-1] for name, tensor in inputs.items()}
    with torch.inference_mode():
        assert encoder(inputs).frames.shape == (1, encoder.output_frames(lengths), 12)
        assert encoder.cnn(inputs).frames.shape == (1, encoder.cnn.output_frames(lengths), 8)


def test_embeddings_share_the_grid_of_the_frames():
    encoder, inputs = tiny(), features(32_000)
    output = encoder(inputs, embed=["cnn", "block_1", "block_2"])
    assert {name: tuple(hidden.shape) for name, hidden in output.embeddings.items()} == {
        "cnn": (2, 31, 8),
        "block_1": (2, 31, 16),
        "block_2": (2, 31, 16),
    }
    merged = encoder.merge(torch.cat((output.embeddings["cnn"], output.embeddings["block_2"]), dim=-1))
    torch.testing.assert_close(output.frames, merged)
    with pytest.raises(ValueError, match="context"):
        encoder(inputs, embed=["context"])


def test_both_branches_reach_the_output():
    encoder, inputs = tiny(), features(32_000)
    before = encoder(inputs).frames
    for name in inputs:
        assert not torch.allclose(before, encoder({**inputs, name: inputs[name].flip(-1)}).frames)


def test_a_configuration_rebuilds_it():
    encoder, inputs = tiny(), features(32_000)
    twin = from_config(to_config(encoder)).eval()
    twin.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(twin(inputs).frames, encoder(inputs).frames)
