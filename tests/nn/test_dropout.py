import pytest
import torch

from pmam_plugin.nn.cpu import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_drops_at_its_rate_and_keeps_the_mean(rate: float, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    image = torch.ones(7, 5, 67, 43).to(memory_format=layout)
    dropped = Dropout(rate)(image)
    assert dropped.stride() == image.stride()
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)], rel=1e-3)
    assert float((dropped == 0).float().mean()) == pytest.approx(rate, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.03 if rate < 0.9 else 0.05)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(1)
    kept = Dropout(0.5)(torch.ones(4, 100_001)) > 0
    for lag in (1, 2, 3, 4, 8):
        both = (kept[:, lag:] & kept[:, :-lag]).float().mean()
        assert float(both) == pytest.approx(0.25, abs=0.005)


def test_gradients_pass_where_values_do() -> None:
    torch.manual_seed(2)
    values = torch.randn(3, 50, requires_grad=True)
    dropped = Dropout(0.3)(values)
    dropped.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(dropped, values * values.grad)


def test_the_seed_decides_and_evaluation_changes_nothing() -> None:
    values, layer = torch.randn(2, 33), Dropout(0.4)
    outputs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        outputs.append(layer(values))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert layer.eval()(values) is values
    assert torch.equal(Dropout(0.0)(values), values)
    assert not Dropout(1.0)(values).any()
    assert Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)


def test_frames_seen_backwards_or_sliced_are_dropped_like_any() -> None:
    torch.manual_seed(3)
    ones = torch.ones(40, 60, 5)
    for values in (ones.transpose(0, 2), ones[:, ::2], torch.ones(60).expand(40, 60)):
        assert float((Dropout(0.25)(values) == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
