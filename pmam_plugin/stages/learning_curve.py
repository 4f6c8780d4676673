"""Would more labels help, and whose? The same fine-tuning with a part of the labels, measured on the same test set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import ddp_barrier

from pmam_plugin.config import configurable
from pmam_plugin.data import Manifest, Prepared
from pmam_plugin.data.holdout import forget_labels
from pmam_plugin.evaluation import read_metrics
from pmam_plugin.stages.context import RunContext, Stage, StageResult
from pmam_plugin.stages.evaluate import GROUPS, Evaluate
from pmam_plugin.stages.finetune import FineTune

FIGURE = "event_f1_macro"


@configurable
class LearningCurve(Stage):
    """Repeat the fine-tuning with fewer labels; stands after the evaluation, whose figures are the curve's last point.

    Whole recordings lose their labels and become unlabelled clips, so that every point learns from the same sound.
    Everything else, the budget too, is that of the run.

    Args:
        finetune: the stage that is repeated.
        evaluate: how its result is measured.
        shares: of the labelled recordings, each in (0, 1), rising.
    """

    reports = True
    name = "learning_curve"

    def __init__(self, finetune: FineTune, evaluate: Evaluate, shares: Sequence[float] = (0.25, 0.5)) -> None:
        if any(not 0 < share < 1 for share in shares) or sorted(shares) != list(shares):
            raise ValueError(f"shares must rise between 0 and 1, not {list(shares)}")
        self.finetune, self.evaluate, self.shares = finetune, evaluate, tuple(shares)

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        points = []
        for share in self.shares:
            clips = {name: manifest.clips for name, manifest in context.data.manifests.items()}
            changed = forget_labels(clips, "strong", share, context.seed)
            manifests = {**context.data.manifests, **{name: Manifest(name, those) for name, those in changed.items()}}
            kept = (self.finetune.model.pretrained_name, "embeddings")
            artifacts = {name: path for name, path in context.artifacts.items() if name in kept}
            fewer = replace(
                context,
                artifacts=artifacts,
                prepared=replace(context.data, manifests=manifests),
                records=[],
            )
            place = folder / f"{share:g}"
            place.mkdir(parents=True, exist_ok=True)
            fewer.artifacts |= self.finetune.run(fewer, place).artifacts
            points.append(_point(share, fewer.data, self.evaluate.figures(fewer)))
        metrics = read_metrics(context.artifacts["metrics.json"])
        whole = metrics[GROUPS[metrics["selected_processing"]]].get(metrics["selected"], {})
        points.append(_point(1.0, context.data, whole))
        ddp_barrier()
        return StageResult({}, {"points": points})


def _point(share: float, data: Prepared, figures: dict[str, Any]) -> dict[str, Any]:
    heard = Counter(event.label for clip in data.manifests["strong"] for event in clip.events or ())
    counts = {label: heard[label] for label in data.labels}
    per_class = {label: values.get("event_f1") for label, values in figures.get("per_class", {}).items()}
    return {"share": share, FIGURE: figures.get(FIGURE), "events": counts, "event_f1": per_class}
