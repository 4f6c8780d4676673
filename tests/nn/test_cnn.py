import pytest
import torch

from pmam_plugin.nn.cnn import ConvStack


def test_pooling_gives_the_stated_frames() -> None:
    stack = ConvStack((4, 8), ((2, 2), (2, 4)), dropout=0.0)
    assert stack(torch.randn(2, 16, 43)).shape == (2, 8, stack.output_frames(43), 2)
    assert stack.time_factor == 4


def test_batch_norm_momentum_is_the_repaired_one() -> None:
    assert ConvStack().stages[0].norm.momentum == 0.01
    assert ConvStack(momentum=0.99).stages[0].norm.momentum == 0.99
    assert ConvStack().stages[0].norm.eps == 1e-3


def test_gate_multiplies_by_the_sigmoid_of_a_linear_map_over_channels() -> None:
    stage = ConvStack((3,), ((1, 1),), dropout=0.0).stages[0].eval()
    image = torch.randn(1, 1, 4, 5)
    plain = stage.norm(stage.conv(image))
    gate = torch.einsum("oc,bctf->botf", stage.gate.weight, plain) + stage.gate.bias[:, None, None]
    torch.testing.assert_close(stage(image), plain * gate.sigmoid())


def test_stages_and_pooling_must_match() -> None:
    with pytest.raises(ValueError, match="stages"):
        ConvStack((4, 8), ((1, 1),))
