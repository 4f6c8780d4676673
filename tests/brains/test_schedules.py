import json

import pytest
from hypothesis import given, strategies as st
from safetensors import safe_open

from pmam_plugin.brains.schedules import ExponentialDown, ExponentialWarmup, Ramp, StepDown
from tests.support import shared


@pytest.mark.parametrize(
    ("name", "epochs", "schedule"),
    [
        ("pretrain", 30, ExponentialDown(10, -1.5)),
        ("finetune1", 15, ExponentialDown(10, -1.0)),
        ("finetune2", 30, ExponentialDown(15, -1.5, warmup_epochs=1, warmup_start=0.1)),
    ],
)
def test_exponential_down_matches_the_reference(name, epochs, schedule):
    with safe_open(shared("reference_outputs/pmam_components.safetensors"), "pt") as file:
        expected, metadata = file.get_tensor(f"schedule.{name}"), file.metadata()
    per_epoch, stride = int(metadata["steps_per_epoch"]), int(metadata["schedule_stride"])
    ours = [schedule.scale(index * stride + 1, per_epoch, epochs) for index in range(len(expected))]
    # The reference applies no warm-up to its very first step; ours does.
    first = 1 if schedule.warmup_epochs else 0
    assert ours[first:] == pytest.approx(expected.tolist()[first:], abs=1e-6)


@pytest.mark.parametrize(
    ("key", "final", "warmup", "total"),
    [("schedule_stage1", 1.0, 2950, 11800), ("schedule_stage2", 0.1, 290, 7250)],
)
def test_exponential_warmup_matches_the_reference(key, final, warmup, total):
    with safe_open(shared("reference_outputs/atst_sed_components.safetensors"), "pt") as file:
        rows = json.loads(file.metadata()[key])
    schedule = ExponentialWarmup(warmup_epochs=warmup, final=final)
    peak = max(row[-2 if len(row) == 4 else -1] for row in rows)
    for row in rows:
        rate = row[2] if len(row) == 4 else row[-1]
        assert schedule.scale(row[0] - 1, 1, total) * peak == pytest.approx(rate, rel=1e-5)


def test_warmup_covers_the_very_first_update():
    schedule = ExponentialDown(5, -1, warmup_epochs=1, warmup_start=0.1)
    assert schedule.scale(0, 100, 10) == pytest.approx(0.1)
    assert schedule.scale(99, 100, 10) < 1 == schedule.scale(100, 100, 10)


@given(step=st.integers(0, 10_000), shape=st.sampled_from(["linear", "sigmoid", "exponential", "none"]))
def test_ramps_rise_to_their_maximum_and_stay(step, shape):
    ramp = Ramp(40.0, epochs=15, shape=shape)
    now, later = ramp.value(step, 100), ramp.value(step + 1, 100)
    assert 0 <= now <= later <= 40
    assert ramp.value(1500, 100) == 40


def test_sigmoid_ramp_starts_as_published():
    assert Ramp(40.0, 15, "sigmoid").value(0, 263) == pytest.approx(0.27, abs=0.005)


def test_unknown_ramp_is_refused():
    with pytest.raises(ValueError, match="sigmoid"):
        Ramp(1.0, 1, "quadratic")


def test_step_down_falls_at_the_stated_epoch():
    schedule = StepDown(every_epochs=2)
    assert [schedule.scale(step, 10, 6) for step in (0, 19, 20, 40)] == pytest.approx([1, 1, 0.1, 0.01])
