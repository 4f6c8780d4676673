import dataclasses

import pytest
import torch
from torch import nn

from pmam_plugin.augment import MixPlan
from pmam_plugin.brains.objectives import Consistency, EmbeddingContrast, MixedPseudoLabels, StepState, Supervised
from pmam_plugin.brains.schedules import Ramp
from pmam_plugin.models import Detection, Predictor, Projector
from tests.brains.batches import labelled

CLIPS, FRAMES, CLASSES, DIM = 6, 5, 3, 4
ONE = Ramp(1.0, shape="none")


def detection(seed, grad=False):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=generator).requires_grad_(grad)

    return Detection(draw(CLIPS, FRAMES, CLASSES), draw(CLIPS, CLASSES), draw(CLIPS, CLASSES), draw(CLIPS, FRAMES, DIM))


def state(plan=None, modules=None, teacher=True, grad=False):
    """Two strong clips, two weak, two unlabelled; the last frame of clip 0 is padding."""
    strong, weak = torch.zeros(CLIPS, FRAMES, CLASSES), torch.zeros(CLIPS, CLASSES)
    strong[0, :2, 0], weak[2, 1], weak[3, 2] = 1, 1, 1
    batch = labelled(torch.zeros(CLIPS, 10), strong, weak, 10, torch.arange(CLIPS) // 2)
    padding = torch.zeros(CLIPS, FRAMES, dtype=torch.bool)
    padding[0, -1] = True
    targets = {"strong": strong, "weak": weak, "padding": padding}
    return StepState(detection(0, grad), detection(1, grad) if teacher else None, targets, batch, plan, modules or {})


def plan(weights, targets, partners):
    return MixPlan(torch.tensor(weights), torch.tensor(targets), torch.tensor(partners))


def test_each_subset_teaches_what_it_knows():
    now = state(grad=True)
    losses = Supervised(clip_weight=0.5, tag_weight=2.0)(now, 0, 1)
    assert set(losses) == {"strong_bce", "clip_bce", "tag_bce"}
    sum(losses.values()).backward()
    frames, clips = now.student.frames.grad, now.student.clips.grad
    assert frames[:2].abs().sum() > 0
    assert frames[2:].abs().sum() == 0, "no strong labels beyond the strong clips"
    assert frames[0, -1].abs().sum() == 0, "padding teaches nothing"
    assert clips[2:4].abs().sum() > 0
    assert clips[[0, 1, 4, 5]].abs().sum() == 0


def test_a_class_that_a_clips_corpus_does_not_annotate_gets_no_gradient_at_all():
    now = state(grad=True)
    annotated = torch.ones(CLIPS, CLASSES, dtype=torch.bool)
    annotated[0, 1] = annotated[1, 0] = annotated[2, 2] = False
    now.targets = now.targets | {"annotated": annotated}
    terms = Supervised()(now, 0, 1)
    wrong = torch.nn.functional.binary_cross_entropy(now.student.frames, now.targets["strong"], reduction="none")
    taught = now.valid_frames.unsqueeze(2) * now.batch.has_strong.view(-1, 1, 1) * annotated.unsqueeze(1)
    assert float(terms["strong_bce"]) == pytest.approx(float((wrong * taught).sum() / taught.sum())), "nor dilutes"
    sum(terms.values()).backward()
    frames, clips = now.student.frames.grad, now.student.clips.grad
    assert torch.equal(frames[:2].abs().sum(1) > 0, annotated[:2])
    assert torch.equal(clips[2:4] != 0, annotated[2:4])
    again = state(grad=True)
    again.targets = now.targets
    Consistency(ONE)(again, 0, 1)["consistency"].backward()
    assert bool((again.student.frames.grad[1, :, 0] != 0).all()), "the teacher speaks of every class"


def test_an_audible_partner_is_not_taught_to_be_absent():
    now = state(plan([0.9] * CLIPS, [1.0] * CLIPS, [1, 0, 3, 2, 5, 4]), grad=True)
    strong, weak = torch.zeros(CLIPS, FRAMES, CLASSES), torch.zeros(CLIPS, CLASSES)
    strong[1, :3, 0] = strong[1, :3, 2] = weak[2, 2] = weak[3, 1] = 1  # clip 1 hears class 0 of clip 0, and class 2
    now.targets = now.targets | {
        "partner_strong": strong,
        "partner_weak": weak,
        "partner_level": torch.tensor([-10.0, -10.0, -30.0, -10.0, -10.0]).expand(CLIPS, FRAMES),
        "partner_clip_level": torch.tensor([-10.0] * 3 + [-30.0] * 3),
    }
    now.targets["strong"] = now.targets["strong"].clone()
    now.targets["strong"][1, 0, 2] = 1  # class 2 begins in clip 1 itself
    sum(Supervised(clip_weight=1.0)(now, 0, 1).values()).backward()
    taught = now.student.frames.grad[1] != 0
    assert taught[:, 0].tolist() == [False, False, True, True, True], "heard, heard, too soft, absent, absent"
    assert taught[:, 2].tolist() == [True, False, True, True, True], "its own sound is taught all the same"
    assert bool(taught[:, 1].all())
    assert (now.student.clips.grad[2:4] != 0).tolist() == [[True, True, False], [True, True, True]]
    now.student.frames.grad = now.student.clips.grad = None
    sum(Supervised(clip_weight=1.0, ignore_partner=False)(now, 0, 1).values()).backward()
    assert bool((now.student.frames.grad[1] != 0).all())
    composed = state(plan([0.6] * CLIPS, [0.6] * CLIPS, [1, 0, 3, 2, 5, 4]), grad=True)
    composed.targets = composed.targets | {name: now.targets[name] for name in now.targets if "partner" in name}
    Supervised()(composed, 0, 1)["strong_bce"].backward()
    assert bool((composed.student.frames.grad[1] != 0).all()), "a composition's target names both clips"


def test_consistency_follows_the_teachers_tags_where_told():
    now = state()
    follows_tags = Consistency(ONE, clip_weight=1.0, clip_target="tags")(now, 0, 1)["consistency"]
    frames = ((now.student.frames - now.teacher.frames).square() * now.valid_frames.unsqueeze(-1)).sum()
    frames = frames / (now.valid_frames.sum() * CLASSES)
    expected = frames + (now.student.clips - now.teacher.tags).square().mean()
    torch.testing.assert_close(follows_tags, expected)


def test_no_gradient_reaches_the_teacher():
    head = nn.Linear(DIM, DIM)
    contrast = EmbeddingContrast(head, nn.Linear(DIM, DIM), ONE)
    now = state(plan([1.0] * CLIPS, [1.0] * CLIPS, list(range(CLIPS))), contrast.trainables(), grad=True)
    losses = {**Consistency(ONE)(now, 0, 1), **MixedPseudoLabels(ONE, ONE)(now, 0, 1), **contrast(now, 0, 1)}
    sum(losses.values()).backward()
    assert all(value is None or value.grad is None for value in vars(now.teacher).values())
    assert head.weight.grad is not None
    assert all(parameter.grad is None for parameter in contrast.teacher.parameters())


@pytest.mark.parametrize("layer", ["context", "encoder"])
def test_the_contrast_compares_the_layer_and_the_clips_it_is_told(layer):
    contrast = EmbeddingContrast(nn.Linear(DIM, DIM), nn.Linear(DIM, DIM), ONE, layer=layer, clips="unlabelled")
    now = state(modules=contrast.trainables(), grad=True)
    now.student.encoded = torch.rand(CLIPS, FRAMES, DIM, requires_grad=True)
    now.teacher.encoded = torch.rand(CLIPS, FRAMES, DIM)
    contrast(now, 0, 1)["contrast"].backward()
    gradients = {"context": now.student.embedding.grad, "encoder": now.student.encoded.grad}
    found = gradients.pop(layer)
    assert (found[4:].abs().sum() > 0) & (found[:4].abs().sum() == 0), "clips 4 and 5 have no label"
    assert next(iter(gradients.values())) is None


def test_heads_that_warm_up_teach_the_model_nothing():
    contrast = EmbeddingContrast(nn.Linear(DIM, DIM), nn.Linear(DIM, DIM), ONE, warm_up=True)
    now = state(modules=contrast.trainables(), grad=True)
    contrast(now, 0, 1)["contrast"].backward()
    assert now.student.embedding.grad is None
    assert contrast.projector.weight.grad.abs().sum() > 0


def test_padding_does_not_enter_the_statistics_of_the_heads():
    found = []
    for filler in (0.0, 1e3):
        torch.manual_seed(0)
        contrast = EmbeddingContrast(Projector(DIM, 8, 6), Predictor(6, 8), ONE)
        now = state(modules=contrast.trainables())
        for detection_ in (now.student, now.teacher):
            detection_.embedding[0, -1] = filler
        found.append((contrast(now, 0, 1)["contrast"], contrast.projector[1].running_mean.clone()))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_unmixed_pseudo_labels_are_the_mean_teacher():
    now = state()
    losses = MixedPseudoLabels(ONE, ONE, clip_weight=0.0)(now, 0, 1)
    per_clip = (now.student.frames - now.teacher.frames).square().mean(-1) * now.valid_frames
    expected = (per_clip.sum(1) / now.valid_frames.sum(1)).mean()
    torch.testing.assert_close(losses["perturbation"], expected)
    assert float(losses["composition"]) == 0


def test_composition_mixes_the_teachers_answers_and_perturbation_does_not():
    partners = [1, 0, 3, 2, 5, 4]
    composed = state(plan([0.6] * CLIPS, [0.6] * CLIPS, partners))
    mixture = 0.6 * composed.teacher.frames + 0.4 * composed.teacher.frames[partners]
    composed.student.frames = mixture
    composed.student.clips = 0.6 * composed.teacher.clips + 0.4 * composed.teacher.clips[partners]
    losses = MixedPseudoLabels(ONE, ONE)(composed, 0, 1)
    assert float(losses["composition"]) == pytest.approx(0, abs=1e-7)
    assert float(losses["perturbation"]) == 0
    perturbed = state(plan([0.9] * CLIPS, [1.0] * CLIPS, partners))
    perturbed.student.frames, perturbed.student.clips = perturbed.teacher.frames, perturbed.teacher.clips
    losses = MixedPseudoLabels(ONE, ONE)(perturbed, 0, 1)
    assert float(losses["perturbation"]) == float(losses["composition"]) == 0


def test_clip_order_does_not_matter():
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    weights, targets = [0.6, 0.9, 0.7, 0.95, 0.55, 0.85], [0.6, 1.0, 0.7, 1.0, 0.55, 1.0]
    partners = torch.tensor([1, 0, 3, 2, 5, 4])
    now = state(plan(weights, targets, partners.tolist()))
    place = torch.empty_like(order)
    place[order] = torch.arange(CLIPS)
    moved = state(MixPlan(torch.tensor(weights)[order], torch.tensor(targets)[order], place[partners[order]]))
    for name in ("student", "teacher"):
        shuffled = Detection(*(value[order] for value in vars(getattr(now, name)).values() if value is not None))
        setattr(moved, name, shuffled)
    moved.targets = moved.targets | {"padding": now.targets["padding"][order]}
    first, second = MixedPseudoLabels(ONE, ONE)(now, 0, 1), MixedPseudoLabels(ONE, ONE)(moved, 0, 1)
    for name in first:
        torch.testing.assert_close(first[name], second[name])


def test_a_term_without_its_teacher_says_so():
    with pytest.raises(ValueError, match="needs a teacher"):
        Consistency(ONE)(state(teacher=False), 0, 1)
    with pytest.raises(ValueError, match="clips or tags"):
        Consistency(ONE, clip_target="frames")


def test_what_a_teacher_says_of_mixtures_is_not_mixed_again():
    """The pseudo-labels refuse it; the contrast compares each mixture with itself."""
    now = state(plan([0.7] * CLIPS, [0.7] * CLIPS, [*range(1, CLIPS), 0]))
    on_mixture = dataclasses.replace(now, teacher_mixed=True)
    with pytest.raises(ValueError, match="cannot be mixed again"):
        MixedPseudoLabels(ONE, ONE)(on_mixture, 0, 1)
    torch.manual_seed(0)
    contrast = EmbeddingContrast(Projector(DIM, 8, 4), Predictor(4, 8), ONE)
    modules = contrast.trainables()
    mixed, unmixed, clean = (
        float(contrast(dataclasses.replace(it, modules=modules), 0, 1)["contrast"])
        for it in (on_mixture, dataclasses.replace(now, plan=None), now)
    )
    assert mixed == pytest.approx(unmixed)
    assert abs(mixed - clean) > 1e-4


def test_a_term_may_begin_late():
    ramp = Ramp(2.0, epochs=2, start=3)
    assert [ramp.value(epoch * 10, 10) for epoch in (0, 2, 3, 4, 5, 9)] == [0, 0, 0, 1, 2, 2]
    assert [Ramp(2.0, shape="none", start=1).value(step, 10) for step in (9, 10)] == [0, 2]
    contrast = EmbeddingContrast(Projector(DIM, 8, 4), Predictor(4, 8), Ramp(1.0, shape="none", start=1))
    assert contrast(state(modules=contrast.trainables()), 0, 1) == {}
    assert contrast(state(modules=contrast.trainables()), 1, 1)
