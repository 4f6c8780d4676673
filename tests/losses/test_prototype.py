import json

import pytest
import torch
from hypothesis import given, strategies as st
from safetensors import safe_open

from pmam_plugin.augment import MixPlan
from pmam_plugin.losses.prototype import (
    PrototypeBCE,
    PrototypeInfoNCE,
    prototype_bce,
    prototype_logits,
    prototype_presence,
)
from tests.support import shared


def test_logits_and_loss_match_the_reference_system():
    with safe_open(shared("reference_outputs/pmam_components.safetensors"), "pt") as file:
        embedding, means = file.get_tensor("prototype.embedding"), file.get_tensor("prototype.means")
        expected = file.get_tensor("prototype.probability")
        labels, mask = file.get_tensor("prototype.labels"), file.get_tensor("prototype.mask")
        loss = float(file.metadata()["prototype_loss"])
    logits = prototype_logits(embedding, means)
    torch.testing.assert_close(logits.sigmoid(), expected[:1], atol=1e-4, rtol=1e-4)
    mask, posteriors = mask.bool(), labels.transpose(1, 2)
    # Only clip 0's embedding is stored; both clips' probabilities are, so the loss is checked through them.
    both = prototype_bce(torch.logit(expected.double())[mask], posteriors[mask])
    assert float(both) == pytest.approx(loss, rel=1e-4)
    direct = PrototypeBCE()(embedding, mask[:1], posteriors=posteriors[:1], prototypes=means)
    assert float(direct) == pytest.approx(
        float(prototype_bce(torch.logit(expected.double())[:1][mask[:1]], posteriors[:1][mask[:1]])), rel=1e-4
    )


def test_cosine_of_one_half_is_undecided():
    axis = torch.tensor([[1.0, 0.0]])
    half = torch.tensor([[0.5, 3**0.5 / 2]])
    assert prototype_logits(half, axis).item() == pytest.approx(0.0, abs=1e-5)
    assert prototype_logits(axis, axis).item() == pytest.approx(10.0, abs=1e-4)
    assert prototype_logits(-axis, axis).item() == pytest.approx(-14.0, abs=1e-4)


@given(scale=st.floats(0.01, 100))
def test_only_the_direction_of_embeddings_matters(scale):
    torch.manual_seed(0)
    embeddings, prototypes = torch.randn(5, 8), torch.randn(3, 8)
    torch.testing.assert_close(
        prototype_logits(embeddings * scale, prototypes),
        prototype_logits(embeddings, prototypes),
        atol=1e-3,
        rtol=1e-3,
    )


@pytest.mark.parametrize("loss", [PrototypeBCE(), PrototypeInfoNCE(), PrototypeBCE(label_smoothing=0.1, focal_gamma=2)])
def test_visible_frames_do_not_count(loss):
    torch.manual_seed(0)
    prediction, prototypes = torch.randn(2, 20, 8), torch.randn(4, 8)
    posteriors, mask = torch.rand(2, 20, 4).softmax(-1), torch.rand(2, 20) < 0.5
    value = loss(prediction, mask, posteriors=posteriors, prototypes=prototypes)
    changed = torch.where(mask.unsqueeze(-1), prediction, torch.randn_like(prediction))
    assert torch.equal(value, loss(changed, mask, posteriors=posteriors, prototypes=prototypes))
    assert float(loss(prediction, torch.zeros_like(mask), posteriors=posteriors, prototypes=prototypes)) == 0.0


def test_losses_fall_when_the_prediction_points_at_its_prototype():
    prototypes = torch.eye(4)
    posteriors = torch.eye(4).unsqueeze(0)
    mask = torch.ones(1, 4, dtype=torch.bool)
    for loss in (PrototypeBCE(), PrototypeInfoNCE()):
        right = loss(prototypes.unsqueeze(0), mask, posteriors=posteriors, prototypes=prototypes)
        wrong = loss(prototypes.roll(1, 0).unsqueeze(0), mask, posteriors=posteriors, prototypes=prototypes)
        assert right < 0.01 < wrong


def test_presence_is_soft_below_one_frame_and_ignores_padding():
    posteriors = torch.tensor([[[0.2, 0.0], [0.2, 0.9], [0.0, 0.9]]])
    torch.testing.assert_close(prototype_presence(posteriors), torch.tensor([[0.4, 1.0]]))
    padding = torch.tensor([[False, True, True]])
    torch.testing.assert_close(prototype_presence(posteriors, padding), torch.tensor([[0.2, 0.0]]))
    assert json.dumps(prototype_presence(posteriors, minimum_share=0.5).tolist()) == "[[0.0, 1.0]]"


def test_a_little_of_another_clip_makes_its_prototypes_a_little_present():
    posteriors = torch.eye(2)[:, None].expand(2, 100, 2)  # clip k is prototype k throughout
    plan = MixPlan(torch.full((2,), 0.95), torch.full((2,), 0.95), torch.tensor([1, 0]))
    presence = plan.mix_targets(prototype_presence(posteriors, minimum_share=0.02))
    torch.testing.assert_close(presence, torch.tensor([[0.95, 0.05], [0.05, 0.95]]))
