"""What SEDT offers beyond the paper: that it learns, where its queries look, and what they must not see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pmam_plugin.brains.objectives import StepState
from pmam_plugin.brains.schedules import Ramp
from pmam_plugin.brains.set_loss import PseudoEvents, SetLoss
from pmam_plugin.evaluation import evaluate_scores
from pmam_plugin.features import FrontEnds, SEDTMel
from pmam_plugin.losses.event_targets import EventTargets
from pmam_plugin.losses.set_criterion import SetCriterion
from pmam_plugin.models.sedt import SEDT
from pmam_plugin.nn.intervals import box_edges, edge_boxes
from pmam_plugin.nn.query_decoder import EdgePointer, Memory, SetNetwork
from pmam_plugin.nn.resnet import SpectrogramResNet
from pmam_plugin.nn.set_transformer import sine_positions
from tests.brains.batches import labelled
from tests.sedt_models import LABELS, some_targets, tiny_network, tiny_pretext

SECONDS, RATE, CLIPS = 4.0, 16000, 16
MODERN = {"anchors": True, "position_temperature": 20.0, "position_scale": 60.0}


def tones() -> tuple[torch.Tensor, pd.DataFrame]:
    """Clips with up to three tones, one after another; a class is a pitch."""
    generator, time = np.random.default_rng(0), np.arange(round(SECONDS * RATE)) / RATE
    waves, rows = [], []
    for clip in range(CLIPS):
        wave, offset = 0.003 * generator.standard_normal(len(time)), 0.1
        for _ in range(generator.integers(1, 4)):
            onset = offset + generator.uniform(0.05, 0.6)
            offset, kind = onset + generator.uniform(0.3, 0.9), int(generator.integers(3))
            if offset > SECONDS - 0.1:
                break
            wave += 0.2 * ((time >= onset) & (time < offset)) * np.sin(2 * np.pi * (400, 1500, 4500)[kind] * time)
            rows.append((f"c{clip}", onset, offset, LABELS[kind]))
        waves.append(wave.astype(np.float32))
    return torch.from_numpy(np.stack(waves)), pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])


@pytest.mark.parametrize("pointed", [False, True], ids=["regressed", "pointed"])
def test_sixteen_clips_can_be_learned_by_heart(pointed: bool) -> None:
    torch.manual_seed(0)
    waves, events = tones()
    frontend = FrontEnds(mel=SEDTMel())
    frontend.named()["mel"].fit([waves])
    backbone = SpectrogramResNet("resnet10t", 8, False, False, (), widths=(8, 16, 24, 32))
    options: dict[str, Any] = {**MODERN, "pointed_edges": pointed}
    network = SetNetwork(backbone, 6, 32, 4, 1, 2, 64, dropout=0.0, frequency_bands=8, **options)
    model = SEDT(frontend, network, LABELS, SECONDS)
    criterion, features = SetCriterion(clip_weight=0.25), frontend(waves)
    names, by_clip = [f"c{clip}" for clip in range(CLIPS)], []
    for name in names:
        own = events[events.filename == name]
        edges = torch.tensor(own[["onset", "offset"]].to_numpy(np.float32)) / SECONDS
        by_clip.append(([LABELS.index(label) for label in own.event_label], edge_boxes(edges)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    for step in range(220):
        chosen = torch.randperm(CLIPS)[:8]
        targets = EventTargets.from_events([by_clip[clip] for clip in chosen], len(LABELS))
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * (1 if step < 150 else 0.2)
        optimizer.zero_grad()
        criterion(model({"mel": features["mel"][chosen]}).output, targets).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        tables = model.eval().score_tables(model(features), [SECONDS] * CLIPS)
    found = evaluate_scores(dict(zip(names, tables)), events, dict.fromkeys(names, SECONDS), LABELS, bootstrap=0)
    assert float(found["event_f1_macro"]) > 0.8


def modern(**options: object) -> SEDT:
    torch.manual_seed(0)
    return SEDT(FrontEnds(mel=SEDTMel()), tiny_network(**MODERN), LABELS, SECONDS, **options)  # type: ignore[arg-type]


def mel(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 64, 199, generator=torch.Generator().manual_seed(1))


def test_boxes_begin_at_the_anchors_which_lie_all_over_the_clip() -> None:
    boxes = modern().eval()({"mel": mel()}).output.layer_boxes
    assert torch.allclose(boxes, boxes[0, 0], atol=1e-4)
    assert torch.allclose(boxes[0, 0, :, 0], (torch.arange(6) + 0.5) / 6, atol=1e-4)


def test_a_query_looks_where_its_anchor_is() -> None:
    network = tiny_network(**MODERN).eval()
    memory = network.encode(mel(1), span_frames=199)
    place = torch.tensor([[[0.2, 0.1], [0.8, 0.1]]])
    bias = network.anchors.bias(place, memory, leading=1).unflatten(0, (1, -1))
    assert (bias[:, :, 0] == 0).all(), "the audio query looks everywhere"
    middle = (bias.softmax(dim=-1) * memory.shares).sum(dim=-1)[0].mean(dim=0)
    assert float(middle[1]) == pytest.approx(0.2, abs=0.04)
    assert float(middle[2]) == pytest.approx(0.8, abs=0.04)


def line(cells: int = 20) -> Memory:
    """A memory in which something begins in cell 5 and ends in cell 9."""
    tokens = torch.zeros(1, cells, 2)
    tokens[0, 5, 0] = tokens[0, 9, 1] = 1.0
    shares = (torch.arange(cells) + 0.5) / cells
    return Memory(tokens, torch.zeros(cells, 2), None, 1, shares, 1 / cells)


def pointing(loud: float) -> EdgePointer:
    """It asks every cell for a channel: onsets for the first, offsets for the second."""
    pointer = EdgePointer(2)
    with torch.no_grad():
        pointer.query.bias.copy_(torch.tensor([loud, 0, 0, loud]))
        pointer.key.weight.zero_()
        pointer.key.bias.zero_()
        pointer.key.weight[[0, 3], [0, 1], 1] = 1.0
    return pointer


def test_pointed_edges_are_where_the_memory_says() -> None:
    memory, pointer = line(), pointing(60.0)
    reference = torch.tensor([[[0.5, 0.4], [0.3, 0.2]]])
    boxes = pointer(torch.zeros(1, 2, 2), reference, memory, pointer.keys(memory))
    torch.testing.assert_close(box_edges(boxes), torch.tensor([[[5 / 20, 10 / 20]] * 2]), atol=1e-3, rtol=0)
    memory.padding = torch.arange(20)[None] >= 9  # its end is no sound any more
    boxes = pointer(torch.zeros(1, 2, 2), reference, memory, pointer.keys(memory))
    assert float(box_edges(boxes)[0, 0, 1]) <= 9 / 20 + 1e-6


def test_before_anything_is_learned_pointed_edges_stay_near_the_anchors() -> None:
    memory, pointer = line(125), EdgePointer(2)
    begun = torch.stack(((torch.arange(6) + 0.5) / 6, torch.full((6,), 0.2)), dim=-1)[None]
    boxes = begun
    for _ in range(3):
        boxes = pointer(torch.randn(1, 6, 2), boxes, memory, pointer.keys(memory))
    assert float((boxes - begun)[..., 0].abs().max()) < 0.1, "but for what lies beyond the clip"


def test_crossed_edges_find_back() -> None:
    memory, pointer = line(), pointing(12.0)
    memory.tokens = memory.tokens.flip(-1)  # now the offset lies before the onset
    boxes = pointer(torch.zeros(1, 1, 2), torch.tensor([[[0.4, 0.3]]]), memory, pointer.keys(memory))
    assert 0 < float(boxes[0, 0, 1]) < 1 / 20
    (box_edges(boxes) - torch.tensor([0.2, 0.6])).abs().sum().backward()
    assert pointer.query.bias.grad is not None
    assert float(pointer.query.bias.grad.abs().sum()) > 0
    with pytest.raises(ValueError, match="anchors: true"):
        tiny_network(pointed_edges=True)


def test_positions_can_tell_neighbouring_cells_apart() -> None:
    def likeness(**options: float) -> float:
        positions = torch.nn.functional.normalize(sine_positions(62, 256, **options), dim=-1)
        return float((positions[1:] * positions[:-1]).sum(dim=-1).mean())

    assert likeness() > 0.9995
    assert likeness(temperature=20.0, scale=60.0) < 0.95
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sine_positions(31, 256), sine_positions(31, 256))
        assert sine_positions(31, 256).dtype == torch.float32


def test_noised_events_are_seen_by_nobody_but_their_group() -> None:
    model, targets = modern(denoising=2).train(), some_targets()
    for part in model.modules():
        if hasattr(part, "p"):
            part.p = 0.0  # dropout
        if isinstance(part, torch.nn.MultiheadAttention):
            part.dropout = 0.0
    plain = model.eval()._predict({"mel": mel(4)}, None)[0]
    assert plain.denoising is None
    model.train()
    noised = model._predict({"mel": mel(4)}, None, targets)[0]
    assert noised.denoising is not None
    assert noised.denoising.boxes.shape == (4, 2 * targets.labels.shape[1], 2)
    torch.testing.assert_close(noised.layer_logits, plain.layer_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(noised.tag_logits, plain.tag_logits, atol=1e-4, rtol=1e-4)
    parts = SetCriterion()(noised, targets).parts
    perfect = noised.denoising
    perfect.layer_boxes = targets.boxes.repeat(1, 2, 1).expand_as(perfect.layer_boxes)
    mended = SetCriterion()(noised, targets).parts
    assert float(parts["l1_noised0"]) > float(mended["l1_noised0"]) == pytest.approx(0.0, abs=1e-6)


def state(student: SEDT, teacher: SEDT | None = None, **changes: object) -> StepState:
    """A strong, a weak and two unlabelled clips."""
    strong, weak = torch.zeros(4, 200, 3), torch.zeros(4, 3)
    strong[0, 50:100, 1], weak[1, 2] = 1.0, 1.0
    batch = labelled(torch.zeros(4, 64000), strong, weak, RATE, torch.tensor([0, 1, 2, 2]))
    targets = {"strong": strong, "weak": weak, "padding": torch.zeros(4, 200, dtype=torch.bool)}
    given = SetLoss(SetCriterion()).student_inputs(student, batch, targets)
    detected = student({"mel": mel(4)}, **given)
    followed = None if teacher is None else teacher.eval()({"mel": mel(4)})
    return StepState(detected, followed, targets, batch, None, {})


def test_the_frame_head_learns_beside_the_set_and_can_tag() -> None:
    model = modern(frame_head=True, tag_from="frames", denoising=1).train()
    now = state(model)
    assert now.student.followed.shape == (4, 200, 3)
    terms = SetLoss(SetCriterion(), frame_weight=1.0)(now, 0, 1)
    (terms["frame_bce"] + terms["frame_clip_bce"]).backward()
    assert model.frame_head.weight.grad.abs().sum() > 0
    assert model.network.input_projection.weight.grad.abs().sum() > 0
    now.student.followed = torch.zeros(4, 200, 3)
    now.student.followed[0], now.student.followed[1, :, 2] = now.targets["strong"][0], 1.0
    terms = SetLoss(SetCriterion(), frame_weight=1.0)(now, 0, 1)
    assert float(terms["frame_bce"]) == float(terms["frame_clip_bce"]) == 0
    with pytest.raises(ValueError, match="frame head"):
        modern(tag_from="frames")


def test_the_teachers_sure_events_are_labels_where_there_are_none() -> None:
    model, teacher = modern(denoising=1).train(), modern()
    now = state(model, teacher)
    output = now.teacher.output
    output.layer_logits[-1] = torch.tensor([0.0, 0.0, 0.0, 9.0])
    output.layer_logits[-1, :, 0] = torch.tensor([9.0, 0.0, 0.0, 0.0])  # one sure event per clip, a cat
    output.layer_boxes[-1, :, 0] = torch.tensor([0.3, 0.2])
    now.teacher.tags = torch.tensor([[1.0, 0.0, 0.0]] * 3 + [[0.0, 0.0, 1.0]])  # of clip 3 the tag disagrees
    seen = []
    criterion = SetCriterion()
    criterion.register_forward_pre_hook(lambda _, given: seen.append(given))
    loss = PseudoEvents(criterion, Ramp(2.0, shape="none"))(now, 0, 1)["pseudo_events"]
    _, targets, _ = seen[0]
    assert targets.strong.tolist() == [False, False, True, True], "labelled clips have labels of their own"
    assert targets.counts.tolist() == [0, 0, 1, 0]
    torch.testing.assert_close(box_edges(targets.boxes[2, 0]), torch.tensor([0.2, 0.4]))
    torch.testing.assert_close(loss, 2 * criterion(*seen[0]).total)


def test_patches_as_content_reach_the_decoder() -> None:
    """Which patch is looked for must change the answer more than dropout does."""

    def moved(**options: object) -> float:
        pretext = tiny_pretext(patch_dropout=0.0, **options).eval()
        bounds = torch.tensor([[[0, 40], [60, 110], [120, 199]]]).expand(2, -1, -1)
        first, second = (
            pretext({"mel": mel()}, bounds=bounds[:, order]).output.layer_features for order in ([0, 1, 2], [1, 2, 0])
        )
        return float((first - second).abs().mean())

    with torch.no_grad():
        assert moved(patches_are_content=True) > 3 * moved()
