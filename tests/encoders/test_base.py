import pytest

from pmam_plugin.config import from_config, to_config
from pmam_plugin.encoders import PatchEncoder, Windows


def test_windows_survive_a_configuration() -> None:
    windows = Windows(length_seconds=2.0, mix=0.25)
    assert from_config(to_config(windows)) == windows


@pytest.mark.parametrize(
    "arguments", [{"length_seconds": 0.0}, {"hop_seconds": -1.0}, {"mix": 1.5}, {"hop_seconds": 6.0}]
)
def test_impossible_windows_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="windows need"):
        Windows(**arguments)


def test_unknown_layer_is_named_together_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no layer 'block_9'.*block_1, block_2"):
        PatchEncoder(dim=8, depth=2, heads=2).check_layers(["block_9"])
