"""The laws of conditional mixup's step: what it becomes at the ends of its threshold and of its shares."""

import pytest
import torch
from torch import nn

from pmam_plugin.augment import ConditionalMixup, MixPlan
from pmam_plugin.brains.objectives import Consistency, EmbeddingContrast, MixedPseudoLabels
from pmam_plugin.brains.schedules import Ramp
from tests.brains.test_objectives import CLIPS, DIM, FRAMES, detection, state

GROUPS = torch.tensor([0, 0, 1, 1, 2, 2])
TEACHER, INTERPOLATION = Ramp(70.0, shape="none"), Ramp(8.75, shape="none")


def step(plan):
    now = state(plan)
    now.targets["padding"] = torch.zeros(CLIPS, FRAMES, dtype=torch.bool)
    return now, MixedPseudoLabels(TEACHER, INTERPOLATION)(now, 0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_with_threshold_one_the_step_is_interpolation_consistency(seed):
    torch.manual_seed(seed)
    plan = ConditionalMixup(threshold=1.0).draw(GROUPS)
    now, losses = step(plan)
    expected = []
    # ATST-SED, part by part: 70 / 4 / 6 of the sum over strong, weak and unlabelled clips.
    for part in (slice(0, 2), slice(2, 4), slice(4, 6)):
        share = plan.weights[part]
        target = share.view(-1, 1, 1) * now.teacher.frames[part]
        target = target + (1 - share).view(-1, 1, 1) * now.teacher.frames[plan.partners[part]]
        clips = share.view(-1, 1) * now.teacher.clips[part]
        clips = clips + (1 - share).view(-1, 1) * now.teacher.clips[plan.partners[part]]
        expected.append(
            (now.student.frames[part] - target).square().mean()
            + 0.5 * (now.student.clips[part] - clips).square().mean()
        )
    torch.testing.assert_close(losses["composition"], 70 / 4 / 6 * sum(expected))
    assert float(losses["perturbation"]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_with_a_threshold_below_a_half_every_clip_is_perturbed_and_keeps_its_labels(seed):
    torch.manual_seed(seed)
    plan = ConditionalMixup(threshold=0.49).draw(GROUPS)
    assert not bool(plan.composition.any())
    now, losses = step(plan)
    for labels in now.targets.values():
        assert torch.equal(plan.mix_targets(labels), labels)
    waves = torch.randn(CLIPS, 10)
    assert not torch.equal(plan.mix_inputs(waves), waves), "the inputs are mixed all the same"
    assert float(losses["composition"]) == 0
    torch.testing.assert_close(losses["perturbation"], Consistency(TEACHER)(now, 0, 1)["consistency"])


def test_unmixed_clips_give_the_mean_teachers_loss():
    ones = torch.ones(CLIPS)
    for plan in (None, MixPlan(ones, ones, torch.tensor([1, 0, 3, 2, 5, 4]))):
        now, losses = step(plan)
        torch.testing.assert_close(losses["perturbation"], Consistency(TEACHER)(now, 0, 1)["consistency"])
        assert float(losses["composition"]) == 0


def test_the_pooled_scores_can_follow_the_teachers_tags():
    now = state()
    now.targets["padding"] = torch.zeros(CLIPS, FRAMES, dtype=torch.bool)
    options = {"clip_weight": 0.5, "tag_weight": 2.0, "clip_target": "tags"}
    ours = MixedPseudoLabels(TEACHER, INTERPOLATION, **options)(now, 0, 1)["perturbation"]
    torch.testing.assert_close(ours, Consistency(TEACHER, **options)(now, 0, 1)["consistency"])


def test_the_contrast_vanishes_where_the_prediction_is_the_target():
    contrast = EmbeddingContrast(nn.Identity(), nn.Identity(), Ramp(1.0, shape="none"))
    now = state(modules=contrast.trainables())
    now.student.embedding = 3.0 * detection(1).embedding
    assert now.student.embedding.shape[-1] == DIM
    assert float(contrast(now, 0, 1)["contrast"]) == pytest.approx(0, abs=1e-6)
