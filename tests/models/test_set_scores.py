from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors import safe_open

from pmam_plugin.checkpoints.foreign import DESED_LABELS
from pmam_plugin.models.set_scores import decode_events, dense_scores, disjoint_boxes, fuse_tags, score_rows
from tests.support import shared

LABELS = ("a", "b")


@st.composite
def candidates(draw: st.DrawFn, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    count = draw(st.integers(0, 8))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    onsets = generator.uniform(-1, 10, count)
    edges = np.stack([onsets, onsets + generator.uniform(0, 5, count)], axis=1)
    return generator.uniform(0, 1, (count, classes)), edges


def events_above(table: pd.DataFrame, label: str, threshold: float) -> list[tuple[float, float]]:
    """Merge the rows above a threshold, as an evaluator would."""
    events: list[tuple[float, float]] = []
    for row in table[table[label] > threshold].itertuples():
        if events and events[-1][1] == row.onset:
            events[-1] = (events[-1][0], row.offset)
        else:
            events.append((row.onset, row.offset))
    return events


@given(candidates())
def test_thresholding_the_table_returns_exactly_the_boxes_above(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, edges = case
    table = score_rows(scores, edges, 10.0, LABELS).table()
    clipped = edges.clip(0, 10)
    for index, label in enumerate(LABELS):
        usable = (clipped[:, 1] - clipped[:, 0] >= 0.2) & (scores[:, index] >= 1e-3)
        boxes = disjoint_boxes(clipped[usable], scores[usable, index])
        for threshold in (0.0, 0.3, 0.7):
            expected = sorted((on, off) for on, off, score in boxes if score > threshold)
            np.testing.assert_allclose(
                np.reshape(events_above(table, label, threshold), (-1, 2)), np.reshape(expected, (-1, 2)), atol=1e-6
            )


@given(candidates(), st.floats(0.5, 12))
def test_tables_cover_the_clip_without_gaps(case: tuple[np.ndarray, np.ndarray], duration: float) -> None:
    table = score_rows(*case, duration, LABELS).table()
    assert table["onset"].iloc[0] == 0
    assert table["offset"].iloc[-1] == duration
    assert (table["onset"].to_numpy()[1:] == table["offset"].to_numpy()[:-1]).all()
    assert (table["offset"] > table["onset"]).all()
    values = table[list(LABELS)].to_numpy()
    assert (np.isneginf(values) | ((values >= 1e-3) & (values <= 1))).all()


@given(candidates(classes=1))
def test_suppressed_boxes_are_disjoint_and_the_best_survives(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, edges = case[0][:, 0], case[1]
    kept = disjoint_boxes(edges, scores, minimum_seconds=0.2)
    for number, (onset, offset, _) in enumerate(kept):
        assert offset - onset >= 0.2
        for other_onset, other_offset, _ in kept[:number]:
            assert onset >= other_offset + 9e-4 or offset <= other_onset - 9e-4
    long = edges[:, 1] - edges[:, 0] >= 0.2
    if long.any():
        best = np.flatnonzero(long)[scores[long].argmax()]
        assert kept[0] == (edges[best, 0], edges[best, 1], scores[best])


@given(candidates(classes=1), st.floats(0.1, 0.9))
def test_suppression_and_thresholding_commute(case: tuple[np.ndarray, np.ndarray], threshold: float) -> None:
    scores, edges = case[0][:, 0], case[1]
    above = scores > threshold
    assert disjoint_boxes(edges[above], scores[above]) == [b for b in disjoint_boxes(edges, scores) if b[2] > threshold]


def test_of_overlapping_boxes_the_weaker_one_is_dropped() -> None:
    edges, scores = np.array([[2.0, 6.0], [5.0, 9.0], [6.0, 7.0]]), np.array([0.9, 0.8, 0.7])
    assert disjoint_boxes(edges, scores) == [(2.0, 6.0, 0.9), (pytest.approx(6.001), 7.0, 0.7)]


def test_touching_events_of_one_class_stay_two() -> None:
    table = score_rows(np.array([[0.9], [0.6]]), np.array([[1.0, 2.0], [2.0, 3.0]]), 10.0, ("a",)).table()
    assert len(events_above(table, "a", 0.5)) == 2


def test_a_clip_without_events_is_one_row_on_which_nothing_fires() -> None:
    table = score_rows(np.zeros((3, 2)), np.tile([1.0, 5.0], (3, 1)), 7.5, LABELS).table()
    assert table.to_numpy().tolist() == [[0.0, 7.5, -np.inf, -np.inf]]


def test_scores_are_the_root_of_both_probabilities() -> None:
    probabilities, tags = torch.tensor([[[0.9, 0.4]]]), torch.tensor([[0.4, 0.9]])
    torch.testing.assert_close(fuse_tags(probabilities, tags), torch.tensor([[[0.6, 0.6]]]))


def test_fused_scores_have_a_finite_gradient_even_at_zero() -> None:
    probabilities = torch.zeros(1, 1, 1, requires_grad=True)
    fuse_tags(probabilities, torch.zeros(1, 1)).sum().backward()
    assert probabilities.grad is not None
    assert torch.isfinite(probabilities.grad).all()


@given(candidates())
@settings(deadline=None)
def test_dense_scores_are_the_largest_of_the_covering_boxes(case: tuple[np.ndarray, np.ndarray]) -> None:
    if not len(case[0]):
        return
    scores, edges = (torch.from_numpy(part).float()[None] for part in case)
    dense = dense_scores(scores, edges, frames=40, frame_rate=4.0)[0]
    for frame in range(40):
        middle = (frame + 0.5) / 4
        inside = (edges[0, :, 0] <= middle) & (middle < edges[0, :, 1])
        expected = scores[0][inside].amax(0) if inside.any() else torch.zeros(2)
        torch.testing.assert_close(dense[frame], expected)


def test_dense_scores_pass_the_gradient_to_the_winning_query() -> None:
    scores = torch.tensor([[[0.3], [0.8]]], requires_grad=True)
    dense_scores(scores, torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]), 4, 4.0).sum().backward()
    assert scores.grad is not None
    assert scores.grad.flatten().tolist() == [0.0, 4.0]


@pytest.mark.parametrize("tagged", [False, True])
def test_event_lists_equal_the_reference(tagged: bool) -> None:
    with safe_open(shared("reference_outputs/sedt_components.safetensors"), "pt") as file:
        logits, boxes, tags = (file.get_tensor(f"post.{name}") for name in ("logits", "boxes", "tags"))
        expected = json.loads(file.metadata()[f"post_events_strategy_{'1' if tagged else None}"])
    found = decode_events(logits.softmax(-1)[..., :-1], boxes, DESED_LABELS, tags if tagged else None)
    for table, reference in zip(found, expected, strict=True):
        rows = sorted(zip(table.event_label, table.onset, table.offset, table.score))
        assert [row[0] for row in rows] == [row[0] for row in sorted(map(tuple, reference))]
        np.testing.assert_allclose(
            [row[1:] for row in rows], [row[1:] for row in sorted(map(tuple, reference))], atol=1e-4
        )


def test_events_are_cut_to_the_clip_and_short_or_weak_ones_dropped() -> None:
    probabilities = torch.tensor([[[0.9], [0.9], [0.4]]])
    boxes = torch.tensor([[[0.95, 0.2], [0.5, 0.01], [0.2, 0.1]]])
    (table,) = decode_events(probabilities, boxes, ["a"], durations=[9.8])
    assert table.round(4).to_numpy().tolist() == [[8.5, 9.8, "a", 0.9]]
