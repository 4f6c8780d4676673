import pytest
import torch
from safetensors.torch import load_file

from pmam_plugin.checkpoints.beats import encoder_size, rename_beats
from pmam_plugin.encoders import ATSTSEDEncoder, BEATsEncoder, CNNEncoder, DualBranchEncoder
from pmam_plugin.features import KaldiMel
from pmam_plugin.nn.deep_norm import GatedAttention, distance_buckets
from pmam_plugin.nn.lora import add_lora
from tests.support import shared


@pytest.fixture(scope="module")
def stored():
    return load_file(shared("reference_outputs/pretrained_sed_components.safetensors"))


def published(stored):
    """Weights of two layers under their published names."""
    prefix = "beats.weights.model.beats."
    return {name[len(prefix) :]: tensor for name, tensor in stored.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def reference(stored):
    tensors, _ = rename_beats(published(stored), "file")
    encoder = BEATsEncoder(**encoder_size(tensors, None, "file"), pooling="tokens").eval()
    encoder.transformer.load_state_dict(tensors)
    return encoder


def tiny(**arguments):
    torch.manual_seed(0)
    sizes = {"depth": 3, "dim": 24, "heads": 2, "patch_dim": 8, "position_kernel": 8, "position_groups": 4}
    return BEATsEncoder(**{**sizes, "pooling_heads": 2, **arguments}).eval()


def mel(frames=98, batch=2):
    return {"mel": torch.randn(batch, 128, frames, generator=torch.Generator().manual_seed(frames))}


def close(found, expected, tolerance=1e-4):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@torch.no_grad()
def test_every_step_agrees_with_the_reference(stored, reference):
    network = reference.transformer
    fbank = stored["frontend.beats.fbank"].transpose(1, 2)
    tokens, bands = network.tokens(fbank)
    assert bands == 8
    close(tokens, stored["beats.projected"])
    close(network.position.kernel()[:8], stored["beats.pos_conv.effective_weight_first8"])
    close(network.position(tokens), stored["beats.pos_conv"])
    entered = network.input_norm(tokens + network.position(tokens))
    close(entered, stored["beats.encoder_input"])
    bias = network.distance(496)
    close(bias[:, 0], stored["beats.position_bias_first_row"])
    close(bias[:, :, 0], stored["beats.position_bias_first_column"])
    attention = network.blocks[0].attn
    query = attention.qkv(entered).unflatten(-1, (3, 4, -1))[:, :, 0].transpose(1, 2)
    close(attention.gates(query)[0, ..., 0], stored["beats.layer0.gate"])
    close(attention(entered, bias), stored["beats.layer0.attention"])
    hidden = network(fbank, {1, 2})
    close(hidden[1].flatten(1, 2), stored["beats.layer0.output"])
    close(hidden[2].flatten(1, 2), stored["beats.layer1.output"])


@torch.no_grad()
def test_from_the_waveform_the_published_frames_come_out(stored, reference):
    features = {"mel": KaldiMel()(stored["frontend.waveform"])}
    output = reference(features, embed=["block_1"])
    close(output.frames, stored["wrapper.pooled"], 2e-4)
    close(output.tokens, stored["beats.layer1.output"], 5e-4)
    assert output.embeddings["block_1"].shape == (1, 250, 96)


def test_buckets_are_the_published_ones(stored):
    torch.testing.assert_close(distance_buckets(torch.arange(-1200, 1201)).int(), stored["beats.buckets"])


def test_attention_is_that_of_its_formula():
    torch.manual_seed(1)
    attention = GatedAttention(8, 2).eval()
    tokens, bias = torch.randn(1, 5, 8), torch.randn(2, 5, 5)
    query, key, value = attention.qkv(tokens)[0].reshape(5, 3, 2, 4).permute(1, 2, 0, 3)
    expected = torch.empty(5, 2, 4)
    for head in range(2):
        for t in range(5):
            u = attention.gate(query[head, t])
            reset, update = u[:4].sum().sigmoid(), u[4:].sum().sigmoid()
            gate = reset * (update * attention.gate_scale[0, head, 0, 0] - 1) + 2
            logits = query[head, t] @ key[head].T / 2 + gate * bias[head, t]
            expected[t, head] = logits.softmax(dim=0) @ value[head]
    close(attention(tokens, bias)[0], attention.proj(expected.flatten(1)), 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "attention", "tokens"])
