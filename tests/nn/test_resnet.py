from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pmam_plugin.config import from_config, to_config
from pmam_plugin.errors import InputError
from pmam_plugin.nn.resnet import SpectrogramResNet, pooled_features


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 512), ("resnet50", 2048)])
def test_the_channel_count_is_the_resnets_own(name: str, channels: int) -> None:
    # The reference takes 2048 for every ResNet.
    backbone = SpectrogramResNet(name).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 64, 40))
    assert backbone.channels == channels
    assert maps.shape == (1, channels, backbone.output_frames(40), backbone.output_frames(64)) == (1, channels, 3, 4)


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("frames", [1, 31, 33, 130])
def test_cells_are_counted_right_at_any_stride_and_length(stride: int, frames: int) -> None:
    backbone = SpectrogramResNet("resnet18", output_stride=stride, colour_projection=False).eval()
    with torch.no_grad():
        cells = backbone(torch.randn(1, 32, frames)).shape[2:]
    assert cells == (backbone.output_frames(frames), backbone.output_frames(32))


def test_ten_seconds_give_31_cells_of_16_frames() -> None:
    backbone = SpectrogramResNet("resnet18")
    assert (backbone.output_frames(496), backbone.output_frames(500), backbone.time_factor) == (31, 32, 16)


def test_frozen_norms_neither_learn_nor_follow_the_data() -> None:
    backbone = SpectrogramResNet("resnet18").train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone(torch.randn(2, 32, 40)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    learning = {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad}
    assert learning == {"weight", "bias", "layer2", "layer3", "layer4"}  # conv0.* and three stages
    assert all(not p.requires_grad for m in backbone.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())


def test_frozen_norms_do_not_silence_the_blocks() -> None:
    # timm initialises the last norm of each block at zero.
    backbone = SpectrogramResNet("resnet18")
    assert all((m.weight == 1).all() for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))


def test_a_backbone_from_scratch_learns_all_of_itself() -> None:
    backbone = SpectrogramResNet("resnet18", frozen_norm=False, frozen=()).train()
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    before = backbone.body.bn1.running_mean.clone()
    backbone(torch.randn(2, 32, 40))
    assert not torch.equal(before, backbone.body.bn1.running_mean)


def test_a_frozen_backbone_stays_asleep_in_training() -> None:
    backbone = SpectrogramResNet("resnet18", frozen_norm=False, frozen=())
    backbone.freeze()
    backbone.train()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.body.modules())
    features = pooled_features(backbone, torch.randn(2, 32, 40))
    assert features.shape == (2, 512)
    assert not features.requires_grad


@pytest.mark.parametrize("colour", [True, False])
def test_imagenet_weights_load_from_torchvisions_layout(tmp_path, colour: bool) -> None:
    torch.manual_seed(1)
    source = SpectrogramResNet("resnet18").body.state_dict()
    weights = {
        name: value.clone().contiguous() for name, value in source.items() if not name.endswith("num_batches_tracked")
    }
    weights |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    save_file(weights, tmp_path / "resnet18.safetensors")
    torch.manual_seed(2)
    backbone = SpectrogramResNet("resnet18", colour_projection=colour)
    backbone.load_imagenet(str(tmp_path / "resnet18.safetensors"))
    first = weights["conv1.weight"] if colour else weights["conv1.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(backbone.body.conv1.weight.data, first)
    torch.testing.assert_close(backbone.body.layer4[1].conv2.weight.data, weights["layer4.1.conv2.weight"])


def test_weights_that_do_not_fit_are_refused(tmp_path) -> None:
    path = str(tmp_path / "w.safetensors")
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    with pytest.raises(InputError, match="missing or unexpected"):
        SpectrogramResNet("resnet18").load_imagenet(path)
    save_file({"conv1.weight": torch.zeros(2, 3, 7, 7)}, path)
    with pytest.raises(InputError, match="other shapes"):
        SpectrogramResNet("resnet18").load_imagenet(path)


def test_the_configuration_rebuilds_it() -> None:
    rebuilt = from_config(to_config(SpectrogramResNet("resnet18", output_stride=8, frozen=["conv1"])))
    assert (rebuilt.name, rebuilt.time_factor, rebuilt.body.layer1[0].conv1.weight.requires_grad) == (
        "resnet18",
        8,
        True,
    )
