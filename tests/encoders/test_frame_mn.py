import pytest
import torch
from safetensors.torch import load_file

from pmam_plugin.encoders import DualBranchEncoder, FrameMobileNetEncoder, PatchEncoder
from pmam_plugin.encoders.frame_mn import InvertedResidual, SqueezeExcitation, rounded_width
from pmam_plugin.features import MobileNetMel
from tests.support import shared


@pytest.fixture(scope="module")
def stored():
    return load_file(shared("reference_outputs/pretrained_sed_components.safetensors"))


@pytest.fixture(scope="module")
def reference(stored):
    prefix = "mn.weights.model.frame_mn."
    encoder = FrameMobileNetEncoder(0.4).eval()
    encoder.load_state_dict({name[len(prefix) :]: t for name, t in stored.items() if name.startswith(prefix)})
    return encoder


@torch.no_grad()
def test_every_stage_agrees_with_the_reference(stored, reference):
    image, gates = stored["mn.input"], []
    excitation = reference.features[4].block[2]
    excitation.register_forward_hook(lambda module, inputs, _: gates.append(module.gate(inputs[0])))
    for number, stage in enumerate(reference.features):
        image = stage(image)
        if number != 1:
            torch.testing.assert_close(image, stored[f"mn.features{number}"], atol=1e-4, rtol=0)
    torch.testing.assert_close(gates[0], stored["mn.features4.se_scale"][..., 0, 0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_frames_are_the_last_stage_and_layers_share_its_grid(stored, reference):
    output = reference({"mel": stored["mn.input"][:, 0]}, embed=reference.layers)
    torch.testing.assert_close(output.frames, stored["mn.features16"][:, :, 0].transpose(1, 2), atol=1e-4, rtol=0)
    assert {states.shape[:2] for states in output.embeddings.values()} == {(1, 50)}
    stem = stored["mn.features0"].mean(dim=2).unflatten(-1, (50, 2)).mean(dim=-1)
    torch.testing.assert_close(output.embeddings["stage_0"], stem.transpose(1, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(output.embeddings["stage_16"], output.frames)


@pytest.mark.parametrize(
    ("width", "parameters", "dim"),
    [(0.4, 516_128, 384), (0.6, 1_099_184, 576), (1.0, 2_971_664, 960), (2.0, 11_641_880, 1920)],
)
def test_published_widths_have_the_published_sizes(width, parameters, dim):
    encoder = FrameMobileNetEncoder(width)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters
    assert encoder.dim == dim
    assert len(encoder.state_dict()) == 312 - 4  # less two heads
    squeezed = [
        module.conc_se_layers[0]["fc1"] for module in encoder.modules() if isinstance(module, SqueezeExcitation)
    ]
    assert len(squeezed) == 8
    residual = [isinstance(stage, InvertedResidual) and stage.residual for stage in encoder.features]
    assert residual[4] == (width == 0.4)  # rounding makes input and output of this block alike there only
    assert (residual[1], residual[14], residual[15]) == (True, True, False)


def test_widths_are_rounded_to_eights():
    assert [rounded_width(value) for value in (3, 8, 11.9, 12, 19.2, 64 * 0.6, 67)] == [8, 8, 16, 16, 24, 40, 64]


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 320, 4000, 16000, 31000])
def test_frames_are_as_many_as_promised_whatever_the_length(samples):
    encoder, front_end = FrameMobileNetEncoder(0.2).eval(), MobileNetMel().eval()
    features = {"mel": front_end(0.1 * torch.randn(1, samples))}
    promised = encoder.output_frames({"mel": front_end.frames(samples)})
    output = encoder(features, embed=["stage_1", "stage_9"])
    assert output.frames.shape == (1, promised, encoder.dim)
    assert {states.shape[1] for states in output.embeddings.values()} == {promised}
    assert abs(promised - samples / 640) <= 1


def test_it_learns_beside_a_second_encoder():
    torch.manual_seed(0)
    second = PatchEncoder(mel_bins=128, dim=8, depth=1, heads=2)
    encoder = DualBranchEncoder(FrameMobileNetEncoder(0.2), second, dim=8)
    mel = torch.randn(2, 128, 100)
    encoder({"mel": mel}).frames.square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.transformer.parameters())
