import pytest
import torch
from torch import nn

from pmam_plugin.nn.ema import EMATeacher


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def move(student: nn.Module, amount: float) -> None:
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(amount)
        student[1].running_mean.add_(amount)
        student[1].num_batches_tracked.add_(1)


def test_first_updates_are_a_plain_average() -> None:
    student = small()
    start = student[0].weight.detach().clone()
    teacher = EMATeacher(student)
    for _ in range(3):
        move(student, 1.0)
        teacher.update(student)
    # (0 + 1 + 2 + 3) / 4
    torch.testing.assert_close(teacher.model[0].weight, start + 1.5)


def test_decay_bounds_the_memory() -> None:
    student = small()
    teacher = EMATeacher(student, decay=0.9)
    teacher.step.fill_(1000)
    start = student[0].weight.detach().clone()
    move(student, 1.0)
    teacher.update(student)
    torch.testing.assert_close(teacher.model[0].weight, start + 0.1)


def test_running_statistics_are_averaged_and_counters_copied() -> None:
    student = small()
    teacher = EMATeacher(student)
    move(student, 1.0)
    teacher.update(student)
    torch.testing.assert_close(teacher.model[1].running_mean, torch.full((4,), 0.5))
    assert int(teacher.model[1].num_batches_tracked) == 1


def test_step_travels_with_the_state() -> None:
    student = small()
    teacher = EMATeacher(student)
    for _ in range(50):
        teacher.update(student)
    carried = EMATeacher(small())
    carried.load_state_dict(teacher.state_dict())
    assert int(carried.step) == 50
    move(student, 1.0)
    carried.update(student)
    # A restarted teacher would have moved by a half.
    torch.testing.assert_close(carried.model[0].weight, student[0].weight - 1 + 1 / 52)


def test_teacher_takes_no_gradient_and_leaves_the_student_alone() -> None:
    student = small()
    teacher = EMATeacher(student)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    output = teacher(torch.randn(5, 3, requires_grad=True))
    assert not output.requires_grad
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_another_student_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in"):
        EMATeacher(small()).update(nn.Linear(3, 4))
