from __future__ import annotations

import torch
from hypothesis import given, strategies as st

from pmam_plugin.nn.intervals import box_edges, edge_boxes, interval_iou

# Whole numbers, so that float rounding cannot make different intervals equal.
intervals = st.tuples(st.integers(0, 500), st.integers(1, 500)).map(
    lambda pair: torch.tensor([float(pair[0]), float(pair[0] + pair[1])])
)


@given(intervals, intervals)
def test_iou_is_symmetric_and_one_only_for_equal_intervals(first: torch.Tensor, second: torch.Tensor) -> None:
    for generalised in (False, True):
        iou = interval_iou(first, second, generalised)
        assert iou == interval_iou(second, first, generalised)
        assert (iou == 1) == bool((first == second).all())
    assert 0 <= interval_iou(first, second) <= 1
    assert -1 < interval_iou(first, second, True) <= interval_iou(first, second)


@given(intervals)
def test_boxes_and_edges_are_two_forms_of_one_interval(edges: torch.Tensor) -> None:
    torch.testing.assert_close(box_edges(edge_boxes(edges)), edges)


def test_generalised_iou_tells_near_misses_from_far_ones() -> None:
    event = torch.tensor([0.0, 1.0])
    near, far = torch.tensor([1.5, 2.5]), torch.tensor([8.0, 9.0])
    assert interval_iou(event, near) == interval_iou(event, far) == 0
    torch.testing.assert_close(interval_iou(event, near, True), torch.tensor(-0.2))
    assert interval_iou(event, near, True) > interval_iou(event, far, True)


def test_leading_axes_broadcast_to_all_pairs() -> None:
    first, second = torch.rand(3, 2).sort(-1).values, torch.rand(4, 2).sort(-1).values
    pairs = interval_iou(first[:, None], second[None])
    assert pairs.shape == (3, 4)
    assert pairs[1, 2] == interval_iou(first[1], second[2])


def test_empty_intervals_do_not_divide_by_zero() -> None:
    empty = torch.tensor([0.5, 0.5])
    assert interval_iou(empty, empty) == 0
    assert torch.isfinite(interval_iou(empty, empty, True))
