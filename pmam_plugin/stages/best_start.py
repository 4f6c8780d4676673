"""Pre-training when it pays: fine-tune from what pre-training left and from what it began with, and keep the better."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from pmam_plugin.config import configurable
from pmam_plugin.stages.context import RunContext, StageResult
from pmam_plugin.stages.finetune import FineTune

logger = logging.getLogger(__name__)


@configurable
class BestStart:
    """Run a fine-tuning from the last backbone and from the first, and go on with the one that selects better.

    Where no stage between has changed the backbone there is one start, and this is the fine-tuning itself.

    Args:
        finetune: the stage that is run.
    """

    always = False

    def __init__(self, finetune: FineTune) -> None:
        self.finetune = finetune
        self.name, self.folder = finetune.name, finetune.folder

    def check(self, context: RunContext) -> None:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        self.finetune.check(context)

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        pretrained = any(record.stage.startswith("pretrain") for record in context.records)
        before = [
            context.folder / record.artifacts["backbone"]
            for record in context.records
            if "backbone" in record.artifacts and not record.stage.startswith("pretrain")
        ]
        if not pretrained or not before:
            return self.finetune.run(context, folder)
        results: dict[str, StageResult] = {}
        starts = {"pretrained": context.artifacts["backbone"], "not_pretrained": before[-1]}
        for name, backbone in starts.items():
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            results[name] = self.finetune.run(
                replace(context, artifacts={**context.artifacts, "backbone": backbone}, records=[]), place
            )
        scores = {name: max(result.notes["selection"].values()) for name, result in results.items()}
        best = max(scores, key=lambda name: scores[name])
        logger.info("%s: from %s, selection scores %s", self.name, best.replace("_", " "), scores)
        chosen = results[best]
        notes = {
            **chosen.notes,
            "start": best.replace("_", " "),
            **{f"selection_{name}": v for name, v in scores.items()},
        }
        return StageResult({**chosen.artifacts, "backbone": starts[best]}, notes, chosen.curves)
