from .atst import ATSTFrame as ATSTFrame
from .atst_sed import ATSTSEDEncoder as ATSTSEDEncoder
from .base import (
    Columns as Columns,
    EncoderOutput as EncoderOutput,
    FrameEncoder as FrameEncoder,
    Wanted as Wanted,
    Windows as Windows,
)
from .beats import BEATs as BEATs, BEATsEncoder as BEATsEncoder
from .cnn import CNNEncoder as CNNEncoder
from .ctrans import CTransEncoder as CTransEncoder
from .dual import DualBranchEncoder as DualBranchEncoder
from .frame_mn import FrameMobileNetEncoder as FrameMobileNetEncoder
from .frame_passt import FramePaSST as FramePaSST, FramePaSSTEncoder as FramePaSSTEncoder
from .frozen import FrozenEncoder as FrozenEncoder
from .hugging_face import TransformersEncoder as TransformersEncoder
from .passt import PaSST as PaSST, PaSSTEncoder as PaSSTEncoder
from .patch import PatchEncoder as PatchEncoder
from .s3prl import RawWaveform as RawWaveform, S3PRLEncoder as S3PRLEncoder
from .set_backbone import SetBackbone as SetBackbone
from .yamnet import YAMNetEncoder as YAMNetEncoder, YAMNetPatches as YAMNetPatches
