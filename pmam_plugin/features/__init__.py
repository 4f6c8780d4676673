"""Log-mel front ends, one per published system and a small generic one."""

from pmam_plugin.features.base import FrontEnds, MelFrontEnd
from pmam_plugin.features.front_ends import (
    ATSTMel,
    CRNNMel,
    KaldiMel,
    LogMel,
    MobileNetMel,
    PaSSTMel,
    SEDTMel,
    YAMNetMel,
)

__all__ = [
    "ATSTMel",
    "CRNNMel",
    "FrontEnds",
    "KaldiMel",
    "LogMel",
    "MelFrontEnd",
    "MobileNetMel",
    "PaSSTMel",
    "SEDTMel",
    "YAMNetMel",
]
