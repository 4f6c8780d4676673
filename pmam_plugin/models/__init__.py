"""Full models: what training stages train and ``from_pretrained`` builds."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "AttentionHead": "pmam_plugin.models.attention_head",
    **dict.fromkeys(("Backbone", "BackboneOutput"), "pmam_plugin.models.backbone"),
    **dict.fromkeys(("Detection", "SoundEventModel"), "pmam_plugin.models.base"),
    **dict.fromkeys(("ATSTFrameMasking", "ATSTFramePretraining", "Predictor", "Projector"), "pmam_plugin.models.byol"),
    **dict.fromkeys(("FrameDetector", "LinearSoftmaxHead"), "pmam_plugin.models.detector"),
    **dict.fromkeys(("MaskedModel", "MaskedOutput"), "pmam_plugin.models.masked"),
    **dict.fromkeys(("SEDT", "SetDetection"), "pmam_plugin.models.sedt"),
    "AudioTagger": "pmam_plugin.models.sedt_tagging",
    **dict.fromkeys(("SPSEDT", "PatchSampler"), "pmam_plugin.models.sp_sedt"),
    **dict.fromkeys(("PredictionHead", "TagHead"), "pmam_plugin.nn.heads"),
}
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


def __getattr__(name: str) -> Any:
    # On first use: a process that detects needs one architecture's modules and must not wait for the others'.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
