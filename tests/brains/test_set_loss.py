"""The set loss as a term of fine-tuning, and how well patches are found."""

import pytest
import torch

from pmam_plugin.brains import SetLoss
from pmam_plugin.brains.sedt import patch_overlap
from pmam_plugin.losses.event_targets import EventTargets
from pmam_plugin.losses.set_criterion import SetCriterion
from pmam_plugin.models import SetDetection
from pmam_plugin.models.sp_sedt import PretextOutput
from pmam_plugin.nn.intervals import edge_boxes
from pmam_plugin.nn.set_output import SetOutput
from tests.brains.test_objectives import CLASSES, CLIPS, FRAMES, state

QUERIES = 4
SPAN = 8.0  # label frames in the span that boxes refer to: the clips are shorter


def sets(grad=False):
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.rand(*shape, generator=generator).requires_grad_(grad)

    output = SetOutput(
        draw(2, CLIPS, QUERIES, CLASSES + 1), draw(2, CLIPS, QUERIES, 2), draw(CLIPS, CLASSES), span_seconds=0.8
    )
    frames = torch.zeros(CLIPS, FRAMES, CLASSES)
    return SetDetection(frames, frames[:, 0], output=output, candidates=frames, span_frames=SPAN)


def set_state(grad=False):
    now = state(teacher=False)
    now.student = sets(grad)
    return now


def test_the_terms_add_up_to_the_criterion_on_the_same_events():
    now, criterion = set_state(), SetCriterion(clip_weight=0.25)
    terms = SetLoss(criterion)(now, 0, 1)
    assert set(terms) == {"set_class", "set_l1", "set_iou", "set_clip", "set_auxiliary"}
    # Clip 0 holds class 0 in frames 0 and 1 of a span of 8; clip 1 is silent; 2 and 3 have tags.
    events = [([0], [[0.125, 0.25]]), ([], []), None, None, None, None]
    targets = EventTargets.from_events(events, CLASSES, tags=[None, None, [1], [2], None, None])
    torch.testing.assert_close(sum(terms.values()), criterion(now.student.output, targets).total)


def test_labelled_clips_teach_what_they_know_and_others_nothing():
    now = set_state(grad=True)
    sum(SetLoss(SetCriterion())(now, 0, 1).values()).backward()
    logits, tags = now.student.output.layer_logits.grad, now.student.output.tag_logits.grad
    assert (logits[:, :2].abs().sum(dim=(0, 2, 3)) > 0).all()
    assert logits[:, 2:].abs().sum() == 0
    assert (tags[:4].abs().sum(dim=1) > 0).all()
    assert tags[4:].abs().sum() == 0


def test_models_of_frames_are_refused():
    with pytest.raises(TypeError, match="predict sets"):
        SetLoss(SetCriterion())(state(), 0, 1)


def test_the_overlap_of_patches_is_that_of_the_most_confident_query_of_their_group():
    patches = torch.tensor([[[0.0, 0.5], [0.5, 1.0]]])
    # Group 1: the confident query is right, the other wrong; group 2: the confident one covers half.
    edges = torch.tensor([[[0.6, 0.7], [0.0, 0.5], [0.5, 0.75], [0.5, 1.0]]])
    logits = torch.tensor([[[-2.0, 2.0], [2.0, -2.0], [1.0, 0.0], [0.0, 0.0]]])
    output = SetOutput(logits[None], edge_boxes(edges)[None])
    targets = EventTargets.from_events([([0, 0], edge_boxes(patches[0]))], 1)
    prediction = PretextOutput(output, targets, torch.zeros(1, 2, 2))
    torch.testing.assert_close(patch_overlap(prediction), torch.tensor([[1.0, 0.5]]))
