from .attention_head import AttentionHead as AttentionHead
from .backbone import Backbone as Backbone
from .backbone import BackboneOutput as BackboneOutput
from .base import Detection as Detection
from .base import SoundEventModel as SoundEventModel
from .byol import (
    ATSTFrameMasking as ATSTFrameMasking,
)
from .byol import (
    ATSTFramePretraining as ATSTFramePretraining,
)
from .byol import (
    Predictor as Predictor,
)
from .byol import (
    Projector as Projector,
)
from .detector import FrameDetector as FrameDetector
from .detector import LinearSoftmaxHead as LinearSoftmaxHead
from .masked import MaskedModel as MaskedModel
from .masked import MaskedOutput as MaskedOutput
from .sedt import SEDT as SEDT
from .sedt import SetDetection as SetDetection
from .sedt_tagging import AudioTagger as AudioTagger
from .sp_sedt import SPSEDT as SPSEDT
from .sp_sedt import PatchSampler as PatchSampler
