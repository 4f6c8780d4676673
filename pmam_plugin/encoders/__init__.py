"""Frame encoders behind one interface."""

from pmam_plugin.encoders.base import EncoderOutput, FrameEncoder, Windows

__all__ = [
    "EncoderOutput",
    "FrameEncoder",
    "Windows",
]
