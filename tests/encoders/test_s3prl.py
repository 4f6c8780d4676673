"""An s3prl upstream in the place of an encoder."""

import random

import numpy as np
import pytest
import torch

from pmam_plugin.checkpoints import load_model, save_model
from pmam_plugin.config import from_config, to_config
from pmam_plugin.encoders import RawWaveform, S3PRLEncoder
from pmam_plugin.errors import InputError
from pmam_plugin.features import FrontEnds
from pmam_plugin.models import AttentionHead, Backbone, FrameDetector
from pmam_plugin.nn.context import RecurrentContext
from pmam_plugin.nn.lora import add_lora, merge_lora
from tests.support import s3prl_hub


@pytest.fixture(scope="module")
def hub():
    return s3prl_hub()


class ToyExpert(torch.nn.Module):
    """Three layers of width 4 at 20 ms, with dropout, from the waveform's first samples of each frame."""

    def __init__(self, refresh=False, ckpt=None, scale=1.0):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.dropout = torch.nn.Dropout(0.5)
        self.scale = scale

    def get_downsample_rates(self, key):
        return 320

    def forward(self, wavs):
        padded = torch.nn.utils.rnn.pad_sequence(list(wavs), batch_first=True)
        frames = -(-padded.shape[1] // 320)
        padded = torch.nn.functional.pad(padded, (0, frames * 320 - padded.shape[1]))
        first = padded.unflatten(1, (frames, 320))[..., :4]
        states = [first, self.scale * self.linear(first), self.dropout(first)]
        return {"hidden_states": states}


@pytest.fixture(autouse=True)
def toy(hub, monkeypatch):
    monkeypatch.setattr(hub, "toy", ToyExpert, raising=False)


def waves(batch=2, samples=16000):
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(0))


def test_the_waveform_passes_through_its_front_end():
    frontend = FrontEnds(wave=RawWaveform())
    wave = waves()
    assert frontend.sample_rate == 16000
    assert frontend.frame_rates == {"wave": 16000.0}
    assert frontend.frames(12345) == {"wave": 12345}
    assert torch.equal(frontend(wave)["wave"], wave[:, None])
    assert torch.equal(frontend.scale(frontend.power(wave))["wave"], wave[:, None])


@pytest.mark.parametrize("samples", [1, 100, 800, 16000, 16001, 33333])
def test_the_number_of_frames_is_as_announced(samples):
    encoder = S3PRLEncoder("toy").eval()
    frames = encoder({"wave": waves(samples=samples)[:, None]}).frames
    assert frames.shape == (2, encoder.output_frames({"wave": samples}), encoder.dim) == (2, -(-samples // 320), 4)
    assert encoder.frame_rate == 50.0


def test_a_layer_or_a_weighted_sum_makes_the_frames():
    wave = {"wave": waves()[:, None]}
    encoder = S3PRLEncoder("toy").eval()
    output = encoder(wave, embed=encoder.layers)
    states = [output.embeddings[name] for name in ("layer_0", "layer_1", "layer_2")]
    torch.testing.assert_close(output.frames, sum(states) / 3)  # equal weights to begin with
    assert torch.equal(output.tokens, output.frames)
    one = S3PRLEncoder("toy", layer=-2).eval()
    one.load_state_dict(encoder.state_dict(), strict=False)
    torch.testing.assert_close(one(wave, tokens=False).frames, states[1])
    with pytest.raises(ValueError, match="has no layer"):
        encoder(wave, embed=["layer_3"])


def test_a_frozen_upstream_learns_nothing_but_its_weighting():
    encoder = S3PRLEncoder("toy").train()
    assert not encoder.upstream.upstream.dropout.training
    encoder({"wave": waves()[:, None]}).frames.square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.requires_grad] == ["weights"]
    assert encoder.weights.grad.abs().sum() > 0


def test_a_trainable_upstream_learns():
    encoder = S3PRLEncoder("toy", trainable=True).train()
    assert encoder.upstream.upstream.dropout.training
    encoder({"wave": waves()[:, None]}).frames.square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_building_one_leaves_all_random_numbers_alone():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    S3PRLEncoder("toy")
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_a_detector_around_it_is_saved_and_loaded(tmp_path):
    encoder = S3PRLEncoder("toy", extra_conf={"scale": 2.0})
    backbone = Backbone(FrontEnds(wave=RawWaveform()), encoder, RecurrentContext(4, 4, 1))
    model = FrameDetector(backbone, AttentionHead(8, 2), ["bell", "dog"]).eval()
    loaded = load_model(save_model(tmp_path / "model", model)).model
    wave = waves()
    expected = model(model.frontend(wave)).frames
    torch.testing.assert_close(loaded(loaded.frontend(wave)).frames, expected, rtol=0, atol=0)
    assert expected.shape == (2, 50, 2)
    assert from_config(to_config(encoder)).upstream.upstream.scale == 2.0


def test_a_real_upstream_fits():
    encoder = S3PRLEncoder("fbank").eval()
    frames = encoder({"wave": waves()[:, None]}).frames
    assert frames.shape == (2, encoder.output_frames({"wave": 16000}), encoder.dim)


def test_adapters_by_name_learn_in_a_frozen_wavlm_also_where_attention_takes_weights(tmp_path):
    from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig

    torch.manual_seed(0)
    sizes = {"encoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2}
    convolutions = {"conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2", "conv_pos": 16}
    config = WavLMConfig({**sizes, **convolutions, "conv_pos_groups": 2, "relative_position_embedding": True})
    wavlm, wave = WavLM(config).eval(), {"wave": waves()[:, None]}
    torch.save({"cfg": vars(config), "model": wavlm.state_dict()}, tmp_path / "wavlm.pt")
    build = lambda: torch.nn.ModuleDict({"e": S3PRLEncoder("wavlm_local", str(tmp_path / "wavlm.pt"), -1)}).eval()  # noqa: E731
    model = build()
    plain = model["e"](wave).frames
    torch.testing.assert_close(plain[:, :49], wavlm.extract_features(waves())[0], atol=1e-4, rtol=0)
    pattern = r"encoder\.layers\.\d\.(self_attn\..*_proj|fc1)"
    add_lora(model, pattern=pattern, within="e.upstream.upstream.model", rank=2)
    torch.testing.assert_close(model["e"](wave).frames, plain)
    adapters = {name: parameter for name, parameter in model.named_parameters() if "lora_B" in name}
    model["e"](wave).frames[..., 0].square().sum().backward()
    assert len(adapters) == 10
    assert all(parameter.grad.abs().sum() > 0 for name, parameter in adapters.items() if "k_proj" not in name)
    for parameter in adapters.values():
        parameter.data.normal_()
    merged = build()
    merged.load_state_dict(merge_lora(model))
    torch.testing.assert_close(merged["e"](wave).frames, model["e"](wave).frames, atol=1e-4, rtol=0)
    assert (merged["e"](wave).frames - plain).abs().max() > 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "no_such_upstream"}, "s3prl has no such upstream"),
        ({"name": "toy", "layer": 3}, "there is no layer 3 among 3"),
        ({"name": "hubert_url", "path_or_url": "https://example.org/evil.pt"}, "is an address"),
        ({"name": "hubert_custom", "path_or_url": "http://example.org/evil.pt"}, "is an address"),
    ],
)
def test_what_cannot_be_built_is_refused_with_a_reason(arguments, message):
    with pytest.raises(InputError, match=message):
        S3PRLEncoder(**arguments)
