from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors import safe_open

from pmam_plugin.losses.event_targets import PADDING, EventTargets
from pmam_plugin.losses.set_criterion import SetCriterion, feature_distance
from pmam_plugin.nn.set_output import SetOutput
from tests.support import shared


def reference() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(shared("reference_outputs/sedt_components.safetensors"), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, {name: value for name, value in file.metadata().items()}


def matched(criterion: SetCriterion, output: SetOutput, targets: EventTargets, clip: int) -> list[list[int]]:
    match = criterion.matcher(output, targets)[-1]
    chosen = match.clip == clip
    return [match.query[chosen].tolist(), match.target[chosen].tolist()]


def test_matching_and_every_loss_equal_the_reference() -> None:
    tensors, header = reference()
    strong = [(tensors[f"targets.{clip}.labels"], tensors[f"targets.{clip}.boxes"]) for clip in (0, 1)]
    weak = [tensors[f"targets.{clip}.labels"].tolist() for clip in (2, 3)]
    targets = EventTargets.from_events([*strong, None, None], 10, tags=[None, None, *weak])
    layers = ("pred.aux0", "pred.aux1", "pred")
    output = SetOutput(
        torch.stack([tensors[f"{layer}.logits"] for layer in layers]),
        torch.stack([tensors[f"{layer}.boxes"] for layer in layers]),
        tensors["pred.tags"].logit(),
    )
    criterion = SetCriterion(normalise_by="matches")
    losses = criterion(output, targets)
    expected = json.loads(header["losses"])
    names = {"class": "loss_ce", "l1": "loss_bbox", "iou": "loss_giou", "clip": "loss_weak"}
    for name, value in losses.parts.items():
        kind, _, layer = name.partition("_")
        assert float(value) == pytest.approx(expected[names[kind] + ("_" + layer if layer else "")], rel=1e-5)
    assert len(losses.parts) == 10
    assert float(losses.total) == pytest.approx(float(header["loss_total"]), rel=1e-5)
    assert [matched(criterion, output, targets, clip) for clip in (0, 1)] == json.loads(header["matching"])


def test_easy_predictions_equal_the_reference() -> None:
    tensors, header = reference()
    events = [(tensors[f"targets.{clip}.labels"], tensors[f"targets.{clip}.boxes"]) for clip in (0, 1)]
    targets = EventTargets.from_events(events, 10)
    output = SetOutput(tensors["easy.logits"][None], tensors["easy.boxes"][None])
    criterion = SetCriterion(normalise_by="matches")
    losses, expected = criterion(output, targets).parts, json.loads(header["easy_one2one_losses"])
    for name, other in (("class", "loss_ce"), ("l1", "loss_bbox"), ("iou", "loss_giou")):
        assert float(losses[name]) == pytest.approx(expected[other], rel=1e-5)
    found = [matched(criterion, output, targets, clip) for clip in (0, 1)]
    assert found == json.loads(header["easy_one2one_matching"])


def perfect_case(seed: int) -> tuple[SetOutput, EventTargets]:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 5, (3,), generator=generator).tolist()
    boxes = [torch.rand(count, 2, generator=generator) * 0.5 + 0.2 for count in counts]
    labels = [torch.randint(0, 4, (count,), generator=generator) for count in counts]
    targets = EventTargets.from_events(list(zip(labels, boxes)), 4)
    targets.features = torch.randn(3, targets.labels.shape[1], 8, generator=generator)
    logits = torch.full((2, 3, 6, 5), -40.0)
    logits[..., 4] = 0.0
    placed, features = torch.rand(2, 3, 6, 2, generator=generator), torch.randn(2, 3, 6, 8, generator=generator)
    for clip, count in enumerate(counts):
        for layer in range(2):
            queries = torch.randperm(6, generator=generator)[:count]
            placed[layer, clip, queries] = boxes[clip]
            # Features count in direction only.
            features[layer, clip, queries] = 3 * targets.features[clip, :count]
            logits[layer, clip, queries] = -40.0
            logits[layer, clip, queries, labels[clip]] = 40.0
    return SetOutput(logits, placed, (targets.tags - 0.5) * 100, features), targets


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_perfect_predictions_cost_nothing(seed: int) -> None:
    losses = SetCriterion()(*perfect_case(seed))
    for name, value in losses.parts.items():
        assert float(value) == pytest.approx(0.0, abs=1e-5), name
    assert {name.partition("_")[0] for name in losses.parts} == {"class", "l1", "iou", "feature", "clip"}


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_any_fault_costs_something(seed: int) -> None:
    output, targets = perfect_case(seed)
    if not int(targets.counts.sum()):
        return
    output.layer_boxes = (output.layer_boxes * 0.9 + 0.01).clamp(0, 1)
    worse = SetCriterion()(output, targets).parts
    assert worse["l1"] > 1e-4
    assert worse["iou"] > 1e-4


