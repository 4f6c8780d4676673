from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import kstest, truncnorm

from pmam_plugin.config import from_config, to_config
from pmam_plugin.losses.set_criterion import SetCriterion
from pmam_plugin.models.sedt import pretrained_part
from pmam_plugin.models.sedt_tagging import AudioTagger
from pmam_plugin.models.sp_sedt import PatchSampler, crop_patches, pool_patches
from pmam_plugin.nn.intervals import box_edges
from pmam_plugin.nn.resnet import SpectrogramResNet
from tests.sedt_models import LABELS, tiny_pretext, tiny_sedt


@given(st.integers(1, 600), st.integers(0, 10_000), st.sampled_from([None, 128]))
def test_patches_lie_inside_the_valid_part_of_their_clip(valid: int, seed: int, fixed: int | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    bounds = PatchSampler(patches=7, fixed_frames=fixed)(torch.tensor([valid, 600]), generator)
    assert bounds.shape == (2, 7, 2)
    lengths = bounds[..., 1] - bounds[..., 0]
    assert (lengths >= 1).all()
    assert (bounds[..., 0] >= 0).all()
    assert (bounds[0, :, 1] <= valid).all()
    if fixed:
        assert (lengths[0] == min(fixed, valid)).all()


def test_patch_lengths_follow_the_cut_normal_distribution() -> None:
    bounds = PatchSampler(patches=100)(torch.full((400,), 10_000), torch.Generator().manual_seed(0))
    shares = (bounds[..., 1] - bounds[..., 0]) / 10_000
    assert shares.min() >= 0.05 - 1e-4
    assert shares.max() < 0.8
    expected = truncnorm((0.05 - 0.2) / 0.26, (0.8 - 0.2) / 0.26, loc=0.2, scale=0.26)
    assert kstest(shares.flatten().numpy(), expected.cdf).statistic < 0.01
    starts = bounds[..., 0] / (10_000 - (bounds[..., 1] - bounds[..., 0]))
    assert float(starts.mean()) == pytest.approx(0.5, abs=0.01)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, 18), st.integers(2, 19), st.sampled_from([8, 16]))
def test_a_patch_is_recovered_from_its_own_crop(seed: int, start: int, length: int, frames: int) -> None:
    spectrogram = torch.randn(1, 6, 20, generator=torch.Generator().manual_seed(seed))
    end = min(20, start + length)
    patch = crop_patches(spectrogram, torch.tensor([[[start, end]]]), frames)[0, 0]
    places = torch.tensor([[(a, b) for a in range(20) for b in range(a + 1, 21)]])
    distances = (crop_patches(spectrogram, places, frames)[0] - patch).square().sum(dim=(1, 2))
    assert places[0, distances.argmin()].tolist() == [start, end]
    assert (distances < 1e-6).sum() == 1


@pytest.mark.parametrize("length", [5, 32, 77])
def test_crops_are_resized_as_torch_interpolates(length: int) -> None:
    spectrogram = torch.randn(2, 6, 100)
    bounds = torch.tensor([[[10, 10 + length]], [[3, 3 + length]]])
    found = crop_patches(spectrogram, bounds, 32)
    for clip, (start, end) in enumerate(bounds[:, 0].tolist()):
        image = spectrogram[clip : clip + 1, None, :, start:end]
        expected = torch.nn.functional.interpolate(image, (6, 32), mode="bilinear", antialias=True)
        torch.testing.assert_close(found[clip], expected[0], atol=1e-5, rtol=1e-5)


def test_a_crop_of_the_wanted_length_is_the_crop() -> None:
    spectrogram = torch.randn(1, 6, 100)
    patch = crop_patches(spectrogram, torch.tensor([[[20, 52]]]), 32)
    torch.testing.assert_close(patch[0, 0], spectrogram[0, :, 20:52])


def test_a_pooled_patch_is_the_mean_of_what_it_covers() -> None:
    cells = torch.arange(5.0)[None, None, :, None].expand(1, 2, 5, 3)
    bounds = torch.tensor([[[8, 16], [8, 20], [33, 40], [12, 16], [40, 42]]])
    torch.testing.assert_close(pool_patches(cells, bounds, 8)[0, :, 0], torch.tensor([1.0, 4 / 3, 4.0, 1.0, 0.0]))


def mel(batch: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"mel": torch.randn(batch, 64, 199)}


def test_targets_are_the_patches_that_were_cut() -> None:
    pretext = tiny_pretext().eval()
    with torch.no_grad():
        result = pretext(mel())
    edges = box_edges(result.targets.boxes) * pretext.span_frames
    torch.testing.assert_close(edges, result.bounds.float(), atol=1e-3, rtol=0)
    assert result.output.logits.shape == (2, 6, 2)
    assert result.output.layer_features is not None
    assert result.output.layer_features.shape == (2, 2, 6, 512)
    with torch.no_grad():
        torch.testing.assert_close(result.targets.features, pretext.describe(mel()["mel"], result.bounds))


def test_patches_come_from_sound_not_from_padding() -> None:
    # The reference draws patches within the sound but cuts them from the padded clip, at other places.
    pretext = tiny_pretext().eval()
    padding = torch.zeros(2, 199, dtype=torch.bool)
    padding[1, 40:] = True
    with torch.no_grad():
        result = pretext(mel(), padding)
    assert result.bounds[1].max() <= 40
    assert (box_edges(result.targets.boxes[1]) <= 40 / 199 + 1e-6).all()


