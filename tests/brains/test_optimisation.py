import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from pmam_plugin.brains.optimisation import ParameterGroup, build_groups, clip_gradients, layerwise_groups
from pmam_plugin.encoders.atst import ATSTFrame
from pmam_plugin.encoders.beats import BEATsEncoder
from pmam_plugin.features import FrontEnds, SEDTMel
from pmam_plugin.models import SEDT, MaskedModel
from pmam_plugin.models.byol import ATSTFramePretraining
from pmam_plugin.models.sedt_tagging import AudioTagger
from pmam_plugin.nn.heads import PredictionHead
from pmam_plugin.nn.lora import add_lora
from pmam_plugin.nn.masking import BlockMasking
from tests.sedt_models import LABELS, tiny_network, tiny_pretext, tiny_sedt
from tests.support import shared
from tests.test_architectures import ARCHITECTURES


def small_model() -> nn.Module:
    return nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 2) for _ in range(3)]), "head": nn.Linear(2, 1)})


def test_first_match_wins_and_rate_zero_freezes():
    model = small_model()
    groups = build_groups(
        [("model", model)],
        [
            ParameterGroup(r"blocks\.[01]\.", 0.0),
            ParameterGroup("blocks", 1e-3, 0.1),
            ParameterGroup("", 1e-2, 0.1),
        ],
    )
    assert not model["blocks"][0].weight.requires_grad
    assert {group["lr"] for group in groups} == {1e-3, 1e-2}
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(model["blocks"][2].weight), id(model["head"].weight)}


def test_parameters_frozen_before_stay_frozen():
    model = small_model()
    model["head"].requires_grad_(False)
    groups = build_groups([("model", model)], [ParameterGroup("", 1.0)])
    assert id(model["head"].weight) not in {id(p) for group in groups for p in group["params"]}


def test_what_was_frozen_before_learns_where_a_group_thaws_it():
    model = small_model().requires_grad_(False)
    groups = build_groups(
        [("model", model)],
        [
            ParameterGroup("blocks.2", 1e-4, thaw=True),
            ParameterGroup("blocks.1", 0.0, thaw=True),
            ParameterGroup("", 1.0),
        ],
    )
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {"blocks.2.weight", "blocks.2.bias"}
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in model["blocks"][2].parameters()}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([ParameterGroup("blocks", 1.0)], "no parameter group matches model.head"),
        ([ParameterGroup("encoder", 1.0), ParameterGroup("", 1.0)], "match nothing: encoder"),
        ([ParameterGroup("", 0.0)], "nothing to train"),
    ],
)
def test_mistakes_in_groups_are_named(groups, message):
    with pytest.raises(ValueError, match=message):
        build_groups([("model", small_model())], groups)


def test_layerwise_rates_halve_downwards():
    rates = [group.learning_rate for group in layerwise_groups(r"blocks\.{layer}\.", 3, 4e-4)]
    assert rates == pytest.approx([4e-4, 2e-4, 1e-4])


def test_clipping_sees_every_group_and_only_shrinks():
    first, second = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second]}], lr=1.0)
    first.grad, second.grad = torch.full((3,), 3.0), torch.full((4,), 4.0)
    norm = clip_gradients(optimizer, 1.0)
    assert norm == pytest.approx((27 + 64) ** 0.5)
    total = torch.cat([first.grad, second.grad]).norm()
    assert float(total) == pytest.approx(1.0, rel=1e-4)
    before = second.grad.clone()
    clip_gradients(optimizer, 100.0)
    clip_gradients(optimizer, None)
    assert torch.equal(second.grad, before)


@pytest.mark.parametrize("bound", [0, -1.0])
def test_a_bound_that_would_reverse_gradients_is_refused(bound):
    with pytest.raises(ValueError, match="max_grad_norm"):
        clip_gradients(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), bound)


