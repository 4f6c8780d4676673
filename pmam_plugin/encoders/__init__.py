"""Frame encoders behind one interface."""

from pmam_plugin.encoders.base import EncoderOutput, FrameEncoder, Windows
from pmam_plugin.encoders.cnn import CNNEncoder
from pmam_plugin.encoders.dual import DualBranchEncoder
from pmam_plugin.encoders.passt import PaSST, PaSSTEncoder

__all__ = [
    "CNNEncoder",
    "DualBranchEncoder",
    "EncoderOutput",
    "FrameEncoder",
    "PaSST",
    "PaSSTEncoder",
    "Windows",
]