def test_a_batch_without_events_has_a_finite_loss_and_gradients_for_every_head() -> None:
    # The published normaliser divides by zero here.
    targets = EventTargets.from_events([([], []), None], 3, tags=[None, [1]])
    for normalise_by in ("weights", "matches"):
        logits = torch.randn(2, 2, 4, 4, requires_grad=True)
        boxes = torch.rand(2, 2, 4, 2, requires_grad=True)
        tags = torch.randn(2, 3, requires_grad=True)
        losses = SetCriterion(normalise_by=normalise_by)(SetOutput(logits, boxes, tags), targets)
        losses.total.backward()
        assert torch.isfinite(losses.total)
        assert logits.grad is not None
        assert logits.grad[:, 0].abs().sum() > 0
        assert logits.grad[:, 1].abs().sum() == 0  # where events are unknown, no-object is not taught
        assert boxes.grad is not None
        assert tags.grad is not None


def test_clips_without_labels_change_nothing() -> None:
    output, targets = perfect_case(3)
    output.layer_logits = output.layer_logits / 20
    before = SetCriterion()(output, targets)
    targets.strong[1] = targets.tagged[1] = False
    without = SetCriterion()(output, targets).total
    output.layer_logits[:, 1] = torch.randn_like(output.layer_logits[:, 1])
    torch.testing.assert_close(SetCriterion()(output, targets).total, without)
    assert before.total != without


def test_shares_follow_the_matched_event_not_the_query_order() -> None:
    # The reference takes the shares in the order of the queries. Query 0 lies on event 1, query 1 on event 0.
    boxes = torch.tensor([[0.7, 0.2], [0.3, 0.2]]) + 0.01
    targets = EventTargets.from_events([([0, 0], [[0.3, 0.2], [0.7, 0.2]])], 1, weights=[[0.9, 0.1]])
    boxes[0] += 0.02
    output = SetOutput(torch.zeros(1, 1, 2, 2), boxes[None, None])
    losses = SetCriterion(normalise_by="matches")(output, targets).parts
    errors = torch.tensor([0.005 + 0.015, 3 * (0.005 + 0.015)])  # |onset| + |offset| of a box moved by (d, d)
    torch.testing.assert_close(losses["l1"], 0.9 * errors[0] + 0.1 * errors[1], atol=1e-6, rtol=1e-4)


def test_cross_entropy_is_detrs_weighted_mean_or_the_published_sum() -> None:
    output, targets = perfect_case(3)
    output.layer_logits = torch.randn_like(output.layer_logits)
    match = SetCriterion().matcher(output, targets)[-1]
    classes = torch.full(output.logits.shape[:2], 4)
    classes[match.clip, match.query] = targets.labels[match.clip, match.target]
    rows, weight = (output.logits.flatten(0, 1), classes.flatten()), torch.tensor([1.0, 1.0, 1.0, 1.0, 0.1])
    mean = torch.nn.functional.cross_entropy(*rows, weight)
    torch.testing.assert_close(SetCriterion()(output, targets).parts["class"], mean)
    total = torch.nn.functional.cross_entropy(*rows, weight, reduction="sum")
    summed = SetCriterion(normalise_by="matches")(output, targets).parts["class"]
    torch.testing.assert_close(summed, total / int(targets.counts.sum()))


def test_feature_distance_ranges_from_same_to_opposite_direction() -> None:
    vector = torch.randn(5, 7)
    torch.testing.assert_close(feature_distance(vector, 2 * vector), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(feature_distance(vector, -vector), torch.full((5,), 4.0))


@pytest.mark.parametrize("normalise_by", ["weights", "matches"])
@pytest.mark.parametrize("silent", [False, True])
def test_losses_of_parts_add_up_to_those_of_the_batch(normalise_by: str, silent: bool) -> None:
    """Also where all clips of a part are known to be without events."""
    output, targets = perfect_case(5)
    if silent:
        targets.labels[0], targets.weights[0] = PADDING, 0.0
        assert bool(targets.strong[0])
    output.layer_boxes, output.layer_logits = output.layer_boxes * 0.9, output.layer_logits * 0.02
    output.layer_features, output.tag_logits = None, output.tag_logits * 0.02
    criterion, whole = SetCriterion(normalise_by=normalise_by), targets.total()
    alone = criterion(output, targets).parts
    parts = []
    for rows in (slice(0, 1), slice(1, None)):
        logits, boxes = output.layer_logits[:, rows], output.layer_boxes[:, rows]
        part = replace(output, layer_logits=logits, layer_boxes=boxes, tag_logits=output.tag_logits[rows])
        parts.append(criterion(part, targets[rows], whole).parts)
    for name, value in alone.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], value, msg=name)
        assert silent or float(parts[1][name]) != float(value)


def test_weights_scale_the_terms_of_every_layer() -> None:
    output, targets = perfect_case(2)
    output.layer_boxes = output.layer_boxes * 0.9
    output.layer_features = None
    losses = SetCriterion(l1_weight=2.0, iou_weight=0.0, class_weight=0.0, clip_weight=0.0)(output, targets)
    assert set(losses.parts) == {"class", "l1", "iou", "class_0", "l1_0", "iou_0", "clip"}
    torch.testing.assert_close(losses.total, 2 * (losses.parts["l1"] + losses.parts["l1_0"]))


def test_an_unknown_normaliser_is_refused() -> None:
    with pytest.raises(ValueError, match="weights or matches"):
        SetCriterion(normalise_by="pairs")
