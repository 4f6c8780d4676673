"""The steps of an experiment, each run once: prepare, embed, pre-train (with E-steps), fine-tune, evaluate, report."""

from pmam_plugin.stages.context import RunContext, StageResult
from pmam_plugin.stages.embed import Embed
from pmam_plugin.stages.evaluate import Evaluate
from pmam_plugin.stages.finetune import BestStart, FineTune
from pmam_plugin.stages.learning_curve import LearningCurve
from pmam_plugin.stages.prepare import LoadWeights, MeasureBands, Prepare
from pmam_plugin.stages.pretrain import (
    Pretrain,
    PretrainATSTFrame,
    PretrainPatches,
    PretrainTagger,
    expectation_maximisation,
)
from pmam_plugin.stages.prototypes import EStep
from pmam_plugin.stages.report import Report, summary_table
from pmam_plugin.stages.runner import run_stages
from pmam_plugin.stages.settings import refuse_changes, without

__all__ = [
    "BestStart",
    "EStep",
    "Embed",
    "Evaluate",
    "FineTune",
    "LearningCurve",
    "LoadWeights",
    "MeasureBands",
    "Prepare",
    "Pretrain",
    "PretrainATSTFrame",
    "PretrainPatches",
    "PretrainTagger",
    "Report",
    "RunContext",
    "StageResult",
    "expectation_maximisation",
    "refuse_changes",
    "run_stages",
    "summary_table",
    "without",
]
