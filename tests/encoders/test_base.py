import pytest
import torch

from pmam_plugin.config import from_config, to_config
from pmam_plugin.encoders import CNNEncoder, DualBranchEncoder, FrozenEncoder, PaSSTEncoder, PatchEncoder, Windows
from pmam_plugin.errors import InputError


def test_windows_survive_a_configuration() -> None:
    windows = Windows(length_seconds=2.0, mix=0.25)
    assert from_config(to_config(windows)) == windows


@pytest.mark.parametrize(
    "arguments", [{"length_seconds": 0.0}, {"hop_seconds": -1.0}, {"mix": 1.5}, {"hop_seconds": 6.0}]
)
def test_impossible_windows_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="windows need"):
        Windows(**arguments)


MEL = {"mel": torch.randn(2, 16, 12)}
ENCODER = PatchEncoder(mel_bins=16, dim=8, depth=2, heads=2)


def test_unknown_layer_is_named_together_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no layer 'block_9'.*block_1, block_2"):
        ENCODER(MEL, embed=["block_9"])


def test_windows_are_refused_where_they_would_change_nothing() -> None:
    frozen = FrozenEncoder(ENCODER)
    for encoder in (ENCODER, frozen, DualBranchEncoder(ENCODER, ENCODER)):
        with pytest.raises(InputError, match="leave out windows"):
            encoder(MEL, windows=Windows())


def test_windows_and_layers_pass_through_encoders_around_an_encoder() -> None:
    passt = PaSSTEncoder(depth=2, layer=1, dim=12, heads=2, pooling_heads=2, mel_bins=16, time_patches=5)
    mel, windows = {"mel": torch.randn(1, 16, 60)}, Windows(0.3, 0.1)
    for encoder in (
        FrozenEncoder(passt).eval(),
        DualBranchEncoder(passt, CNNEncoder("mel", 100.0, (8,), ((4, 16),))).eval(),
    ):
        plain, slid = encoder(mel, embed=["stream"]), encoder(mel, windows, embed=["stream"])
        assert not torch.allclose(plain.frames, slid.frames)
        assert list(slid.embeddings) == ["stream"]
        torch.testing.assert_close(slid.embeddings["stream"], passt.eval()(mel, windows).frames)


def test_nothing_comes_back_but_what_was_asked_for() -> None:
    asked = ENCODER(MEL, embed=["stem"], tokens=False)
    assert asked.tokens is None
    assert list(asked.embeddings) == ["stem"]
    assert ENCODER(MEL).tokens is not None
