import re

import pytest
import torch
from safetensors.torch import load_file

from pmam_plugin.checkpoints.transformer4sed import rename_keys
from pmam_plugin.encoders import CNNEncoder, DualBranchEncoder, PaSSTEncoder, Windows
from pmam_plugin.encoders.passt import PatchTokens
from tests.official_passt import OfficialPaSST
from tests.support import shared


def tiny(**arguments: object) -> PaSSTEncoder:
    torch.manual_seed(0)
    settings = {"depth": 3, "layer": 2, "dim": 24, "heads": 2, "pooling_heads": 2, "mel_bins": 36, "time_patches": 9}
    return PaSSTEncoder(**{**settings, **arguments}).eval()  # type: ignore[arg-type]


def mel(frames: int = 100, batch: int = 2) -> dict[str, torch.Tensor]:
    return {"mel": torch.randn(batch, 36, frames, generator=torch.Generator().manual_seed(frames))}


class StoredTokens(torch.nn.Module):
    """Stands in for a Transformer whose hidden layer was stored."""

    def __init__(self, tokens: torch.Tensor) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, mel: torch.Tensor, layers: set[int], final: bool) -> PatchTokens:
        return PatchTokens({number: self.tokens[:, 2:].unflatten(1, (12, -1)) for number in layers}, None)


def reference() -> tuple[dict[str, torch.Tensor], DualBranchEncoder]:
    stored = load_file(shared("reference_outputs/pmam_components.safetensors"))
    weights = rename_keys({name[8:]: tensor for name, tensor in stored.items() if name.startswith("weights.")})
    encoder = DualBranchEncoder(PaSSTEncoder(depth=1, layer=1, centred_patches=False), CNNEncoder()).eval()
    encoder.transformer.transformer = StoredTokens(stored["pool.block10_tokens"])
    prefix = "backbone.encoder."
    encoder.load_state_dict({name[len(prefix) :]: weights[name] for name in weights if name.startswith(prefix)})
    return stored, encoder


