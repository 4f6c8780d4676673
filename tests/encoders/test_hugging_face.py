"""Frames are those of the transformers model, whatever its make."""

import pytest
import torch

from pmam_plugin.checkpoints import load_module, save_model
from pmam_plugin.config import from_config, to_config
from pmam_plugin.encoders import CNNEncoder, DualBranchEncoder, RawWaveform, TransformersEncoder
from pmam_plugin.errors import InputError
from pmam_plugin.features import FrontEnds, KaldiMel
from pmam_plugin.models import Backbone, FrameDetector, LinearSoftmaxHead
from pmam_plugin.nn.context import IdentityContext
from pmam_plugin.nn.lora import add_lora, merge_lora

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
CONVOLUTIONS = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
WAVE = {"model_type": "wav2vec2", **TINY, **CONVOLUTIONS}
AST = {"model_type": "audio-spectrogram-transformer", **TINY, "max_length": 256}
WHISPER = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "num_mel_bins": 20,
    "vocab_size": 10,
    "max_source_positions": 100,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


def encoder(config, **arguments):
    torch.manual_seed(0)
    return TransformersEncoder(config, **arguments).eval()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
def test_a_model_of_waveforms_gives_its_own_states(kind):
    ours = encoder({**WAVE, "model_type": kind}, layer=1)
    wave = 0.1 * torch.randn(2, 1, 16000)
    assert ours.frame_rate == 50.0
    output = ours({"wave": wave}, embed=["layer_0", "layer_2"])
    states = ours.model(wave[:, 0], output_hidden_states=True).hidden_states
    assert output.frames.shape == (2, 50, 16)
    for frames, number in ((output.frames, 1), (output.embeddings["layer_0"], 0), (output.embeddings["layer_2"], 2)):
        torch.testing.assert_close(frames[:, :49], states[number], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        encoder({**WAVE, "model_type": kind})({"wave": wave}).frames[:, :49], states[2], atol=1e-4, rtol=0
    )


@torch.no_grad()
def test_ast_gives_the_mean_over_bands_at_the_time_of_its_patches():
    ours = encoder(AST, feature="mel")
    mel = torch.randn(2, 128, 200)
    output = ours({"mel": mel})
    padded = torch.nn.functional.pad(mel, (0, 56), value=4.2677393 / (2 * 4.5689974)).transpose(1, 2)
    states = ours.model(padded).last_hidden_state[:, 2:]
    assert states.shape[1] == 12 * 25
    assert (output.frames.shape, ours.frame_rate) == ((2, 20, 16), 10.0)
    grid = states.reshape(2, 12, 25, 16).mean(dim=1)
    # A patch of 16 mel frames stands 3 frames later than the middle of the 10 it is counted for.
    expected = torch.lerp(grid[:, :19], grid[:, 1:20], 0.7)
    torch.testing.assert_close(output.frames[:, 1:], expected, atol=1e-4, rtol=0)
    fine = encoder(AST, feature="mel", frame_rate=50.0)
    assert fine({"mel": mel}).frames.shape == (2, 100, 16)


@torch.no_grad()
def test_how_other_models_are_laid_out_can_be_said():
    with pytest.raises(InputError, match="whisper: nobody says how its tokens lie in time; give stride"):
        encoder(WHISPER)
    said = {"stride": 2, "special_tokens": 0, "bands": 1, "layout": "mel_first", "longest": 200}
    ours = encoder(WHISPER, feature="mel", **said)
    mel = torch.randn(1, 20, 120)
    expected = ours.model(torch.nn.functional.pad(mel, (0, 80))).last_hidden_state
    torch.testing.assert_close(ours({"mel": mel}).frames, expected[:, :60], atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="hears 200 feature frames at once"):
        ours({"mel": torch.randn(1, 20, 201)})


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 399, 16000, 16001, 31000])
def test_frames_are_as_many_as_promised_whatever_the_length(samples):
    ours = encoder(WAVE, normalise=True)
    wave = torch.randn(1, 1, samples)
    assert ours({"wave": wave}).frames.shape[1] == ours.output_frames({"wave": samples}) == max(1, -(-samples // 320))
    torch.testing.assert_close(ours({"wave": 3 * wave + 1}).frames, ours({"wave": wave}).frames, atol=1e-3, rtol=0)


def test_a_published_model_is_one_by_its_folder_and_needs_it_no_more(tmp_path):
    config = transformers.AutoConfig.for_model(**WAVE)
    torch.manual_seed(1)
    published = transformers.AutoModel.from_config(config).eval()
    published.save_pretrained(tmp_path / "published")
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path / "published")
    ours = TransformersEncoder.pretrained(str(tmp_path / "published"), trainable=True).eval()
    assert ours.normalise
    backbone = Backbone(FrontEnds(wave=RawWaveform()), ours, IdentityContext(16))
    detector = FrameDetector(backbone, LinearSoftmaxHead(16, 2, token_dim=16, tag_heads=2), ["a", "b"])
    save_model(tmp_path / "model", detector)
    for file in (tmp_path / "published").iterdir():
        file.unlink()
    again = load_module(tmp_path / "model").model
    wave = torch.randn(1, 16000)
    extracted = (wave - wave.mean()) / wave.std(correction=0)
    with torch.no_grad():
        expected = published(extracted).last_hidden_state
        found = again.backbone(again.frontend(wave)).encoded
    torch.testing.assert_close(found[:, :49], expected, atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="no model that transformers could load"):
        TransformersEncoder.pretrained(str(tmp_path / "published"))


def test_a_configuration_can_name_models_only():
    built = from_config(to_config(encoder(WAVE)))
    assert built.model.config.apply_spec_augment is False
    hostile = {**WAVE, "auto_map": {"AutoModel": "evil--modeling.Evil"}}
    assert not hasattr(encoder(hostile).model.config, "auto_map")
    with pytest.raises(InputError, match="transformers builds no 'nonsense'"):
        encoder({"model_type": "nonsense"})
    with pytest.raises(InputError, match="no layer 3 among 2"):
        encoder(WAVE, layer=3)


@pytest.mark.parametrize(("config", "feature"), [(WAVE, "wave"), (AST, "mel")])
def test_adapters_learn_on_named_layers_of_any_make(config, feature):
    front_end = RawWaveform() if feature == "wave" else KaldiMel(level=1.0, window="hanning", mean=-4.27, std=4.57)
    features = {feature: front_end(0.1 * torch.randn(2, 16000)), "mel": KaldiMel()(0.1 * torch.randn(2, 16000))}
    model = DualBranchEncoder(
        encoder(config, feature=feature), CNNEncoder(channels=(4, 4), pooling=((2, 8), (2, 16))), 8
    )
    model.eval()
    before = model(features).frames
    add_lora(model, pattern=r".*\.(q_proj|v_proj)", within="transformer.model", rank=2)
    torch.testing.assert_close(model(features).frames, before)
    model(features).frames.square().sum().backward()
    inside = {name for name, parameter in model.transformer.named_parameters() if parameter.grad is not None}
    assert len(inside) == 2 * 2 * 2
    assert all("lora_" in name for name in inside)
    assert model.cnn_projection.weight.grad is not None
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    plain = DualBranchEncoder(
        encoder(config, feature=feature), CNNEncoder(channels=(4, 4), pooling=((2, 8), (2, 16))), 8
    )
    plain.eval().load_state_dict(merge_lora(model))
    torch.testing.assert_close(plain(features).frames, model(features).frames, atol=1e-5, rtol=1e-4)
