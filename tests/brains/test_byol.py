import logging

import pytest
import torch

from pmam_plugin.augment import FrequencyWarp
from pmam_plugin.brains.byol import ATSTFrameBrain, ATSTFrameSettings
from pmam_plugin.brains.optimisation import ParameterGroup
from pmam_plugin.brains.plan import StageRun, TrainingPlan
from pmam_plugin.encoders import ATSTFrame
from pmam_plugin.features import ATSTMel, FrontEnds
from pmam_plugin.models import ATSTFramePretraining
from tests.brains.batches import labelled


def batch(clips=4):
    waves = 0.1 * torch.randn(clips, 16000, generator=torch.Generator().manual_seed(1))
    return labelled(waves, torch.zeros(clips, 0, 0), torch.zeros(clips, 0), 16000, torch.full((clips,), 2))


@pytest.fixture
def brain(tmp_path):
    torch.manual_seed(0)
    model = ATSTFramePretraining(ATSTFrame(dim=16, depth=1, heads=2), hidden=16, output_dim=8)
    plan = TrainingPlan(epochs=2, batch={"unlabelled": 4}, groups=[ParameterGroup("", 1e-2, 0.04)], log_every=1)
    return ATSTFrameBrain(
        model,
        FrontEnds(atst=ATSTMel()),
        StageRun("pretrain_atst", plan, tmp_path, 1, {"device": "cpu", "noprogressbar": True}),
        ATSTFrameSettings(momentum=0.5, augmentation=FrequencyWarp(probability=1.0), final_weight_decay=0.4),
    )


def test_the_first_view_is_the_clip_itself(brain):
    waves = batch().waves
    first, second = brain.views(brain.front_end.power(waves))
    torch.testing.assert_close(first, brain.front_end(waves))
    assert first.shape == second.shape
    assert not torch.allclose(first, second)


def test_training_moves_the_teacher_slowly_and_watches_for_collapse(brain, caplog):
    before = [parameter.clone() for parameter in brain.model.teacher.parameters()]
    decays = []
    step = brain.optimizers_step
    brain.optimizers_step = lambda: (
        decays.append([group["weight_decay"] for group in brain.optimizer.param_groups]),
        step(),
    )
    brain.on_fit_start()
    brain.steps_per_epoch = 2
    for _ in range(4):
        brain.modules.train()
        brain.on_fit_batch_start(batch(), should_step=True)
        brain.fit_batch(batch())
    curves = brain.history.curves
    assert len(curves["byol_loss"]) == len(curves["prediction_spread"]) == len(curves["target_spread"]) == 4
    vectors, matrices = zip(*decays)
    assert set(vectors) == {0.0}
    # Half a cosine from 0.04 to 0.4 over four updates.
    assert matrices == pytest.approx([0.04, 0.0927, 0.22, 0.3473], abs=1e-4)
    moved = [float((a - b).detach().norm()) for a, b in zip(before, brain.model.teacher.parameters())]
    assert max(moved) > 0
    assert not any(parameter.requires_grad for parameter in brain.model.teacher.parameters())
    curves["target_spread"].append([5, 1e-4])
    with caplog.at_level(logging.WARNING, "pmam_plugin.brains.byol"):
        brain.warn_of_collapse()
    assert "collapse" in caplog.text


def test_a_soft_clip_lifts_the_second_view_as_the_authors_mix(brain):
    """A noise 20 dB softer, added by a third: a little in the normalised decibels, much more in power."""
    torch.manual_seed(0)
    waves = torch.randn(2, 16000)
    waves[0, 8000:] *= 1e-3  # all but silent where its partner sounds
    waves[1] *= 0.1
    brain.settings = ATSTFrameSettings()
    torch.manual_seed(2)
    power = brain.front_end.power(waves)
    first, second = brain.views(power)
    torch.manual_seed(2)
    weight = 1 - 0.4 * float(torch.rand(2)[0])
    in_air = brain.front_end.scale(weight * power[:1] + (1 - weight) * power[1:])
    lift, more = (float((mixed - first)[0, :, 60:].mean()) * (50.6842 + 79.6482) / 2 for mixed in (second, in_air))
    expected = (weight + (1 - weight) * (first[1] - first[0])[:, 60:].exp()).log().mean() * (50.6842 + 79.6482) / 2
    assert lift == pytest.approx(float(expected), abs=0.1)
    assert 3 < lift < more - 3
