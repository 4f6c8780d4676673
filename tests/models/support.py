"""A tiny PMAM for the tests of the models."""

import torch

from pmam_plugin.encoders import PatchEncoder
from pmam_plugin.features import FrontEnds, LogMel
from pmam_plugin.models import Backbone
from pmam_plugin.nn.context import RelativePositionTransformer


def tiny_backbone() -> Backbone:
    torch.manual_seed(0)
    encoder = PatchEncoder(mel_bins=16, dim=16, depth=2, heads=2)
    return Backbone(FrontEnds(mel=LogMel(n_mels=16)), encoder, RelativePositionTransformer(16, depth=2, heads=2)).eval()


def tiny_features(seconds: float = 1.0, batch: int = 2) -> dict[str, torch.Tensor]:
    return {"mel": torch.randn(batch, 16, int(seconds * 100), generator=torch.Generator().manual_seed(0))}
