import copy

import pytest
import torch
from hypothesis import given, strategies as st

from pmam_plugin.encoders.atst import ATSTFrame
from pmam_plugin.models.byol import ATSTFrameMasking, ATSTFramePretraining, Predictor, Projector

seeds = st.integers(0, 2**31 - 1)


def tiny(**options) -> ATSTFramePretraining:
    torch.manual_seed(0)
    encoder = ATSTFrame(dim=16, depth=2, heads=2, n_mels=8, max_tokens=50, **options)
    return ATSTFramePretraining(encoder, hidden=32, output_dim=8)


def views(batch: int = 4, frames: int = 120) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(batch, 8, frames, generator=generator)
    return {"atst": clean}, {"atst": clean + 0.1 * torch.randn(batch, 8, frames, generator=generator)}


def step(model: ATSTFramePretraining, first, second, seed: int = 0, **options):
    return model(first, second, generator=torch.Generator().manual_seed(seed), **options)


@given(seeds, st.integers(1, 8), st.integers(5, 300))
def test_spans_are_whole_and_as_many_as_the_rate_says(seed, batch, tokens):
    mask = ATSTFrameMasking()(batch, tokens, torch.Generator().manual_seed(seed))
    assert mask.shape == (batch, tokens)
    spans = max(2, int(tokens * 0.65 / 5 + 1))
    hidden = mask.sum(dim=1)
    assert (hidden >= min(5, tokens)).all()
    assert (hidden <= min(5 * spans, tokens)).all()
    # Every run of hidden tokens is at least one span long.
    for row in mask.int():
        edges = torch.diff(row, prepend=torch.zeros(1, dtype=torch.int), append=torch.zeros(1, dtype=torch.int))
        starts, ends = (edges == 1).nonzero().flatten(), (edges == -1).nonzero().flatten()
        assert (ends - starts >= min(5, tokens)).all()


def test_the_true_coverage_of_a_clip_is_about_a_half():
    masks = ATSTFrameMasking()(400, 250, torch.Generator().manual_seed(0))
    assert masks.float().mean().item() == pytest.approx(0.48, abs=0.03)


def test_masks_come_from_the_generator_alone():
    masking = ATSTFrameMasking()
    first, again, other = (masking(3, 60, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_heads_have_the_published_tensors():
    projector, predictor = Projector(), Predictor()
    shapes = {name: tuple(p.shape) for name, p in projector.named_parameters()}
    assert shapes == {"0.weight": (4096, 768), "1.weight": (4096,), "1.bias": (4096,), "3.weight": (256, 4096)}
    assert {name: tuple(p.shape) for name, p in predictor.named_parameters()} == {
        "0.weight": (4096, 256),
        "1.weight": (4096,),
        "1.bias": (4096,),
        "3.weight": (256, 4096),
    }


def test_heads_take_any_leading_shape():
    projector = Projector(6, 12, 4).eval()
    embeddings = torch.randn(2, 5, 6)
    torch.testing.assert_close(projector(embeddings)[1], projector(embeddings[1]))


def test_the_loss_is_the_mean_of_both_directions():
    output = step(tiny(), *views())
    assert output.loss.item() == pytest.approx(sum(output.distances) / 2)
    assert 0 < output.loss.item() < 4


def test_the_order_of_the_views_does_not_matter():
    first, second = views()
    there, back = step(tiny(), first, second), step(tiny(), second, first)
    assert there.loss.item() == pytest.approx(back.loss.item(), rel=1e-6)
    assert there.distances == pytest.approx(back.distances[::-1], rel=1e-6)


def test_the_loss_looks_at_hidden_tokens_only():
    """What the student sees or does not see of a hidden stretch changes nothing; the teacher's view of it does."""
    model = tiny().eval()
    first, second = views()
    mask = step(model, first, second).mask
    frames = mask.repeat_interleave(4, dim=1).unsqueeze(1)
    changed = {"atst": torch.where(frames, 5.0, first["atst"])}
    before, after = step(model, first, second), step(model, changed, second)
    assert after.distances[0] == pytest.approx(before.distances[0], rel=1e-5)
    assert after.distances[1] != pytest.approx(before.distances[1], rel=1e-5)


def test_no_gradient_reaches_the_teacher():
    model = tiny()
    step(model, *views()).loss.backward()
    assert all(parameter.grad is None for parameter in model.teacher.parameters())
    silent = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []


def test_the_teacher_keeps_its_momentum_and_its_own_batch_norm_statistics():
    model = tiny()
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1.0)
    model.student.projector[1].running_mean.fill_(9.0)
    before = copy.deepcopy(model.teacher)
    model.update_teacher(0.9)
    for old, new in zip(before.parameters(), model.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)
    assert model.teacher.projector[1].running_mean.abs().max() == 0
    model.update_teacher(1.0)
    for old, new in zip(before.parameters(), model.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)


def test_targets_carry_no_noise_of_their_own():
    model = tiny(drop_path=0.5, dropout=0.5).train()
    features, mask = views()[0], torch.ones(4, 30, dtype=torch.bool)
    torch.testing.assert_close(model.teacher(features, mask), model.teacher(features, mask))
    assert model.teacher.projector.training


def test_padding_is_not_predicted():
    model, padding = tiny().eval(), torch.zeros(4, 30, dtype=torch.bool)
    padding[1:] = True
    first, second = views()
    other = {"atst": second["atst"].clone()}
    other["atst"][1:] = 3.0
    losses = [step(model, first, view, padding=padding).loss.item() for view in (second, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    with pytest.raises(ValueError, match="padding"):
        step(model, first, second, padding=torch.ones(4, 30, dtype=torch.bool))


def test_training_lowers_the_loss_without_collapse():
    model = tiny().train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    first, second = views(batch=16)
    losses = []
    for number in range(40):
        output = step(model, first, second, seed=number)
        optimiser.zero_grad()
        output.loss.backward()
        optimiser.step()
        model.update_teacher(0.99)
        losses.append(output.loss.item())
    # Over six seeds the ratio was 0.41 to 0.62, the spread 0.66 to 0.88 of a filled sphere's.
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
    assert output.target_spread > 0.5 / 8**0.5
