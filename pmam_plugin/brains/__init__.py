"""SpeechBrain Brains, one per kind of training, and the parts their YAML wires."""

from pmam_plugin.brains.base import StageBrain
from pmam_plugin.brains.byol import ATSTFrameBrain
from pmam_plugin.brains.masked import MaskedBrain
from pmam_plugin.brains.mean_teacher import MeanTeacherBrain
from pmam_plugin.brains.objectives import Consistency, EmbeddingContrast, MixedPseudoLabels, Supervised
from pmam_plugin.brains.optimisation import ParameterGroup, layerwise_groups
from pmam_plugin.brains.plan import TrainingPlan
from pmam_plugin.brains.schedules import Constant, CosineDown, ExponentialDown, ExponentialWarmup, Ramp, StepDown
from pmam_plugin.brains.sedt import PatchBrain, TaggerBrain
from pmam_plugin.brains.set_loss import PseudoEvents, SetLoss
from pmam_plugin.brains.views import Views

__all__ = [
    "ATSTFrameBrain",
    "Consistency",
    "Constant",
    "CosineDown",
    "EmbeddingContrast",
    "ExponentialDown",
    "ExponentialWarmup",
    "MaskedBrain",
    "MeanTeacherBrain",
    "MixedPseudoLabels",
    "ParameterGroup",
    "PatchBrain",
    "PseudoEvents",
    "Ramp",
    "SetLoss",
    "StageBrain",
    "StepDown",
    "Supervised",
    "TaggerBrain",
    "TrainingPlan",
    "Views",
    "layerwise_groups",
]
