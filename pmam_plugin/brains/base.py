"""What every training stage shares: a SpeechBrain Brain that steps, clips, records and resumes exactly.

Everything random in a training step (dropout, masks, augmentation) follows from ``(seed, stage, epoch, step)``, and
inside of networks that see a part of the batch also from which part it is, because the generator is seeded anew before
each batch. A run that was killed and resumed therefore makes the same updates as one that was not, without
fast-forwarding any random state. How a batch is divided among processes and passes is said in
:mod:`pmam_plugin.brains.parts`.
"""

from __future__ import annotations

import itertools
import logging
import re
import shutil
import time
from collections.abc import Mapping
from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger, TensorboardLogger
from torch import Tensor, nn
from torch.nn import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from pmam_plugin import processes
from pmam_plugin.brains.frozen import frozen_parts, rest
from pmam_plugin.brains.optimisation import build_groups, clip_gradients
from pmam_plugin.brains.parts import Division, Rows, whole_batch
from pmam_plugin.brains.plan import StageRun, fold_seed
from pmam_plugin.brains.records import BestWeights, History
from pmam_plugin.files import write_text

logger = logging.getLogger(__name__)


class StageBrain(sb.Brain):
    """A SpeechBrain Brain with per-group rates, schedules by step, clipping over all groups and exact resumption.

    Subclasses implement ``prepare`` (what is made of a whole batch in training), ``part`` (what of it a pass takes),
    ``compute_forward`` and ``compute_objectives`` (in training of a pass: its share of the loss of the whole batch)
    and, where they validate, ``validation_scores``; what that needs of single batches is collected in ``observed``.

    Args:
        modules: what is trained; each is wrapped for distributed training.
        run: which stage, where, and with what budget.
        recoverables: further objects that belong to a checkpoint.
    """

    averaged: tuple[str, ...] = ()  # parts of the modules that follow others, by the start of their names
    grad_accumulation_factor: int
    ckpt_interval_minutes: float
    ckpt_interval_steps: int

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        run: StageRun,
        recoverables: Mapping[str, Any] | None = None,
    ) -> None:
        plan, folder = run.plan, run.folder
        folder.mkdir(parents=True, exist_ok=True)
        options = dict(run.run_opts)
        self.micro_batch: int | None = options.pop("micro_batch", None)
        self.plan, self.folder, self.seed, self.name = plan, folder, run.seed, run.name
        self.minutes: float | None = options.pop("stage_minutes", None)
        self.bound = options.get("max_grad_norm", plan.max_grad_norm)
        self.groups = build_groups(modules.items(), plan.groups)
        self._at_rest = {
            name: [part for part in frozen_parts(module) if not part.startswith(self.averaged)]
            for name, module in modules.items()
        }
        self.history, self.best = History(plan.log_every), BestWeights(folder)
        self.epoch_counter = EpochCounter(plan.epochs)
        checkpointer = Checkpointer(
            str(folder / "checkpoints"),
            recoverables={
                **modules,
                "epoch_counter": self.epoch_counter,
                "history": self.history,
                "best": self.best,
                **(recoverables or {}),
            },
        )
        super().__init__(
            modules=dict(modules),
            # One pass over all parameters; other devices have no such kernel.
            opt_class=lambda _: torch.optim.AdamW(self.groups, fused=self.device_type in ("cpu", "cuda", "mps")),
            hparams={},
            run_opts=options,
            checkpointer=checkpointer,
        )
        # Wrapping for several processes replaces entries of self.modules; attributes are read from these.
        self.raw = dict(modules)
        if not (self.ckpt_interval_minutes or self.ckpt_interval_steps):
            self.ckpt_interval_minutes = 5.0  # inside an epoch
        self.steps_per_epoch = 1
        self._points_written: dict[str, int] = {}
        self._terms: dict[str, Tensor] = {}
        self.observed: list[Any] = []
        self._validation_losses: list[Tensor] = []
        self._validates = False

    def train(self, train_loader: Any, valid_loader: Any = None) -> None:
        """Run or continue the stage; ``train_loader.batch_sampler`` must offer ``set_epoch``."""
        self.train_sampler = train_loader.batch_sampler
        self.steps_per_epoch = max(1, len(train_loader) // self.grad_accumulation_factor)
        self.checkpointer.add_recoverable("train_loader", train_loader)
        self._validates = valid_loader is not None
        self.fit(self.epoch_counter, train_loader, valid_loader)
        for name, model in self.candidates().items():
            # Without selection clips (or in a debug run too short to validate) the last weights are the best known.
            if name not in self.best.scores:
                self.best.offer(name, 0.0, model.state_dict())

    def candidates(self) -> dict[str, nn.Module]:
        """The models whose best weights are kept, by name; by default what is trained."""
        return self.raw

    def on_fit_start(self) -> None:
        """Wrap, build the optimiser, resume; the log forgets epochs that the checkpoint does not know."""
        super().on_fit_start()
        self._begin, self._epochs_before = time.monotonic(), self.epoch_counter.current
        log = self.folder / "train_log.txt"
        if if_main_process() and log.exists():
            lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
            epochs = [re.match(r"epoch: (\d+)", line) for line in lines]
            known = [epoch is None or int(epoch[1]) <= self.epoch_counter.current for epoch in epochs]
            write_text(log, "".join(itertools.compress(lines, known)))
        if self.epoch_counter.current or self.step:
            logger.info(
                "%s continues in epoch %d at update %d", self.name, self.epoch_counter.current, self.optimizer_step
            )

    def _wrap_distributed(self) -> None:
        # SpeechBrain always converts to SyncBatchNorm, which the CPU backend refuses.
        if not self.distributed_launch:
            return
        for name, module in self.modules.items():
            if any(parameter.requires_grad for parameter in module.parameters()):
                if self.device_type == "cuda":
                    module = SyncBatchNorm.convert_sync_batchnorm(module)
                devices = [self.device] if self.device_type == "cuda" else None
                # Batch norm's buffers are not copied from the first process: statistics of all are averaged.
                self.modules[name] = DistributedDataParallel(
                    module, device_ids=devices, find_unused_parameters=True, broadcast_buffers=False
                )

    def on_fit_batch_start(self, batch: Any, should_step: bool) -> None:
        """Seed this step, set its learning rates, and keep at rest what is frozen."""
        for name, parts in self._at_rest.items():
            rest(self.raw[name], parts)
        torch.manual_seed(fold_seed(self.seed, self.name, self.epoch_counter.current, self.step, 0))
        scale = self.plan.schedule.scale(self.optimizer_step, self.steps_per_epoch, self.plan.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * scale
        if should_step:
            self.history.observe("learning_rate_scale", scale)

    def prepare(self, batch: Any, division: Division) -> Any:
        """What is drawn for and made of a whole batch before the networks see its parts; by default the batch."""
        return batch

    def part(self, whole: Any, number: int, rows: Rows) -> Any:
        """What pass ``number``, of these clips, hands to ``compute_forward`` of what :meth:`prepare` returned."""
        return whole[rows]

    def average_statistics(self) -> None:
        """Average batch norm's running statistics over the processes, wherever they are about to be read.

        Running averages are linear, a teacher's average of its student's too: averaged once, they are what averaging
        after every update would have left. Nothing in training reads them.
        """
        world = processes.share()[1]
        if world == 1:
            return
        models = [*self.raw.values(), *self.candidates().values()]
        norms = {id(part): part for model in models for part in model.modules() if isinstance(part, _BatchNorm)}
        buffers = [value for norm in norms.values() for value in norm.buffers() if value.is_floating_point()]
        processes.sum_over_processes(buffers)
        for buffer in buffers:
            buffer /= world

    def _save_intra_epoch_ckpt(self) -> None:
        self.average_statistics()
        super()._save_intra_epoch_ckpt()

    def fit_batch(self, batch: Any) -> Tensor:
        """One update from the batch of all processes, part by part; returns the loss of the whole batch.

        The parts' losses are shares of that of the batch, so gradients add up. DDP averages where it should add; hence
        the factor.
        """
        should_step = self.step % self.grad_accumulation_factor == 0
        self.on_fit_batch_start(batch, should_step)
        number = (max(1, self.epoch_counter.current) - 1) * len(self.train_sampler or ()) + self.step - 1
        batch, division = whole_batch(batch, number, self.micro_batch)
        with self.training_ctx:
            whole = self.prepare(batch, division)
        world, loss = len(division.shares), torch.zeros((), device=self.device)
        for index, rows in enumerate(division.passes):
            if isinstance(rows, Tensor):
                torch.manual_seed(
                    fold_seed(self.seed, self.name, self.epoch_counter.current, self.step, division.rank, index)
                )
            last = should_step and index == len(division.passes) - 1
            with self.no_sync(not last):
                with self.training_ctx:
                    part = self.part(whole, index, rows)
                    share = self.compute_objectives(self.compute_forward(part, sb.Stage.TRAIN), part, sb.Stage.TRAIN)
                self.scaler.scale(share * world / self.grad_accumulation_factor).backward()
            loss += share.detach()
        loss = self._observe(loss)
        self.check_loss_isfinite(loss)
        if should_step:
            self.optimizers_step()
        self.on_fit_batch_end(batch, None, loss, should_step)
        return loss.cpu()

    def optimizers_step(self) -> None:
        """Clip over all groups, update, then let the stage follow up (:meth:`after_update`)."""
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.optimizer, self.bound)
        self.history.observe("gradient_norm", norm)
        if not self.scaler.is_enabled() and self.skip_nonfinite_grads:
            self.check_gradients()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1
        self.history.close_step(self.optimizer_step)
        self.after_update()

    def after_update(self) -> None:
        """Called after every optimiser step; the mean teacher follows its student here."""

    def log_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Add this part's share of the terms of the loss to the curves; the shares of a step are summed."""
        for name, value in losses.items():
            self._terms[name] = self._terms.get(name, 0.0) + value.detach()

    def _observe(self, loss: Tensor) -> Tensor:
        """Record the terms of a step, over all processes; returns the loss, likewise."""
        values = torch.stack([loss, *(value.to(loss) for value in self._terms.values())])
        processes.sum_over_processes([values])
        for name, value in zip(self._terms, values[1:], strict=True):
            self.history.observe(name, value)
        self._terms = {}
        return values[0]

    def _fit_train(self, train_set: Any, epoch: int, enable: bool) -> None:
        super()._fit_train(train_set, epoch, enable)
        self._end_in_time(epoch)
        if not self._validation_due(epoch):
            # Only now is the Brain's step back at zero; a checkpoint from on_stage_end would resume in mid-air.
            self._finish_epoch(epoch, {})

    def _end_in_time(self, epoch: int) -> None:
        """Make this epoch the last where another one would not fit."""
        if self.minutes is None or self.distributed_launch or epoch >= self.epoch_counter.limit:
            return
        spent = time.monotonic() - self._begin
        if spent * (1 + 1 / max(1, epoch - self._epochs_before)) > 60 * self.minutes:
            logger.warning("%s: ends with epoch %d of %d, for want of time", self.name, epoch, self.plan.epochs)
            self.epoch_counter.limit = epoch

    def _fit_valid(self, valid_set: Any, epoch: int, enable: bool) -> None:
        if self._validation_due(epoch):
            self.observed, self._validation_losses = [], []
            with torch.random.fork_rng(devices=[]):
                super()._fit_valid(valid_set, epoch, enable)

    @property
    def validation_number(self) -> int:
        """Number of the batch that is validated, from 1: batches are dealt out to the processes in turn."""
        rank, world = processes.share()
        return (self.step - 1) * world + rank + 1

    def evaluate_batch(self, batch: Any, stage: sb.Stage) -> Tensor:
        """See SpeechBrain's; what is drawn depends on the number of the batch alone."""
        torch.manual_seed(fold_seed(self.seed, self.name, "validation", self.validation_number))
        self._validation_losses.append(super().evaluate_batch(batch, stage))
        return self._validation_losses[-1]

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Record the epoch; after the last part of an epoch, write its checkpoint."""
        if stage == sb.Stage.TRAIN:
            self.average_statistics()
            self.history.record("train_loss", self.optimizer_step, stage_loss)
        elif stage == sb.Stage.VALID and epoch is not None:
            losses = processes.gather_dealt(self._validation_losses)
            scores = self.validation_scores(sum(map(float, losses)) / max(1, len(losses)))
            for name, value in scores.items():
                self.history.record(name, self.optimizer_step, value)
            self._finish_epoch(epoch, scores)

    def validation_scores(self, loss: float) -> dict[str, float]:
        """Scores of a finished validation, for curves and logs; override to add to the loss."""
        return {"validation_loss": loss}

    def _validation_due(self, epoch: int) -> bool:
        return self._validates and (epoch % self.plan.validate_every == 0 or epoch == self.epoch_counter.limit)

    def _finish_epoch(self, epoch: int, scores: Mapping[str, float]) -> None:
        losses = {"loss": self.history.curves["train_loss"][-1][1]}
        # In every process: SpeechBrain's logger writes in the first one and broadcasts to the others.
        FileTrainLogger(str(self.folder / "train_log.txt"), precision=4).log_stats(
            {"epoch": epoch, "updates": self.optimizer_step}, losses, dict(scores)
        )
        if if_main_process():
            self._write_curves()
        self.checkpointer.save_and_keep_only(meta={"epoch": epoch}, num_to_keep=1)

    def _write_curves(self) -> None:
        if not self._points_written:
            # A run that goes on has all points in its history, and may have written some that its checkpoint lacks.
            shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)
        board = TensorboardLogger(str(self.folder / "tensorboard"))
        for name, points in self.history.curves.items():
            for step, value in points[self._points_written.get(name, 0) :]:
                board.writer.add_scalar(name, value, step)
            self._points_written[name] = len(points)
        board.writer.close()
