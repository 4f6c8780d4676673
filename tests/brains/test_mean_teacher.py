from types import SimpleNamespace

import torch
from torch import nn

from pmam_plugin.brains.mean_teacher import MeanTeacherBrain
from pmam_plugin.data.batch import Item


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.frozen, self.dropout = nn.BatchNorm1d(1), nn.BatchNorm1d(1), nn.Dropout(0.5)
        self.frozen.requires_grad_(False)

    def frontend(self, waves):
        return {"mel": waves}

    def forward(self, features, padding=None):
        return self.frozen(self.dropout(self.norm(features["mel"][:, None])))


def test_batch_norm_is_measured_on_clean_clips_before_a_validation():
    """In training it saw mixtures; what is frozen keeps its statistics, and training goes on as it was."""
    torch.manual_seed(0)
    waves = 3.0 * torch.randn(40, 500) + 1.0
    strong, weak = torch.zeros(500, 1), torch.zeros(1)
    brain = object.__new__(MeanTeacherBrain)
    brain.student, brain.teacher, brain.device = Student(), None, torch.device("cpu")
    brain.recalibrate, brain.plan = 24, SimpleNamespace(batch_clips=8)
    brain._training_clips = [
        Item(str(index), wave, 500.0, strong, weak, False, False, 0, 1) for index, wave in enumerate(waves)
    ]
    mixtures = 0.5 * (waves[::2] + waves[1::2])
    for _ in range(50):
        brain.student.norm(mixtures[:, None])
    assert float(brain.student.norm.running_var) < 6
    brain.measure_norms()
    assert abs(float(brain.student.norm.running_var) - 9) < 0.3
    assert abs(float(brain.student.norm.running_mean) - 1) < 0.1
    assert brain.student.norm.momentum == 0.1
    assert float(brain.student.frozen.running_var) == 1
