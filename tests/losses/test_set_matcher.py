from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st

from pmam_plugin.losses.event_targets import EventTargets
from pmam_plugin.losses.matcher import HungarianMatcher, Match, OneToManyMatcher
from pmam_plugin.nn.intervals import box_edges, interval_iou
from pmam_plugin.nn.set_output import SetOutput


def random_case(seed: int, events: tuple[int, ...] = (3, 0, 2), queries: int = 6, layers: int = 2):
    generator = torch.Generator().manual_seed(seed)
    clips = []
    for count in events:
        boxes = torch.rand(count, 2, generator=generator) * 0.8 + 0.1
        clips.append((torch.randint(0, 4, (count,), generator=generator), boxes))
    logits = torch.randn(layers, len(events), queries, 5, generator=generator)
    boxes = torch.rand(layers, len(events), queries, 2, generator=generator)
    return SetOutput(logits, boxes), EventTargets.from_events(clips, 4)


def pairs(match: Match) -> set[tuple[int, int, int]]:
    return set(zip(match.clip.tolist(), match.query.tolist(), match.target.tolist()))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(6)))
def test_matching_is_invariant_to_query_order(seed: int, order: list[int]) -> None:
    output, targets = random_case(seed)
    shuffled = SetOutput(output.layer_logits[:, :, order], output.layer_boxes[:, :, order])
    for before, after in zip(HungarianMatcher()(output, targets), HungarianMatcher()(shuffled, targets)):
        assert pairs(before) == {(clip, order[query], target) for clip, query, target in pairs(after)}


def test_no_other_assignment_is_cheaper() -> None:
    matcher = HungarianMatcher()
    for seed in range(5):
        output, targets = random_case(seed, queries=4)
        cost = matcher.location_cost(output.boxes, targets) + matcher.label_cost(output, targets)[-1]
        match = matcher(output, targets)[-1]
        for clip, count in enumerate(targets.counts.tolist()):
            chosen = match.clip == clip
            found = cost[clip, match.query[chosen], match.target[chosen]].sum()
            options = itertools.permutations(range(4), count)
            best = min(sum(float(cost[clip, q, t]) for t, q in enumerate(option)) for option in options)
            assert float(found) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("joining", [False, True])
def test_a_query_never_predicts_an_event_that_is_not_its_own(joining: bool) -> None:
    matcher = OneToManyMatcher(near=1e9, keep=1e9) if joining else HungarianMatcher()
    for seed in range(5):
        output, targets = random_case(seed, events=(3, 3))
        # Queries 0 and 1 for event 0, and so on.
        targets.eligible = (torch.arange(6)[:, None] // 2 == torch.arange(3)).expand(2, -1, -1)
        for match in matcher(output, targets):
            assert (match.query // 2 == match.target).all()
            assert match.target.unique().tolist() == [0, 1, 2]


def test_costs_follow_their_formula() -> None:
    output, targets = random_case(1, events=(2,), queries=3, layers=1)
    matcher = HungarianMatcher(class_cost=0.7, l1_cost=3.0, iou_cost=1.5)
    location, label = matcher.location_cost(output.boxes, targets), matcher.label_cost(output, targets)
    predicted, true = box_edges(output.boxes[0, 2]), box_edges(targets.boxes[0, 1])
    expected = 3.0 * (predicted - true).abs().sum() - 1.5 * interval_iou(predicted, true, generalised=True)
    torch.testing.assert_close(location[0, 2, 1], expected)
    probability = output.logits[0, 2].softmax(-1)[targets.labels[0, 1]]
    torch.testing.assert_close(label[0, 0, 2, 1], -0.7 * probability)


def test_events_beyond_the_queries_stay_unmatched_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    output, targets = random_case(0, events=(5,), queries=2)
    with caplog.at_level("WARNING"):
        match = HungarianMatcher()(output, targets)[-1]
    assert sorted(match.query.tolist()) == [0, 1]
    assert "5 events for 2 queries" in caplog.text


def test_a_diverged_model_is_still_matched_so_that_its_loss_can_tell() -> None:
    output, targets = random_case(0)
    output.layer_boxes[:] = torch.nan
    assert len(HungarianMatcher()(output, targets)[-1].clip) == 5


def near_case(queries: int = 8) -> tuple[SetOutput, EventTargets]:
    """Half of the queries lie on event 0, the other half far from both events; a silent clip follows."""
    targets = EventTargets.from_events([([0, 1], [[0.3, 0.2], [0.8, 0.1]]), ([], [])], 2)
    boxes = torch.tensor([0.3, 0.2]).repeat(2, queries, 1) + 0.008 / queries * torch.arange(queries)[:, None]
    boxes[:, queries // 2 :] = torch.tensor([0.97, 0.02])
    logits = torch.zeros(2, queries, 3)
    logits[..., 0] = 2.0
    return SetOutput(logits[None], boxes[None]), targets


def test_several_queries_join_an_event_they_are_near_to() -> None:
    output, targets = near_case()
    match = OneToManyMatcher(keep=100.0)(output, targets)[-1]
    found = pairs(match)
    assert {(0, query, 0) for query in range(4)} <= found
    assert len(found) == 5  # the far event keeps its one query, far queries stay free, and the silent clip is silent
    assert pairs(HungarianMatcher()(output, targets)[-1]) <= found
    anywhere = OneToManyMatcher(HungarianMatcher(l1_cost=0.0, iou_cost=0.0), keep=100.0)(output, targets)[-1]
    assert len(anywhere.query) == 8


def test_joining_is_rarer_the_fewer_events_there_are() -> None:
    output, targets = near_case(queries=4000)
    torch.manual_seed(0)
    match = OneToManyMatcher(keep=400.0)(output, targets)[-1]
    # 2 events, 4000 queries: chance 0.2 for each of the 2000 near ones.
    assert len(match.query) / 2000 == pytest.approx(0.2, abs=0.03)


def test_one_to_many_can_fall_to_one_to_one() -> None:
    output, targets = near_case()
    matcher, joined = OneToManyMatcher(keep=100.0, anneal_epochs=4), []
    for epochs in (0, 3.9999, 4, 9):
        matcher.at(epochs)
        joined.append(len(matcher(output, targets)[-1].query))
    assert joined[0] == 5
    assert joined[2:] == [2, 2]


def test_published_assignment_drops_far_pairs_and_ignores_the_class() -> None:
    output, targets = near_case()
    # A second, worse-placed event of the class that the queries believe in.
    targets.boxes[0, 1], targets.labels[0] = torch.tensor([0.33, 0.2]), torch.tensor([1, 0])
    output.layer_logits[..., 0] = 20.0
    repaired = pairs(OneToManyMatcher(keep=100.0, near=2.0)(output, targets)[-1])
    published = pairs(OneToManyMatcher(keep=100.0, near=2.0, published=True)(output, targets)[-1])
    assert sum(target == 1 for _, _, target in repaired) > sum(target == 1 for _, _, target in published)
    output, targets = near_case()
    assert {target for _, _, target in pairs(OneToManyMatcher(published=True)(output, targets)[-1])} == {0}


def test_auxiliary_layers_stay_one_to_one_and_no_events_is_no_error() -> None:
    output, targets = random_case(3)
    assert pairs(OneToManyMatcher(keep=100.0)(output, targets)[0]) == pairs(HungarianMatcher()(output, targets)[0])
    output, targets = random_case(3, events=(0, 0))
    assert [len(match.clip) for match in OneToManyMatcher()(output, targets)] == [0, 0]
