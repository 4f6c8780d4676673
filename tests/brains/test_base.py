import itertools

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.dataloader import SaveableDataLoader
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import nn

from pmam_plugin.brains.base import StageBrain
from pmam_plugin.brains.optimisation import ParameterGroup
from pmam_plugin.brains.plan import StageRun, TrainingPlan, fold_seed
from pmam_plugin.brains.schedules import ExponentialDown
from pmam_plugin.data import SubsetBatchSampler


class Killed(BaseException):
    pass


class Toy(StageBrain):
    """Dropout, noise and batch norm: everything whose randomness a resumed run must repeat."""

    kill_at = kill_before_checkpoint = None

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.seen = []

    def _write_curves(self):
        super()._write_curves()
        if self.epoch_counter.current == self.kill_before_checkpoint:
            raise Killed

    def candidates(self):
        return {"model": self.raw["model"]}

    def compute_forward(self, batch, stage):
        if stage == sb.Stage.TRAIN:
            batch = batch + 0.1 * torch.randn_like(batch)
        return self.modules.model(batch)

    def compute_objectives(self, predictions, batch, stage):
        loss = (predictions - batch).square().mean()
        if stage == sb.Stage.TRAIN:
            self.seen.append(float(loss))
            self.log_losses({"error": loss})
        return loss

    def validation_scores(self, loss):
        self.best.offer("model", -loss, self.raw["model"].state_dict())
        return super().validation_scores(loss)

    def after_update(self):
        if self.kill_at is not None and self.optimizer_step == self.kill_at:
            raise Killed


def make(folder, run_opts=None, **changes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
    settings = {"epochs": 3, "batch": {"strong": 4}, "groups": [ParameterGroup("", 1e-2)], "validate_every": 2}
    plan = TrainingPlan(**(settings | {"schedule": ExponentialDown(1, -1.0, warmup_epochs=1)} | changes))
    options = {"device": "cpu", "noprogressbar": True, **(run_opts or {})}
    brain = Toy({"model": model}, StageRun("toy", plan, folder, 3, options))
    data = torch.arange(60.0).reshape(20, 3) / 60
    sampler = SubsetBatchSampler({"strong": list(range(20))}, {"strong": 4}, seed=1)
    loader = SaveableDataLoader(data, batch_sampler=sampler, generator=torch.Generator())
    return brain, loader, torch.utils.data.DataLoader(data[:8], batch_size=8)


def test_a_killed_run_ends_with_the_same_weights_and_curves(tmp_path):
    brain, train, valid = make(tmp_path / "whole")
    brain.train(train, valid)
    for kill_at in (3, 5, 7, 12):
        folder = tmp_path / str(kill_at)
        again, train, valid = make(folder)
        again.ckpt_interval_minutes, again.ckpt_interval_steps = 0, 2
        again.kill_at = kill_at
        with pytest.raises(Killed):
            again.train(train, valid)
        again, train, valid = make(folder)
        again.ckpt_interval_minutes, again.ckpt_interval_steps = 0, 2
        torch.rand(kill_at)  # whatever state the global generator is in
        again.train(train, valid)
        for ours, theirs in zip(again.raw["model"].state_dict().values(), brain.raw["model"].state_dict().values()):
            assert torch.equal(ours, theirs)
        assert again.history.curves == brain.history.curves
        assert again.best.scores == brain.best.scores
        assert all(
            torch.equal(value, brain.best.load("model")[name]) for name, value in again.best.load("model").items()
        )


def test_the_first_update_is_made_at_the_warm_up_rate(tmp_path):
    brain, train, valid = make(tmp_path, log_every=1)
    brain.train(train, valid)
    scales = [value for _, value in brain.history.curves["learning_rate_scale"]]
    assert len(scales) == 15
    assert scales[0] == pytest.approx(0.1)
    assert max(scales) == 1.0


def test_validation_keeps_its_interval_and_the_last_epoch(tmp_path):
    brain, train, valid = make(tmp_path)
    brain.train(train, valid)
    assert [step for step, _ in brain.history.curves["validation_loss"]] == [10, 15]


def test_a_stage_ends_with_the_last_epoch_that_fits_into_its_minutes_and_validates_it(tmp_path, monkeypatch):
    seconds = itertools.count(step=40)
    monkeypatch.setattr("pmam_plugin.brains.base.time.monotonic", lambda: next(seconds))
    brain, train, valid = make(tmp_path, {"stage_minutes": 1.9}, epochs=9, validate_every=9)
    brain.train(train, valid)
    assert [step for step, _ in brain.history.curves["validation_loss"]] == [10]  # two epochs of 40 s, not three


def test_without_selection_clips_the_last_weights_are_kept(tmp_path):
    brain, train, _ = make(tmp_path)
    brain.train(train, None)
    last = brain.raw["model"].state_dict()
    assert all(torch.equal(value, last[name]) for name, value in brain.best.load("model").items())


def test_what_a_plan_freezes_is_at_rest_in_every_update(tmp_path):
    frozen = ParameterGroup(r"model\.[01]\.", 0.0)
    brain, train, valid = make(tmp_path, groups=[frozen, ParameterGroup("", 1e-2)])
    before = {name: value.clone() for name, value in brain.raw["model"].state_dict().items()}
    brain.train(train, valid)
    after = brain.raw["model"].state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {"3.weight", "3.bias"}, "batch norm's statistics stand still, too"


def test_seeds_depend_on_every_part():
    seeds = {fold_seed(*parts) for parts in [(1, "a", 0), (1, "a", 1), (2, "a", 0), (1, "b", 0), (1, "a")]}
    assert len(seeds) == 5
    assert fold_seed(1, "a") == fold_seed(1, "a")


def test_a_step_that_takes_several_batches_is_one_point(tmp_path):
    brain, train, valid = make(tmp_path, {"grad_accumulation_factor": 2}, log_every=1, epochs=2)
    brain.train(train, valid)
    updates = brain.optimizer_step
    assert updates < len(brain.seen)
    for name in ("error", "gradient_norm", "learning_rate_scale"):
        assert [step for step, _ in brain.history.curves[name]] == list(range(1, updates + 1)), name
    first, second = brain.seen[:2]
    assert brain.history.curves["error"][0][1] == pytest.approx((first + second) / 2)


def board(folder):
    """All points of the TensorBoard files below ``folder``, however many files there are."""
    points = {}
    for path in (folder / "tensorboard").rglob("events*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                points.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    return {name: sorted(values) for name, values in points.items()}


def test_a_run_that_goes_on_writes_no_point_twice(tmp_path):
    """Killed in an epoch, and after an epoch's points were written but not its checkpoint."""
    whole, train, valid = make(tmp_path / "whole", log_every=2)
    whole.train(train, valid)
    for number, kill in enumerate(({"kill_at": 8}, {"kill_before_checkpoint": 2})):
        folder = tmp_path / str(number)
        brain, train, valid = make(folder, log_every=2)
        vars(brain).update(kill)
        with pytest.raises(Killed):
            brain.train(train, valid)
        brain, train, valid = make(folder, log_every=2)
        brain.train(train, valid)
        found = board(folder)
        assert found == board(tmp_path / "whole")
        assert {name: [step for step, _ in points] for name, points in found.items()} == {
            name: [step for step, _ in points] for name, points in whole.history.curves.items()
        }
        log = (folder / "train_log.txt").read_text()
        assert log == (tmp_path / "whole/train_log.txt").read_text()
        assert log.count("epoch: 2,") == 1
