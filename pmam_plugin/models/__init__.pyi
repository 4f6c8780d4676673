from .backbone import Backbone as Backbone, BackboneOutput as BackboneOutput
from .base import Detection as Detection, SoundEventModel as SoundEventModel
from .byol import (
    ATSTFrameMasking as ATSTFrameMasking,
    ATSTFramePretraining as ATSTFramePretraining,
    Predictor as Predictor,
    Projector as Projector,
)
from .detector import (
    AttentionHead as AttentionHead,
    FrameDetector as FrameDetector,
    LinearSoftmaxHead as LinearSoftmaxHead,
)
from .masked import MaskedModel as MaskedModel, MaskedOutput as MaskedOutput
from .sedt import SEDT as SEDT, SetDetection as SetDetection
from .sedt_tagging import AudioTagger as AudioTagger
from .sp_sedt import SPSEDT as SPSEDT, PatchSampler as PatchSampler
