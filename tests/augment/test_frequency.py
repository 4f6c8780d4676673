"""Augmentations along frequency agree with the reference and with torch, and touch nothing else."""

import json
import math

import pytest
import torch
from hypothesis import given, strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional

from pmam_plugin.augment import (
    Compose,
    FilterAugment,
    FrequencyDistortion,
    FrequencyMask,
    FrequencyShift,
    FrequencyWarp,
    distort_frequency,
    filter_augment_gain,
    shift_frequency,
    warp_frequency,
)
from pmam_plugin.augment.frequency import PASST_UNITS_PER_DECIBEL
from pmam_plugin.features import ATSTMel, LogMel, PaSSTMel
from tests.support import shared

REFERENCE = "reference_outputs/pmam_components.safetensors"
ALL = [
    FilterAugment(),
    FrequencyDistortion(),
    FrequencyWarp(probability=1.0),
    FrequencyWarp(probability=1.0, draw_per="batch"),
    FrequencyMask(probability=1.0),
    FrequencyShift(probability=1.0),
]


def generator(seed):
    return torch.Generator().manual_seed(seed)


def mel(batch=4, bins=32, frames=20, seed=0):
    return torch.rand(batch, bins, frames, generator=generator(seed))


def test_frequency_distortion_agrees_with_the_reference():
    tensors = load_file(shared(REFERENCE))
    with safe_open(shared(REFERENCE), "pt") as file:
        draw = json.loads(file.metadata()["frequency_distortion"])
    expected = tensors["augment.frequency_distortion"]
    bent = distort_frequency(tensors["frontend.mel"][: len(expected)], draw["bias"], draw["phase"])
    assert (bent - expected).abs().max() < 1e-4


def test_filter_augment_agrees_with_the_reference():
    tensors = load_file(shared(REFERENCE))
    nominal = 20 * ((5 * tensors["augment.filter_gain"].double()).exp() - 1e-5).log10()
    borders = (nominal.diff(dim=1).abs() > 0.01).any(dim=0).nonzero()[:, 0] + 1
    bands = nominal[:, torch.cat([torch.zeros(1, dtype=torch.long), borders])]
    # The reference filters with half the stated decibels.
    rise = 0.5 * PASST_UNITS_PER_DECIBEL * filter_augment_gain(borders, bands, 128)
    filtered = tensors["frontend.mel"] + rise[:, :, None]
    assert (filtered - tensors["augment.filter_augment"]).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("front_end", "units"),
    [
        (PaSSTMel(peak_normalise=False).eval(), PASST_UNITS_PER_DECIBEL),
        (LogMel(), PASST_UNITS_PER_DECIBEL),
        (ATSTMel(floor_db=None), 2 / (50.6842 + 79.6482)),
    ],
    ids=["PaSSTMel", "LogMel", "ATSTMel"],
)
def test_a_decibel_of_the_sound_is_the_stated_rise_of_the_features(front_end, units):
    waveform = torch.randn(1, front_end.sample_rate, generator=generator(0))
    louder = front_end(waveform * 10 ** (6 / 20)) - front_end(waveform)
    assert float(louder.median()) == pytest.approx(6 * units, rel=1e-3)


def test_gains_cover_the_bins_of_their_band():
    gain = filter_augment_gain(torch.tensor([2, 5]), torch.tensor([[1.0, 2.0, 3.0]]), 8)
    assert gain.tolist() == [[1, 1, 2, 2, 2, 3, 3, 3]]


@given(seed=st.integers(0, 2**31))
def test_a_filter_is_steps_of_bounded_gain_and_width_common_to_the_batch(seed):
    augmentation = FilterAugment(decibels=26.0, bands=(2, 4), minimum_bins=4)
    features, _ = augmentation({"mel": torch.zeros(3, 32, 5)}, {}, generator(seed))
    gain = features["mel"]
    assert torch.equal(gain, gain[:, :, :1].expand_as(gain))
    decibels = gain[:, :, 0] / PASST_UNITS_PER_DECIBEL
    assert decibels.abs().max() <= 26 + 1e-3
    borders = (decibels.diff(dim=1).abs() > 0).any(dim=0).nonzero()[:, 0] + 1
    assert 1 <= len(borders) <= 3
    widths = torch.cat([torch.tensor([0]), borders, torch.tensor([32])]).diff()
    assert widths.min() >= 4


def test_too_many_bands_for_the_bins_are_refused():
    with pytest.raises(ValueError, match="no room"):
        FilterAugment(bands=(3, 3), minimum_bins=4).apply(mel(bins=8), None)


@given(phase=st.floats(0, 1), amplitude=st.floats(0, 0.15))
def test_bending_keeps_the_range_of_the_values_and_no_amplitude_changes_nothing(phase, amplitude):
    values = mel()
    bent = distort_frequency(values, amplitude, phase)
    assert bent.min() >= values.min() - 1e-6
    assert bent.max() <= values.max() + 1e-6
    assert torch.allclose(distort_frequency(values, 0.0, phase), values, atol=1e-6)


@given(start=st.integers(0, 12), height=st.integers(2, 20))
def test_warping_is_the_bicubic_resize_of_torch(start, height):
    values = mel()
    expected = functional.interpolate(
        values[:, None, start : start + height], size=(32, 20), mode="bicubic", align_corners=True
    )[:, 0]
    warped = warp_frequency(values, torch.tensor([start]), torch.tensor([height]))
    assert (warped - expected).abs().max() < 1e-4


