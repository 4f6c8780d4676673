"""Pre-training of ATST-Frame's encoder by its own objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import ddp_barrier

from pmam_plugin.brains.byol import ATSTFrameBrain, ATSTFrameSettings
from pmam_plugin.brains.plan import TrainingPlan
from pmam_plugin.brains.records import hand_on
from pmam_plugin.config import configurable
from pmam_plugin.encoders import ATSTFrame
from pmam_plugin.models import ATSTFrameMasking, ATSTFramePretraining, Backbone
from pmam_plugin.stages.context import RunContext, StageResult
from pmam_plugin.stages.loading import check_batch, training_batches
from pmam_plugin.stages.prepare import copy_with_artifact


@configurable
class PretrainATSTFrame:
    """Frame-level BYOL with masking; the teacher's encoder is kept, as the authors publish it.

    Leaves the whole backbone for the fine-tuning stages of the same run, and ``atst_frame.safetensors`` with the
    encoder alone, which ``--atst_checkpoint`` of another run takes.

    Args:
        backbone: holds the encoder, alone or beside a CNN.
        plan: budget and optimiser; the published rate is 8e-5 per 256 clips.
        masking: which tokens the student does not see.
        hidden, output_dim: of projector and predictor.
        settings: of :class:`~pmam_plugin.brains.byol.ATSTFrameSettings`.
    """

    always = False
    name, folder = "pretrain_atst", "stages/pretrain_atst"

    def __init__(
        self,
        backbone: Backbone,
        plan: TrainingPlan,
        masking: ATSTFrameMasking | None = None,
        hidden: int = 4096,
        output_dim: int = 256,
        **settings: Any,
    ) -> None:
        self.backbone, self.plan, self.masking = backbone, plan, masking
        self.hidden, self.output_dim = hidden, output_dim
        self.settings = ATSTFrameSettings(**settings)

    def check(self, context: RunContext) -> None:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        check_batch(context, self.plan, self.name)

    def run(self, context: RunContext, folder: Path) -> StageResult:
        """See :class:`pmam_plugin.stages.context.Stage`."""
        run = context.stage_run(self.name, self.plan, folder)
        backbone = copy_with_artifact(self.backbone, context)
        encoder = next((part for part in backbone.encoder.modules() if isinstance(part, ATSTFrame)), None)
        if encoder is None:
            raise ValueError("the backbone holds no ATSTFrame to pre-train")
        model = ATSTFramePretraining(encoder, self.masking, self.hidden, self.output_dim)
        brain = ATSTFrameBrain(model, backbone.frontend, run, self.settings)
        brain.train(training_batches(context, backbone, self.plan, self.name))
        ddp_barrier()
        model.load_state_dict(brain.best.load("model"))
        trained = model.teacher.encoder.state_dict()
        encoder.load_state_dict(trained)
        artifacts = {
            "backbone": hand_on(folder / "backbone.safetensors", backbone.state_dict()),
            "atst_frame": hand_on(folder / "atst_frame.safetensors", trained),
        }
        notes = {"updates": brain.optimizer_step}
        spreads = brain.history.curves.get("target_spread")
        return StageResult(
            artifacts, notes | ({"target_spread": spreads[-1][1]} if spreads else {}), brain.history.curves
        )
