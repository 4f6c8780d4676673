"""Model folders small enough for the tests of upstream, Hub, export and SpeechBrain."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from pmam_plugin.checkpoints import save_model
from pmam_plugin.encoders import (
    ATSTFrame,
    ATSTSEDEncoder,
    BEATsEncoder,
    CNNEncoder,
    CTransEncoder,
    DualBranchEncoder,
    FrameMobileNetEncoder,
    FramePaSSTEncoder,
    PaSSTEncoder,
    PatchEncoder,
)
from pmam_plugin.encoders.atst_sed import DCASE_POOLING
from pmam_plugin.features import ATSTMel, CRNNMel, FrontEnds, KaldiMel, LogMel, MobileNetMel, PaSSTMel
from pmam_plugin.models import AttentionHead, Backbone, FrameDetector, LinearSoftmaxHead
from pmam_plugin.nn.cnn import ConvStack
from pmam_plugin.nn.context import IdentityContext, RecurrentContext, RelativePositionTransformer
from pmam_plugin.postprocessing import PostProcessing, Scoring

LABELS = ("bell", "dog", "speech")


def patch_detector(clip_seconds: float = 10.0) -> FrameDetector:
    """16 kHz, 25 frames/s, four layers of width 16, with dropout and a tag branch: the small PMAM in miniature."""
    torch.manual_seed(0)
    encoder = PatchEncoder(mel_bins=16, dim=16, depth=2, heads=2, context_frames=6, dropout=0.1)
    context = RelativePositionTransformer(16, depth=2, heads=2, dropout=0.1)
    backbone = Backbone(FrontEnds(mel=LogMel(n_mels=16)), encoder, context)
    head = LinearSoftmaxHead(16, 3, token_dim=16, tag_heads=2)
    return lively(FrameDetector(backbone, head, LABELS, clip_seconds))


def dual_detector(clip_seconds: float = 10.0) -> FrameDetector:
    """32 kHz, 100 frames/s, layers of width 24 and 16, jitter in training: the full PMAM in miniature."""
    torch.manual_seed(0)
    transformer = PaSSTEncoder(layer=2, depth=3, dim=24, heads=2, pooling_heads=2, mel_bins=32)
    cnn = CNNEncoder(channels=(4, 8), pooling=((2, 4), (2, 4)))
    encoder = DualBranchEncoder(transformer, cnn, dim=16)
    context = RelativePositionTransformer(16, depth=2, heads=2)
    backbone = Backbone(FrontEnds(mel=PaSSTMel(n_mels=32)), encoder, context)
    head = LinearSoftmaxHead(16, 3, token_dim=24, tag_heads=2)
    return lively(FrameDetector(backbone, head, LABELS, clip_seconds))


def recurrent_detector() -> FrameDetector:
    """16 kHz, 156.25 frames per 10 s: the DCASE baseline in miniature."""
    torch.manual_seed(0)
    encoder = CNNEncoder("crnn", 62.5, (4,) * 7, DCASE_POOLING)
    context = RecurrentContext(4, 4, 1)
    backbone = Backbone(FrontEnds(crnn=CRNNMel()), encoder, context)
    return lively(FrameDetector(backbone, AttentionHead(8, 3), LABELS))


def atst_detector() -> FrameDetector:
    """ATST-SED in miniature: tokens pooled onto the frames of a CNN."""
    torch.manual_seed(0)
    cnn = CNNEncoder("crnn", 62.5, (4,) * 7, DCASE_POOLING)
    encoder = ATSTSEDEncoder(cnn, ATSTFrame(dim=16, depth=2, heads=2), dim=8)
    backbone = Backbone(FrontEnds(atst=ATSTMel(), crnn=CRNNMel()), encoder, RecurrentContext(8, 4, 2))
    return lively(FrameDetector(backbone, AttentionHead(8, 3), LABELS))


def ctrans_detector() -> FrameDetector:
    """The frame-based baseline of SEDT in miniature."""
    torch.manual_seed(0)
    stack = ConvStack((4,) * 7, DCASE_POOLING)
    encoder = CTransEncoder(stack, 62.5, encoder_layers=1, dim=16, heads=2, feedforward=32, feature="crnn")
    backbone = Backbone(FrontEnds(crnn=CRNNMel()), encoder, IdentityContext(16))
    return lively(FrameDetector(backbone, AttentionHead(16, 3), LABELS))


def beats_detector(pooling: Literal["mean", "tokens"] = "tokens") -> FrameDetector:
    """PretrainedSED's detector of BEATs in miniature, or (mean) as one would train it."""
    torch.manual_seed(0)
    sizes = {"depth": 2, "dim": 16, "heads": 2, "patch_dim": 8, "position_kernel": 8, "position_groups": 2}
    encoder = BEATsEncoder(pooling=pooling, **sizes)  # type: ignore[arg-type]
    backbone = Backbone(FrontEnds(mel=KaldiMel()), encoder, IdentityContext(16))
    return lively(FrameDetector(backbone, LinearSoftmaxHead(16, 3, token_dim=16, tag_heads=2), LABELS))


def frame_passt_detector() -> FrameDetector:
    """PretrainedSED's detector of frame-PaSST in miniature."""
    torch.manual_seed(0)
    encoder = FramePaSSTEncoder(depth=2, dim=16, heads=2)
    backbone = Backbone(FrontEnds(mel=MobileNetMel(periodic=True)), encoder, IdentityContext(16))
    return lively(FrameDetector(backbone, LinearSoftmaxHead(16, 3), LABELS))


def frame_mn_detector() -> FrameDetector:
    """PretrainedSED's detector of frame-MobileNet, narrower."""
    torch.manual_seed(0)
    encoder = FrameMobileNetEncoder(0.1)
    backbone = Backbone(FrontEnds(mel=MobileNetMel()), encoder, IdentityContext(encoder.dim))
    return FrameDetector(backbone, LinearSoftmaxHead(encoder.dim, 3), LABELS).eval()


def lively(model: FrameDetector) -> FrameDetector:
    """Scores that differ visibly from one half."""
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    return model.eval()


def write_folder(folder: Path, model: FrameDetector | None = None) -> Path:
    """A model folder as training writes one."""
    return save_model(
        folder,
        patch_detector() if model is None else model,
        Scoring(PostProcessing(median_seconds=0.2)),
        provenance={
            "package": "pmam_plugin 0.0",
            "seed": 3,
            "data": "generated tones",
            "metrics": {"psds1": 0.25, "psds1_ci": [0.2, 0.3], "psds2": 0.5, "event_f1_macro": 0.4},
        },
    )


def noise(seconds: float, seed: int = 0, sample_rate: int = 16000) -> torch.Tensor:
    """A waveform ``(samples,)``."""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(round(seconds * sample_rate), generator=generator)