def test_layerwise_rates_of_an_atst_frame_are_those_of_the_reference():
    """As hparams/atst_sed.yaml asks for them."""
    with torch.device("meta"):
        encoder = ATSTFrame()
    with safe_open(shared("reference_outputs/atst_sed_components.safetensors"), "pt") as file:
        expected = json.loads(file.metadata()["learning_rates"])[2:]
    rules = [
        ParameterGroup("norm_frame", 2e-4),
        layerwise_groups(r"blocks\.{layer}\.", 12, 1e-4),
        ParameterGroup("", 2.44e-8),
    ]
    found: dict[float, int] = {}
    for group in build_groups([("encoder", encoder)], rules):
        found[group["lr"]] = found.get(group["lr"], 0) + sum(parameter.numel() for parameter in group["params"])
    assert sorted(found, reverse=True) == pytest.approx(expected, rel=1e-3)
    assert [found[rate] for rate in sorted(found, reverse=True)] == [1_536, *[7_085_568] * 12, 390_912]


def masked_model() -> nn.Module:
    backbone = ARCHITECTURES["PMAM"]().backbone
    return MaskedModel(add_lora(backbone, [1], rank=2), BlockMasking(), PredictionHead(backbone.dim, 4))


def beats() -> nn.Module:
    sizes = {"depth": 2, "dim": 24, "heads": 2, "patch_dim": 8, "position_kernel": 8, "position_groups": 4}
    return BEATsEncoder(**sizes, pooling="attention", pooling_heads=2)


TRAINED = ARCHITECTURES | {
    "masked model with adapters": masked_model,
    "SEDT with all options": lambda: SEDT(
        FrontEnds(mel=SEDTMel()), tiny_network(frequency_bands=2, anchors=True), LABELS, 4.0, denoising=2
    ),
    "SP-SEDT": tiny_pretext,
    "tagger": lambda: AudioTagger(tiny_sedt().frontend, tiny_sedt().network.backbone, LABELS, 8),
    "ATST-Frame's pre-training": lambda: ATSTFramePretraining(ATSTFrame(dim=16, depth=2, heads=2), None, 16, 8),
    "BEATs": beats,
}
# What is added to frames, or stands in their place, or asks: of more than one dimension, and no matrix.
POINTS = {
    *("cls_token", "dist_token", "mask_token", "mask_embed"),
    *("new_pos_embed", "freq_new_pos_embed", "time_new_pos_embed", "pos_embed", "frequency_positions"),
    *("query", "audio_query", "event_queries", "logits", "noised_content.weight", "table.weight"),
    *("content_bias", "distance_bias", "gate_scale", "direction", "gain"),
}


@pytest.fixture(scope="module")
def decay() -> dict[str, dict[str, bool]]:
    """Of every architecture: the parameters of more than one dimension, and whether they decay."""
    found: dict[str, dict[str, bool]] = {}
    for name, build in TRAINED.items():
        model = build().requires_grad_(True)
        groups = build_groups([("model", model)], [ParameterGroup("", 1e-3, 0.1)])
        decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
        parameters = dict(model.named_parameters())
        assert not any(id(p) in decayed for p in parameters.values() if p.dim() < 2)
        found[name] = {key: id(p) in decayed for key, p in parameters.items() if p.dim() > 1}
    return found


@pytest.mark.parametrize("name", TRAINED)
def test_what_multiplies_decays_and_what_is_a_point_does_not(name: str, decay: dict[str, dict[str, bool]]) -> None:
    for parameter, decays in decay[name].items():
        point = any(parameter.endswith(f".{leaf}") or parameter == leaf for leaf in POINTS)
        assert decays is not point, parameter
    assert any(decay[name].values())


def test_every_kind_of_point_was_there_to_be_asked(decay: dict[str, dict[str, bool]]) -> None:
    spared = {key for found in decay.values() for key, decays in found.items() if not decays}
    assert {leaf for leaf in POINTS if not any(key.endswith(leaf) for key in spared)} == set()
