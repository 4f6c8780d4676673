import pytest
import torch

from pmam_plugin.nn.interpolate import interpolate_frames


@pytest.mark.parametrize(("frames", "length"), [(100, 1000), (250, 1000), (7, 3), (1, 5), (5, 5)])
def test_default_ratio_is_torch_linear_interpolation(frames: int, length: int) -> None:
    x = torch.randn(2, frames, 3, dtype=torch.float64)
    expected = torch.nn.functional.interpolate(x.transpose(1, 2), size=length, mode="linear").transpose(1, 2)
    torch.testing.assert_close(interpolate_frames(x, length), expected, atol=1e-5, rtol=1e-5)


def test_fixed_ratio_keeps_the_beginning_whatever_the_length() -> None:
    x = torch.randn(1, 25, 2)
    short, long = interpolate_frames(x, 90, ratio=4), interpolate_frames(x, 103, ratio=4)
    torch.testing.assert_close(short, long[:, :90])


def test_the_end_is_held() -> None:
    x = torch.arange(3.0).reshape(1, 3, 1)
    assert interpolate_frames(x, 40, ratio=10)[0, 25:, 0].tolist() == [2.0] * 15


def test_offset_moves_frames_later() -> None:
    ramp = torch.arange(50.0).reshape(1, 50, 1)
    moved, plain = interpolate_frames(ramp, 500, ratio=10, offset=3), interpolate_frames(ramp, 500, ratio=10)
    torch.testing.assert_close(moved[:, 10:490], plain[:, 7:487])
