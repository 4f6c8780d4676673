"""A frozen part answers the same every time, whatever happens around it."""

import torch
from torch import nn

from pmam_plugin.brains.frozen import frozen_parts, rest
from pmam_plugin.nn.ema import EMATeacher
from tests.models.support import tiny_backbone


def block():
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.Sequential(block(), block()), block()


def test_dropout_and_statistics_stand_still_where_everything_is_frozen():
    model, values = Detector(), torch.randn(16, 4)
    model.encoder.requires_grad_(False)
    parts = frozen_parts(model)
    teacher = EMATeacher(model).model
    for network in (model, teacher):
        rest(network.train(), parts)
        statistics = network.encoder[0][1].running_mean.clone()
        assert torch.equal(network.encoder(values), network.encoder(values))
        assert torch.equal(network.encoder[0][1].running_mean, statistics)
        assert not torch.equal(network.head(values), network.head(values)), "what is trained has its dropout"


def test_a_trained_part_inside_keeps_its_own_mode_only():
    model = Detector()
    model.encoder[0].requires_grad_(False)
    model.encoder[1][0].requires_grad_(False)
    rest(model.train(), frozen_parts(model))
    assert not any(part.training for part in model.encoder[0].modules())
    linear, norm, dropout = model.encoder[1]
    assert (linear.training, norm.training, dropout.training) == (False, True, True)


def test_front_ends_keep_varying_the_sound():
    backbone = tiny_backbone().requires_grad_(False)
    rest(backbone.train(), frozen_parts(backbone))
    assert all(part.training for part in backbone.frontend.named().values())
    assert not any(part.training for part in backbone.encoder.modules())
    assert not any(part.training for part in backbone.context.modules())
