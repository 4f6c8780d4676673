from unittest import mock

import pytest
import torch
from torch import Tensor

from pmam_plugin.nn import attention as module, cpu
from pmam_plugin.nn.attention import relative_attention
from pmam_plugin.nn.cpu import skew


def inputs(length: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = [(2, 3, length, 4)] * 4 + [(3, 2 * length - 1, 4)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def by_definition(query: Tensor, key: Tensor, value: Tensor, position: Tensor, distance: Tensor) -> Tensor:
    length = query.shape[2]
    index = torch.arange(length)
    lookup = distance[:, (length - 1) - (index[:, None] - index)]
    logits = query @ key.transpose(2, 3) + torch.einsum("bhic,hijc->bhij", position, lookup)
    return (logits / 2).softmax(dim=-1) @ value


def test_skew_reads_every_logit_at_its_distance() -> None:
    length = 5
    distances = torch.arange(length - 1, -length, -1).expand(2, length, -1).contiguous()
    index = torch.arange(length)
    assert torch.equal(skew(distances)[1], index[:, None] - index)


@pytest.mark.parametrize("length", [1, 2, 16, 17, 53])
def test_all_ways_compute_the_same(length: int) -> None:
    tensors = inputs(length)
    expected = by_definition(*tensors)
    torch.testing.assert_close(relative_attention(*tensors), expected)
    with mock.patch.object(cpu, "_BLOCK_BYTES", 1):
        torch.testing.assert_close(relative_attention(*tensors), expected)
    with mock.patch.object(module, "_exporting", return_value=True):
        torch.testing.assert_close(relative_attention(*tensors), expected)


@pytest.mark.parametrize("length", [2, 16, 37])
def test_gradients_are_those_of_the_definition(length: int) -> None:
    tensors = [tensor.requires_grad_() for tensor in inputs(length)]
    target = torch.randn(2, 3, length, 4, dtype=torch.float64)
    with mock.patch.object(cpu, "_BLOCK_BYTES", 1):
        ours = torch.autograd.grad((relative_attention(*tensors) * target).sum(), tensors)
    theirs = torch.autograd.grad((by_definition(*tensors) * target).sum(), tensors)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-4)


def test_bfloat16_stays_near_float32() -> None:
    length = 200
    tensors = [tensor.requires_grad_() for tensor in inputs(length, torch.bfloat16)]
    exact = [tensor.detach().float().requires_grad_() for tensor in tensors]
    ours, theirs = relative_attention(*tensors), by_definition(*exact)
    torch.testing.assert_close(ours.float(), theirs, atol=0.03, rtol=0.03)
    ours.float().square().sum().backward()
    theirs.square().sum().backward()
    for mine, expected in zip(tensors, exact, strict=True):
        assert mine.grad is not None
        assert expected.grad is not None
        assert float((mine.grad - expected.grad).norm() / expected.grad.norm()) < 0.03
