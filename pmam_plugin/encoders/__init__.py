"""Frame encoders behind one interface."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmam_plugin.encoders.atst import ATSTFrame
    from pmam_plugin.encoders.atst_sed import ATSTSEDEncoder
    from pmam_plugin.encoders.base import Columns, EncoderOutput, FrameEncoder, Wanted, Windows
    from pmam_plugin.encoders.beats import BEATs, BEATsEncoder
    from pmam_plugin.encoders.cnn import CNNEncoder
    from pmam_plugin.encoders.ctrans import CTransEncoder
    from pmam_plugin.encoders.dual import DualBranchEncoder
    from pmam_plugin.encoders.frame_mn import FrameMobileNetEncoder
    from pmam_plugin.encoders.frame_passt import FramePaSST, FramePaSSTEncoder
    from pmam_plugin.encoders.frozen import FrozenEncoder
    from pmam_plugin.encoders.hugging_face import TransformersEncoder
    from pmam_plugin.encoders.passt import PaSST, PaSSTEncoder
    from pmam_plugin.encoders.patch import PatchEncoder
    from pmam_plugin.encoders.s3prl import RawWaveform, S3PRLEncoder
    from pmam_plugin.encoders.set_backbone import SetBackbone
    from pmam_plugin.encoders.yamnet import YAMNetEncoder, YAMNetPatches

_HOMES = {
    "ATSTFrame": "pmam_plugin.encoders.atst",
    "ATSTSEDEncoder": "pmam_plugin.encoders.atst_sed",
    **dict.fromkeys(("Columns", "EncoderOutput", "FrameEncoder", "Wanted", "Windows"), "pmam_plugin.encoders.base"),
    **dict.fromkeys(("BEATs", "BEATsEncoder"), "pmam_plugin.encoders.beats"),
    "CNNEncoder": "pmam_plugin.encoders.cnn",
    "CTransEncoder": "pmam_plugin.encoders.ctrans",
    "DualBranchEncoder": "pmam_plugin.encoders.dual",
    "FrameMobileNetEncoder": "pmam_plugin.encoders.frame_mn",
    **dict.fromkeys(("FramePaSST", "FramePaSSTEncoder"), "pmam_plugin.encoders.frame_passt"),
    "FrozenEncoder": "pmam_plugin.encoders.frozen",
    "TransformersEncoder": "pmam_plugin.encoders.hugging_face",
    **dict.fromkeys(("PaSST", "PaSSTEncoder"), "pmam_plugin.encoders.passt"),
    "PatchEncoder": "pmam_plugin.encoders.patch",
    **dict.fromkeys(("RawWaveform", "S3PRLEncoder"), "pmam_plugin.encoders.s3prl"),
    "SetBackbone": "pmam_plugin.encoders.set_backbone",
    **dict.fromkeys(("YAMNetEncoder", "YAMNetPatches"), "pmam_plugin.encoders.yamnet"),
}
__all__ = [
    "ATSTFrame",
    "ATSTSEDEncoder",
    "BEATs",
    "BEATsEncoder",
    "CNNEncoder",
    "CTransEncoder",
    "Columns",
    "DualBranchEncoder",
    "EncoderOutput",
    "FrameEncoder",
    "FrameMobileNetEncoder",
    "FramePaSST",
    "FramePaSSTEncoder",
    "FrozenEncoder",
    "PaSST",
    "PaSSTEncoder",
    "PatchEncoder",
    "RawWaveform",
    "S3PRLEncoder",
    "SetBackbone",
    "TransformersEncoder",
    "Wanted",
    "Windows",
    "YAMNetEncoder",
    "YAMNetPatches",
]


def __getattr__(name: str) -> Any:
    # On first use: a process that detects needs one architecture's modules and must not wait for the others'.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
