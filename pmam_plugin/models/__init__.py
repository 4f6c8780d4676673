"""Full models: what training stages train and ``from_pretrained`` builds."""

from pmam_plugin.models.attention_head import AttentionHead
from pmam_plugin.models.backbone import Backbone, BackboneOutput
from pmam_plugin.models.base import Detection, SoundEventModel
from pmam_plugin.models.byol import ATSTFrameMasking, ATSTFramePretraining, Predictor, Projector
from pmam_plugin.models.detector import FrameDetector, LinearSoftmaxHead
from pmam_plugin.models.masked import MaskedModel, MaskedOutput
from pmam_plugin.models.sedt import SEDT, SetDetection
from pmam_plugin.models.sedt_tagging import AudioTagger
from pmam_plugin.models.sp_sedt import SPSEDT, PatchSampler
from pmam_plugin.nn.heads import PredictionHead, TagHead

__all__ = [
    "SEDT",
    "SPSEDT",
    "ATSTFrameMasking",
    "ATSTFramePretraining",
    "AttentionHead",
    "AudioTagger",
    "Backbone",
    "BackboneOutput",
    "Detection",
    "FrameDetector",
    "LinearSoftmaxHead",
    "MaskedModel",
    "MaskedOutput",
    "PatchSampler",
    "PredictionHead",
    "Predictor",
    "Projector",
    "SetDetection",
    "SoundEventModel",
    "TagHead",
]