@torch.no_grad()
def test_pooling_and_interpolation_agree_with_the_reference() -> None:
    stored, encoder = reference()
    grid = encoder.transformer.out_norm(stored["pool.block10_tokens"][:, 2:].unflatten(1, (12, 99)))
    torch.testing.assert_close(encoder.transformer.pool(grid)[0], stored["pool.output"], atol=1e-4, rtol=0)
    frames = encoder.transformer({"mel": stored["frontend.mel"][:1]}, tokens=False).frames
    torch.testing.assert_close(frames, stored["interpolated"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_cnn_and_fusion_agree_with_the_reference() -> None:
    stored, encoder = reference()
    features = {"mel": stored["frontend.mel"][:1]}
    frames = encoder.cnn(features).frames
    torch.testing.assert_close(frames, stored["cnn.output"].transpose(1, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(encoder(features, tokens=False).frames, stored["context.input"], atol=1e-4, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_full_size_agrees_with_hear21passt() -> None:
    passt = pytest.importorskip("hear21passt.models.passt")
    torch.manual_seed(0)
    theirs = passt.deit_base_distilled_patch16_384(
        pretrained=False, num_classes=527, in_chans=1, img_size=(128, 998), stride=(10, 10)
    )
    passt.first_RUN = False
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    ours = OfficialPaSST().eval()
    assert len(theirs.state_dict()) == 159
    ours.load_state_dict(theirs.state_dict())
    for frames in (998, 1000, 400):
        spectrogram = torch.randn(1, 128, frames)
        expected, features = theirs.eval()(spectrogram.unsqueeze(1))
        final = ours(spectrogram).final
        assert final is not None
        torch.testing.assert_close(final[:, :2].mean(dim=1), features, atol=1e-4, rtol=0)
        torch.testing.assert_close(ours.classify(spectrogram), expected, atol=1e-4, rtol=0)


def test_official_names_are_the_published_ones() -> None:
    names = set(OfficialPaSST(depth=12, dim=24, heads=2).state_dict())
    assert len(names) == 159
    blocks = {re.sub(r"blocks\.\d+\.", "", name) for name in names if name.startswith("blocks.")}
    layers = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert blocks == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert {"cls_token", "dist_token", "new_pos_embed", "freq_new_pos_embed", "time_new_pos_embed"} < names
    assert {"patch_embed.proj.weight", "norm.bias", "head.0.weight", "head.1.bias", "head_dist.weight"} < names


@pytest.mark.parametrize("frames", [1, 15, 16, 47, 100, 101, 109, 250])
@torch.no_grad()
def test_any_length_gives_one_frame_per_mel_frame(frames: int) -> None:
    encoder = tiny()
    output = encoder(mel(frames), windows=Windows(0.4, 0.1))
    assert output.frames.shape == (2, encoder.output_frames({"mel": frames}), 24) == (2, frames, 24)
    assert output.frames.isfinite().all()
    assert output.tokens is not None
    assert output.tokens.shape[::2] == (2, 24)


@torch.no_grad()
def test_no_audio_is_ignored_beyond_the_position_table() -> None:
    encoder = tiny()
    features = mel(300)
    changed = {"mel": features["mel"].clone()}
    changed["mel"][..., 280:] += 1
    difference = (encoder(features).frames - encoder(changed).frames).abs().mean(dim=(0, 2))
    assert difference[285:].min() > 1e-4


def test_positions_at_the_native_length_are_the_table() -> None:
    transformer = tiny().transformer
    table = transformer.time_new_pos_embed
    assert torch.equal(transformer._time_positions(9), table)
    assert torch.equal(transformer._time_positions(4), table[..., :4])
    long = transformer._time_positions(18)
    torch.testing.assert_close(long[..., 0], table[..., 0])
    torch.testing.assert_close(long[..., -1], table[..., -1])


def test_training_takes_a_random_stretch_of_the_position_table() -> None:
    transformer = tiny().transformer.train()
    table = transformer.time_new_pos_embed
    stretches = {tuple(transformer._time_positions(4)[0, 0, 0].tolist()) for _ in range(50)}
    assert stretches == {tuple(table[0, 0, 0, start : start + 4].tolist()) for start in range(6)}


def test_blocks_run_only_as_deep_as_something_needs() -> None:
    encoder, calls = tiny(), []
    for number, block in enumerate(encoder.transformer.blocks, start=1):
        block.register_forward_hook(lambda *_, number=number: calls.append(number))
    encoder(mel(), tokens=False)
    assert calls == [1, 2]
    calls.clear()
    encoder(mel())
    assert calls == [1, 2, 3]
    calls.clear()
    encoder(mel(), embed=("block_3",), tokens=False)
    assert calls == [1, 2, 3]


@torch.no_grad()
def test_embedding_layers_stand_on_the_frames_grid() -> None:
    encoder = tiny(frequency_pooling="mean")
    output = encoder(mel(), embed=("stream", "block_1", "block_2"))
    assert {name: tuple(value.shape) for name, value in output.embeddings.items()} == dict.fromkeys(
        ("stream", "block_1", "block_2"), (2, 100, 24)
    )
    assert torch.equal(output.embeddings["stream"], output.frames)


@torch.no_grad()
def test_windows_mix_local_and_global_views() -> None:
    encoder = tiny()
    plain, local, mixed = (
        encoder(mel(), windows=windows).frames for windows in (None, Windows(0.5, 0.1, 1.0), Windows(0.5, 0.1))
    )
    torch.testing.assert_close(mixed, (plain + local) / 2)
    torch.testing.assert_close(encoder(mel(), windows=Windows(1.0, 0.1)).frames, plain)


@torch.no_grad()
def test_a_patch_stands_at_the_middle_of_what_it_saw() -> None:
    """With positions and blocks switched off, a click's response is centred on the click."""
    centres = []
    for centred in (True, False):
        encoder = tiny(depth=1, layer=1, centred_patches=centred, frequency_pooling="mean")
        for parameter in encoder.transformer.parameters():
            parameter.zero_()
        encoder.transformer.patch_embed["proj"].weight[0] = 1.0
        encoder.out_norm = torch.nn.Identity()
        click = torch.zeros(1, 36, 400)
        click[..., 150:246] = 1  # its middle is that of a patch
        response = encoder({"mel": click}, tokens=False).frames[0, :, 0]
        centres.append(float((response * torch.arange(400)).sum() / response.sum()))
    assert centres == pytest.approx([197.5, 194.5], abs=0.01)


def test_the_normalised_layer_has_no_level_of_its_own() -> None:
    """What the first prototypes are made of: every patch of unit variance, then the mean over frequency."""
    encoder = tiny()
    columns = encoder.columns(mel(), "normalised").values
    tokens = encoder.transformer(mel()["mel"], layers={2}, final=False).layers[2] * 1000
    expected = torch.nn.functional.layer_norm(tokens, (24,)).mean(dim=1)
    torch.testing.assert_close(columns, expected, atol=1e-3, rtol=1e-3)