def test_every_clip_is_warped_by_its_own_range():
    values = mel()
    starts, heights = torch.tensor([0, 3, 12, 7]), torch.tensor([32, 20, 20, 25])
    warped = warp_frequency(values, starts, heights)
    assert torch.allclose(warped[0], values[0], atol=1e-6)
    for clip in range(4):
        alone = warp_frequency(values[clip : clip + 1], starts[clip : clip + 1], heights[clip : clip + 1])
        assert torch.allclose(warped[clip : clip + 1], alone, atol=1e-6)


def test_a_warp_for_the_batch_is_one_for_all_and_one_per_clip_is_not():
    values = mel(batch=1).repeat(6, 1, 1)
    once = FrequencyWarp(probability=1.0, draw_per="batch").apply(values, generator(0))
    assert torch.equal(once, once[:1].expand_as(once))
    each = FrequencyWarp(probability=1.0).apply(values, generator(0))
    assert not torch.allclose(each[0], each[1])


def test_a_warp_for_the_batch_takes_all_clips_or_none():
    counts = set()
    for seed in range(30):
        features, _ = FrequencyWarp(draw_per="batch")({"mel": mel()}, {}, generator(seed))
        counts.add(int((features["mel"] != mel()).flatten(1).any(dim=1).sum()))
    assert counts == {0, 4}


@given(seed=st.integers(0, 2**31))
def test_a_frequency_mask_holds_the_mean_of_what_it_hides(seed):
    values = mel()
    masked = FrequencyMask(0.1, 0.4, probability=1.0).apply(values, generator(seed))
    assert torch.allclose(masked.mean(dim=(1, 2)), values.mean(dim=(1, 2)), atol=1e-5)
    hidden = (masked != values).all(dim=2)
    assert (hidden.sum(dim=1) <= 0.4 * 32).all()
    assert (hidden.sum(dim=1) >= 3).all()
    for clip in range(4):
        assert masked[clip, hidden[clip]].std() < 1e-6


@given(shift=st.lists(st.integers(-4, 4), min_size=4, max_size=4).map(torch.tensor))
def test_a_frequency_shift_moves_bands_and_fills_the_gap(shift):
    values = mel()
    moved = shift_frequency(values, shift, fill=-7.0)
    for clip, step in enumerate(shift.tolist()):
        expected = torch.full_like(values[clip], -7.0)
        kept = 32 - abs(step)
        expected[max(0, step) : max(0, step) + kept] = values[clip, max(0, -step) : max(0, -step) + kept]
        assert torch.equal(moved[clip], expected)


def test_shifts_follow_the_truncated_normal_law():
    values = torch.zeros(5000, 32, 1)
    values[:, 16] = 1.0
    moved = FrequencyShift(2.0, 4, probability=1.0).apply(values, generator(0))
    steps = moved[:, :, 0].argmax(dim=1) - 16
    drawn = torch.randn(200000, generator=generator(1)).mul(2.0).trunc()
    expected = drawn[drawn.abs() <= 4]
    for step in range(-4, 5):
        share = float((expected == step).float().mean())
        assert float((steps == step).float().mean()) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("augmentation", ALL, ids=lambda value: type(value).__name__)
def test_targets_shapes_inputs_and_other_streams_are_left_alone(augmentation):
    augmentation.streams = ("atst",)
    try:
        features, targets = {"atst": mel(), "crnn": mel(bins=40)}, {"strong": torch.rand(4, 5, 2)}
        before = features["atst"].clone()
        changed, labels = augmentation(features, targets, generator(0))
        assert labels is targets
        assert changed["crnn"] is features["crnn"]
        assert torch.equal(features["atst"], before)
        assert changed["atst"].shape == before.shape
        assert changed["atst"].isfinite().all()
        assert not torch.equal(changed["atst"], before)
        with pytest.raises(ValueError, match="atst"):
            augmentation({"mel": mel()}, {})
    finally:
        augmentation.streams = None


@pytest.mark.parametrize("augmentation", ALL, ids=lambda value: type(value).__name__)
def test_the_seed_decides(augmentation):
    def draw(seed):
        torch.manual_seed(seed)
        return augmentation({"mel": mel()}, {})[0]["mel"]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(draw(1), augmentation({"mel": mel()}, {}, generator(1))[0]["mel"])


def test_each_clip_is_changed_with_the_stated_probability():
    values = mel(batch=400, bins=16, frames=3)
    features, _ = FilterAugment(probability=0.3, bands=(2, 3))({"mel": values}, {}, generator(0))
    changed = (features["mel"] != values).flatten(1).any(dim=1)
    assert 80 < int(changed.sum()) < 160
    untouched, _ = FilterAugment(probability=0.0)({"mel": values}, {})
    assert untouched["mel"] is values


def test_compose_applies_in_order():
    features = {"mel": mel()}
    both = Compose([FilterAugment(), FrequencyDistortion()])(features, {}, generator(0))[0]["mel"]
    shared_generator = generator(0)
    first, _ = FilterAugment()(features, {}, shared_generator)
    second, _ = FrequencyDistortion()(first, {}, shared_generator)
    assert torch.equal(both, second["mel"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: FilterAugment(bands=(4, 2)),
        lambda: FilterAugment(probability=2.0),
        lambda: FrequencyDistortion(maximum=1 / (2 * math.pi)),
        lambda: FrequencyWarp(minimum=1.2),
        lambda: FrequencyWarp(draw_per="group"),
        lambda: FrequencyMask(0.5, 0.3),
        lambda: FrequencyShift(std_bands=0.0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError, match=r"must|lies in|draw_per"):
        make()