def test_a_patch_reaches_its_own_group_of_queries_only() -> None:
    pretext = tiny_pretext().eval()
    bounds = torch.tensor([[[0, 50], [60, 100], [120, 199]]])
    other = torch.tensor([[[20, 90], [60, 100], [120, 199]]])
    features = {"mel": mel()["mel"][:1]}
    with torch.no_grad():
        first, second = (pretext(features, bounds=b).output.boxes for b in (bounds, other))
    assert torch.equal(first[:, 2:], second[:, 2:])
    assert not torch.allclose(first[:, :2], second[:, :2])


def test_a_patch_is_found_by_its_own_queries_unless_published() -> None:
    with torch.no_grad():
        own, any_query = (tiny_pretext(match_own_group=own).eval()(mel()) for own in (True, False))
    assert any_query.targets.eligible is None
    assert own.targets.eligible is not None
    assert own.targets.eligible[1].int().tolist() == [[1, 0, 0]] * 2 + [[0, 1, 0]] * 2 + [[0, 0, 1]] * 2


def test_fewer_patches_than_trained_use_fewer_queries() -> None:
    pretext = tiny_pretext().eval()
    with torch.no_grad():
        result = pretext(mel(), bounds=torch.tensor([[[0, 50]], [[10, 30]]]))
    assert result.output.boxes.shape == (2, 2, 2)


def test_queries_are_doubled_only_where_the_published_weights_want_it() -> None:
    described = torch.zeros(1, 3, 512)
    for legacy, training, factor in ((False, True, 1), (True, True, 2), (True, False, 1)):
        pretext = tiny_pretext(legacy_double_query=legacy, patch_dropout=0.0).train(training)
        expected = factor * pretext.network.event_queries + pretext.patch_projection.bias
        torch.testing.assert_close(sum(pretext._queries(described))[0], expected)


def test_queries_lose_their_patch_in_training_at_the_stated_rate() -> None:
    pretext = tiny_pretext(patch_dropout=0.25).train()
    described = torch.randn(300, 3, 512)
    with torch.no_grad():
        lost = (pretext._queries(described)[1] == 0).all(dim=-1)
        assert float(lost.float().mean()) == pytest.approx(0.25, abs=0.05)
        pretext.eval()
        assert not (pretext._queries(described)[1] == 0).all(dim=-1).any()


def test_training_lowers_the_loss_and_leaves_the_backbone_alone() -> None:
    pretext, criterion = tiny_pretext().train(), SetCriterion()
    before = {name: value.clone() for name, value in pretext.network.backbone.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in pretext.parameters() if p.requires_grad], lr=2e-3)
    bounds = torch.tensor([[[0, 50], [60, 100], [120, 199]], [[10, 150], [0, 30], [90, 120]]])
    totals = []
    for _ in range(15):
        result = pretext(mel(), bounds=bounds)
        losses = criterion(result.output, result.targets)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        totals.append(float(losses.total.detach()))
    assert {name.partition("_")[0] for name in losses.parts} == {"class", "l1", "iou", "feature"}
    assert min(totals[-3:]) < 0.85 * totals[0]
    assert all(torch.equal(value, before[name]) for name, value in pretext.network.backbone.state_dict().items())


def test_the_network_carries_over_and_nothing_else() -> None:
    pretext, model = tiny_pretext(), tiny_sedt()
    for parameter in pretext.parameters():
        parameter.data.add_(0.1)
    heads = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("network.")}
    model.load_pretrained(pretrained_part(pretext))
    for name, value in pretext.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], value)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in heads.items())
    assert {"audio_query", "class_head.weight", "tag_head.weight"} <= heads.keys()
    state = pretrained_part(pretext)
    state.pop("network.event_queries")
    with pytest.raises(ValueError, match="event_queries"):
        model.load_pretrained(state)
    # Fine-tuning trains the backbone again.
    assert any(p.requires_grad for p in model.network.backbone.parameters())


def test_queries_must_be_divisible_among_the_patches() -> None:
    with pytest.raises(ValueError, match="6 queries cannot be shared by 4 patches"):
        tiny_pretext(patches=4)


def test_the_configuration_rebuilds_the_pretext() -> None:
    pretext = tiny_pretext(patch_dropout=0.2)
    rebuilt = from_config(to_config(pretext))
    assert (rebuilt.patch_dropout, rebuilt.sampler.patches, rebuilt.group) == (0.2, 3, 2)
    rebuilt.load_state_dict(pretext.state_dict())


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_a_tagger_learns_tags_and_hands_on_its_backbone(pooling: str) -> None:
    torch.manual_seed(0)
    model = tiny_sedt()
    backbone = SpectrogramResNet("resnet18", frozen_norm=False, frozen=())
    tagger = AudioTagger(model.frontend, backbone, LABELS, hidden=8, pooling=pooling)
    logits = tagger(mel(4))
    assert logits.shape == (4, 3)
    torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.ones(4, 3)).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    model.network.backbone.load_state_dict(tagger.backbone.state_dict())
    model.network.backbone.eval(), tagger.eval()
    with torch.no_grad():
        torch.testing.assert_close(model.network.backbone(mel()["mel"]), backbone(mel()["mel"]))
    with pytest.raises(ValueError, match="pooling"):
        AudioTagger(model.frontend, backbone, LABELS, pooling="sum")
