from __future__ import annotations

import pytest
import torch

from pmam_plugin.prototypes.triangular import Whiteners, blocks, upper_scatter


@pytest.mark.parametrize("width", [1, 5, 64, 65, 200, 300])
def test_blockwise_distances_equal_those_of_the_whole_matrices(width: int) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, width, width).triu() / width**0.5
    means = torch.randn(3, width, dtype=torch.float64)
    frames = torch.randn(40, width)
    whiteners = Whiteners(3, width, torch.device("cpu"))
    for component, matrix in enumerate(matrices):
        whiteners[component] = matrix
    expected = torch.stack(
        [((frames.double() - mean) @ matrix.double()).square().sum(1) for mean, matrix in zip(means, matrices)]
    )
    found = whiteners.squared_distances(frames, means, means.mean(dim=0))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(whiteners[2], matrices[2])


def test_the_zero_half_is_hardly_multiplied() -> None:
    done = sum((end - start) * end for start, end in blocks(768))
    assert done < 0.55 * 768**2


@pytest.mark.parametrize("width", [3, 256, 300])
def test_the_scatter_is_right_in_its_upper_triangle(width: int) -> None:
    frames = torch.randn(70, width)
    torch.testing.assert_close(upper_scatter(frames).triu(), (frames.T @ frames).triu(), rtol=1e-4, atol=1e-4)
