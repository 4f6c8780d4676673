"""The full-size PMAM, counted without allocating it."""

import pytest
import torch
from torch import nn

from pmam_plugin.encoders import CNNEncoder, DualBranchEncoder, PaSSTEncoder
from pmam_plugin.features import FrontEnds, PaSSTMel
from pmam_plugin.models import Backbone, FrameDetector, LinearSoftmaxHead, MaskedModel
from pmam_plugin.nn.context import RelativePositionTransformer
from pmam_plugin.nn.heads import PredictionHead, TagHead
from pmam_plugin.nn.lora import add_lora
from pmam_plugin.nn.masking import BlockMasking

AUDIOSET_HEADS = 812_062  # the reference carries them as dead weight
UNUSED_CLASSIFIER = 11_550  # of the reference's pre-training model
LORA_BLOCK = 98_304
LORA_HEADS = 2 * (8 * 768 + 527 * 8)


def full_size() -> Backbone:
    encoder = DualBranchEncoder(PaSSTEncoder(), CNNEncoder())
    return Backbone(FrontEnds(mel=PaSSTMel()), encoder, RelativePositionTransformer())


def count(module: nn.Module, learning: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not learning)


def test_detector_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = FrameDetector(full_size(), LinearSoftmaxHead(384, 10, 768), [str(index) for index in range(10)])
    assert count(model) == 96_180_035 - AUDIOSET_HEADS


def test_masked_model_with_adapters_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = MaskedModel(full_size(), BlockMasking(), PredictionHead(384, 768), TagHead(768, 30))
        add_lora(model.backbone, blocks=[8, 9, 10, 11])
    # The reference also adapts blocks 0 to 7 and the heads, but never trains those adapters.
    elsewhere = AUDIOSET_HEADS + UNUSED_CLASSIFIER + 8 * LORA_BLOCK + LORA_HEADS
    assert count(model) == 97_847_387 - elsewhere
    assert count(model, learning=True) == 10_888_013 - UNUSED_CLASSIFIER
    adapted = {name.split(".lora_")[0].rsplit(".", 2)[0] for name, _ in model.named_parameters() if ".lora_" in name}
    assert adapted == {f"backbone.encoder.transformer.transformer.blocks.{block}" for block in (8, 9, 10, 11)}


@pytest.mark.slow
def test_a_step_at_full_size_reaches_every_learning_parameter() -> None:
    model = MaskedModel(full_size(), BlockMasking(), PredictionHead(384, 768), TagHead(768, 30)).train()
    add_lora(model.backbone, blocks=[8, 9, 10, 11])
    features = model.backbone.frontend(torch.randn(1, 32_000))
    output = model(features)
    assert output.tags is not None
    (output.prediction[output.mask].square().mean() + output.tags.mean()).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
