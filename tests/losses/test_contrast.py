import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors import safe_open

from pmam_plugin.losses.contrast import (
    cosine_distance,
    embedding_contrast,
    embedding_spread,
)
from tests.support import shared

seeds = st.integers(0, 2**31 - 1)


def draw(seed: int, clips: int = 4, frames: int = 5, dim: int = 6):
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randn(clips, frames, dim, generator=generator)
    target = torch.randn(clips, frames, dim, generator=generator)
    weights = 0.5 + 0.5 * torch.rand(clips, generator=generator)
    partners = (torch.arange(clips) + 1 + torch.randint(clips - 1, (1,), generator=generator)) % clips
    return prediction, target, weights, partners


def test_the_reference_value_is_reproduced():
    with safe_open(shared("reference_outputs/atst_sed_components.safetensors"), "pt") as file:
        student, teacher = file.get_tensor("byol.z_student"), file.get_tensor("byol.z_teacher")
        expected = float(file.metadata()["byol_loss"])
    # Two views, one after the other: each is compared with the teacher's view of the other.
    crossed = teacher.reshape(2, 320, 256).flip(0)
    assert embedding_contrast(student.reshape(2, 320, 256), crossed).mean().item() == pytest.approx(expected, rel=1e-5)


@given(seeds, st.floats(0.01, 100))
def test_zero_when_prediction_and_target_point_the_same_way_and_the_weight_is_one(seed, scale):
    _, target, _, partners = draw(seed)
    loss = embedding_contrast(scale * target, target, torch.ones(4), partners)
    torch.testing.assert_close(loss, torch.zeros(4), atol=1e-5, rtol=0)


@given(seeds, st.sampled_from(["sum", "interp"]))
def test_the_order_of_the_clips_does_not_matter(seed, composition):
    prediction, target, weights, partners = draw(seed)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    position = order.argsort()
    loss = embedding_contrast(prediction, target, weights, partners, composition)
    shuffled = embedding_contrast(
        prediction[order], target[order], weights[order], position[partners[order]], composition
    )
    torch.testing.assert_close(shuffled, loss[order])


@given(seeds, st.sampled_from(["sum", "interp"]))
def test_no_gradient_reaches_the_target(seed, composition):
    prediction, target, weights, partners = draw(seed)
    prediction.requires_grad_()
    target.requires_grad_()
    embedding_contrast(prediction, target, weights, partners, composition).sum().backward()
    assert target.grad is None
    assert prediction.grad.abs().sum() > 0


@given(seeds, st.sampled_from(["sum", "interp"]))
def test_weight_one_ignores_the_partner(seed, composition):
    prediction, target, _, partners = draw(seed)
    torch.testing.assert_close(
        embedding_contrast(prediction, target, torch.ones(4), partners, composition),
        embedding_contrast(prediction, target),
    )


@given(seeds)
def test_the_sum_form_is_the_weighted_sum_of_two_distances(seed):
    prediction, target, weights, partners = draw(seed)
    own, other = cosine_distance(prediction, target), cosine_distance(prediction, target[partners])
    expected = (weights[:, None] * own + (1 - weights[:, None]) * other).mean(dim=1)
    torch.testing.assert_close(embedding_contrast(prediction, target, weights, partners), expected)


@given(seeds)
def test_both_forms_agree_up_to_the_norm_of_the_interpolated_target(seed):
    """The sum form is 2 - 2 p.(w z + (1-w) z'); the interpolated form divides the product by the blend's norm."""
    prediction, target, weights, partners = draw(seed, frames=1)
    unit = torch.nn.functional.normalize(target, dim=-1)
    norm = torch.lerp(unit[partners], unit, weights[:, None, None]).norm(dim=-1)[:, 0]
    total = embedding_contrast(prediction, target, weights, partners, "sum")
    blend = embedding_contrast(prediction, target, weights, partners, "interp")
    torch.testing.assert_close(2 - total, (2 - blend) * norm, atol=1e-5, rtol=1e-5)


@given(seeds)
def test_padded_frames_do_not_count(seed):
    prediction, target, weights, partners = draw(seed)
    padding = torch.zeros(4, 5, dtype=torch.bool)
    padding[:, 3:] = True
    expected = embedding_contrast(prediction[:, :3], target[:, :3], weights, partners)
    torch.testing.assert_close(embedding_contrast(prediction, target, weights, partners, padding=padding), expected)


def test_a_clip_of_padding_alone_gives_zero_and_a_finite_gradient():
    prediction, target, weights, partners = draw(0)
    prediction.requires_grad_()
    loss = embedding_contrast(prediction, target, weights, partners, padding=torch.ones(4, 5, dtype=torch.bool))
    loss.sum().backward()
    assert loss.tolist() == [0, 0, 0, 0]
    assert torch.isfinite(prediction.grad).all()


def test_half_precision_predictions_give_a_float32_loss():
    prediction, target, weights, partners = draw(4)
    loss = embedding_contrast(prediction.bfloat16(), target.bfloat16(), weights, partners)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, embedding_contrast(prediction, target, weights, partners), atol=0.02, rtol=0)


def test_weights_without_partners_are_refused():
    prediction, target, weights, partners = draw(5)
    with pytest.raises(ValueError, match="partners"):
        embedding_contrast(prediction, target, weights)
    with pytest.raises(ValueError, match="composition"):
        embedding_contrast(prediction, target, weights, partners, "product")


@settings(max_examples=10)
@given(seeds)
def test_spread_tells_a_filled_sphere_from_a_collapse(seed):
    generator = torch.Generator().manual_seed(seed)
    assert embedding_spread(torch.randn(2000, 256, generator=generator)).item() == pytest.approx(1 / 16, rel=0.02)
    assert embedding_spread(torch.ones(20, 256)).item() == pytest.approx(0, abs=1e-6)
    assert embedding_spread(torch.ones(1, 256)).item() == 0
