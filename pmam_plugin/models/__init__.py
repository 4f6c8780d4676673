"""Full models: what training stages train and ``from_pretrained`` builds."""

from pmam_plugin.models.backbone import Backbone, BackboneOutput
from pmam_plugin.models.base import Detection, SoundEventModel
from pmam_plugin.models.detector import FrameDetector, LinearSoftmaxHead
from pmam_plugin.models.masked import MaskedModel, MaskedOutput
from pmam_plugin.nn.heads import PredictionHead, TagHead

__all__ = [
    "Backbone",
    "BackboneOutput",
    "Detection",
    "FrameDetector",
    "LinearSoftmaxHead",
    "MaskedModel",
    "MaskedOutput",
    "PredictionHead",
    "SoundEventModel",
    "TagHead",
]
