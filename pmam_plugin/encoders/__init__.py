"""Frame encoders behind one interface."""

from pmam_plugin.encoders.atst import ATSTFrame
from pmam_plugin.encoders.atst_sed import ATSTSEDEncoder
from pmam_plugin.encoders.base import Columns, EncoderOutput, FrameEncoder, Windows
from pmam_plugin.encoders.cnn import CNNEncoder
from pmam_plugin.encoders.ctrans import CTransEncoder
from pmam_plugin.encoders.dual import DualBranchEncoder
from pmam_plugin.encoders.frozen import FrozenEncoder
from pmam_plugin.encoders.passt import PaSST, PaSSTEncoder
from pmam_plugin.encoders.patch import PatchEncoder
from pmam_plugin.encoders.s3prl import RawWaveform, S3PRLEncoder
from pmam_plugin.encoders.set_backbone import SetBackbone
from pmam_plugin.encoders.yamnet import YAMNetEncoder, YAMNetPatches

__all__ = [
    "ATSTFrame",
    "ATSTSEDEncoder",
    "CNNEncoder",
    "CTransEncoder",
    "Columns",
    "DualBranchEncoder",
    "EncoderOutput",
    "FrameEncoder",
    "FrozenEncoder",
    "PaSST",
    "PaSSTEncoder",
    "PatchEncoder",
    "RawWaveform",
    "S3PRLEncoder",
    "SetBackbone",
    "Windows",
    "YAMNetEncoder",
    "YAMNetPatches",
]