@pytest.mark.parametrize("samples", [300, 4000, 16000, 31000])
def test_frames_are_as_many_as_promised_whatever_the_length(pooling, samples):
    encoder, front_end = tiny(pooling=pooling), KaldiMel()
    features = {"mel": front_end(0.1 * torch.randn(1, samples))}
    promised = encoder.output_frames({"mel": front_end.frames(samples)})
    assert encoder(features).frames.shape == (1, promised, 24)
    assert abs(promised - samples / 640) <= 2


@torch.no_grad()
def test_layers_come_on_one_grid_and_only_what_is_asked_for_runs():
    encoder = tiny(layer=2)
    output = encoder(mel(), embed=encoder.layers, tokens=False)
    assert all(states.shape == output.frames.shape for states in output.embeddings.values())
    torch.testing.assert_close(output.embeddings["stream"], output.frames)
    torch.testing.assert_close(output.embeddings["block_2"], output.frames)
    deepest = []
    encoder.transformer.blocks[2].register_forward_hook(lambda *_: deepest.append("ran"))
    encoder(mel(), tokens=False)
    assert not deepest
    assert encoder(mel()).tokens.shape == (2, 6 * 8, 24)
    assert deepest
    for layer in encoder.layers:
        columns = encoder.columns(mel(), layer)
        again = columns.grid.interpolate(columns.values, output.frames.shape[1])
        torch.testing.assert_close(again, output.embeddings[layer])


@torch.no_grad()
def test_a_sound_stands_in_the_frames_that_hold_it():
    """Blocks that mix nothing: frames show the patches they were made of."""
    encoder = tiny()
    encoder.transformer.forward = lambda image, layers: {
        3: image[:, :, : image.shape[-1] // 16 * 16]
        .unflatten(2, (-1, 16))
        .mean(dim=(1, 3))[..., None, None]
        .expand(-1, -1, 8, 24)
    }
    front_end = KaldiMel()
    wave = torch.zeros(1, 64000)
    wave[:, 32000 : 32000 + 2560] = torch.randn(2560)  # 2.00 s to 2.16 s
    frames = encoder({"mel": front_end(wave)}, tokens=False).frames[0, :, 0]
    loud = frames - frames.min()
    centre = (loud * (torch.arange(len(loud)) + 0.5) * 0.04).sum() / loud.sum()
    assert centre == pytest.approx(2.08, abs=0.03)


def test_it_serves_beside_a_cnn_and_with_adapters():
    encoder = DualBranchEncoder(
        tiny(pooling="attention"), CNNEncoder(channels=(4, 4), pooling=((2, 8), (2, 16))), dim=16
    ).eval()
    assert encoder(mel()).frames.shape == (2, 25, 16)
    merged = ATSTSEDEncoder(CNNEncoder("mel", 100.0, (4, 4), ((2, 8), (2, 16))), tiny(pooling="tokens"), 16)
    assert merged(mel()).frames.shape == (2, 24, 16)
    before = encoder(mel()).frames
    add_lora(encoder, blocks=[1, 2], rank=2)
    torch.testing.assert_close(encoder(mel()).frames, before)
    learning = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    inside = {name for name in learning if name.startswith("transformer.transformer.")}
    assert len(inside) == 2 * 4 * 2
    assert all("lora" in name for name in inside)
    assert {"transformer.pool.query", "cnn_projection.weight"} <= learning
    encoder.train()(mel()).frames.sum().backward()
    assert all(encoder.get_parameter(name).grad is not None for name in inside)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="no block 4 among 3"):
        tiny(layer=4)
    with pytest.raises(ValueError, match="pooling is mean, attention or tokens"):
        tiny(pooling="max")
