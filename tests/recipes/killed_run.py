"""Run the recipe and kill -9 this process in the middle of one stage: ``killed_run.py STAGE <recipe arguments>``."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Callable
from typing import Any

import pmam_plugin.stages.evaluate as evaluate
import pmam_plugin.stages.prepare as prepare
import pmam_plugin.stages.report as report
from pmam_plugin.brains.base import StageBrain
from pmam_plugin.prototypes import ArrayStore, GaussianMixture
from pmam_plugin.stages.prototypes import EStep


def dies(original: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    """``original``, but the process is gone once ``when`` holds after a call."""

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if when(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def main() -> None:
    """Arm the trap, then run the recipe."""
    stage, *argv = sys.argv[1:]
    kind = stage.rstrip("_0123456789")
    if kind == "prepare":
        prepare.prepare = dies(prepare.prepare, lambda *a, **k: not k.get("skip_prep"))
    elif kind == "estep":
        # Once half-way through the embeddings (iteration 1), once in the middle of the fit (2).
        current = {}
        EStep.run = dies_inside(EStep.run, current)
        if stage.endswith("1"):
            ArrayStore.extend = dies(ArrayStore.extend, lambda *a: current.get("stage") == stage)
        else:
            GaussianMixture._keep = dies(
                GaussianMixture._keep, lambda fit, *a: current.get("stage") == stage and len(fit.history_) == 2
            )
    elif kind == "evaluate":
        evaluate.write_scores = dies(evaluate.write_scores, lambda *a, **k: True)
    elif kind == "report":
        report.psd_roc = dies(report.psd_roc, lambda *a, **k: True)
    else:
        StageBrain.after_update = dies(
            StageBrain.after_update, lambda brain: brain.name == stage and brain.optimizer_step == 2
        )
        # The subclass that follows with its teacher calls no super(): arm it as well.
        from pmam_plugin.brains.mean_teacher import MeanTeacherBrain

        MeanTeacherBrain.after_update = dies(
            MeanTeacherBrain.after_update, lambda brain: brain.name == stage and brain.optimizer_step == 2
        )
    sys.argv = ["recipes/DESED/train.py", *argv]
    runpy.run_path("recipes/DESED/train.py", run_name="__main__")


def dies_inside(original: Callable[..., Any], current: dict[str, str]) -> Callable[..., Any]:
    """Note which E-step is running."""

    def run(self: EStep, *args: Any) -> Any:
        current["stage"] = self.name
        return original(self, *args)

    return run


if __name__ == "__main__":
    main()
