"""Shifts move sound and labels together."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file

from pmam_plugin.augment import FrameShift, roll_frames
from pmam_plugin.features import ATSTMel, CRNNMel, LogMel, PaSSTMel
from tests.support import shared


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_the_shifts_of_the_reference_are_reproduced():
    tensors = load_file(shared("reference_outputs/pmam_components.safetensors"))
    shifted = roll_frames(tensors["frontend.mel"], torch.tensor([-84, 20]))
    assert torch.equal(shifted, tensors["augment.frame_shift.mel"])


shifts = st.lists(st.integers(-30, 30), min_size=3, max_size=3).map(torch.tensor)


@given(first=shifts, second=shifts, dim=st.sampled_from([1, -1]))
def test_shifting_twice_is_shifting_by_the_sum(first, second, dim):
    values = torch.rand(3, 7, 11, generator=generator(0))
    twice = roll_frames(roll_frames(values, first, dim), second, dim)
    assert torch.equal(twice, roll_frames(values, first + second, dim))


@given(shift=shifts)
def test_rolling_is_that_of_torch_clip_by_clip(shift):
    values = torch.rand(3, 7, 11, generator=generator(0))
    for dim in (1, 2):
        expected = torch.stack([clip.roll(int(step), dim - 1) for clip, step in zip(values, shift)])
        assert torch.equal(roll_frames(values, shift, dim), expected)


@pytest.mark.parametrize(
    "front_end", [PaSSTMel().eval(), ATSTMel(), CRNNMel(), LogMel()], ids=lambda f: type(f).__name__
)
@pytest.mark.parametrize("frames", [7, -12])
def test_shifting_the_features_is_shifting_the_waveform(front_end, frames):
    waveform = 0.1 * torch.randn(2, front_end.sample_rate * 2, generator=generator(0))
    moved_sound = front_end(waveform.roll(frames * front_end.hop, dims=1))
    moved_features = roll_frames(front_end(waveform), torch.tensor([frames, frames]))
    # Neither what wrapped round nor what the reflection at the ends reaches: there the sound itself differs.
    edge = 1 + front_end.n_fft // (2 * front_end.hop)
    inside = slice(max(0, frames) + edge, min(0, frames) - edge)
    difference = (moved_sound - moved_features)[..., inside].abs()
    assert difference.shape[-1] > 60
    assert difference.max() < 5e-3


def events_at(seconds, clip_seconds, frames):
    """An array whose frames tell the time of day: one class, one event of one second."""
    middles = (torch.arange(frames) + 0.5) * clip_seconds / frames
    return ((middles >= seconds) & (middles < seconds + 1.0)).float()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_streams_and_labels_of_different_rates_move_by_the_same_time(seed):
    onsets = torch.tensor([0.52, 3.0, 6.4, 8.92])
    rows = {rate: torch.stack([events_at(onset, 10.0, 10 * rate) for onset in onsets]) for rate in (100, 25, 50)}
    features = {"fine": rows[100][:, None].repeat(1, 2, 1), "middle": rows[50][:, None]}
    targets = {"strong": rows[25][:, :, None], "weak": torch.rand(4, 1), "padding": rows[25] > 0}
    moved, labels = FrameShift(std_seconds=2.0)(features, targets, generator(seed))
    expected = labels["strong"][:, :, 0]
    assert torch.equal(moved["fine"][:, 0].view(4, 250, 4).mean(dim=2), expected)
    assert torch.equal(moved["middle"][:, 0].view(4, 250, 2).mean(dim=2), expected)
    assert torch.equal(labels["padding"], expected > 0)
    assert torch.equal(labels["weak"], targets["weak"])


def test_the_grids_of_atst_sed_stay_together():
    rates = {"atst": 100.0, "crnn": 62.5, "strong": 15.625}
    features = {"atst": torch.zeros(64, 1, 1001), "crnn": torch.zeros(64, 1, 626)}
    features["atst"][:, :, 500], features["crnn"][:, :, 312] = 1.0, 1.0
    targets = {"strong": torch.zeros(64, 156, 1)}
    targets["strong"][:, 78] = 1.0
    moved, labels = FrameShift(frame_rates=rates)(features, targets, generator(0))
    seconds = (labels["strong"][:, :, 0].argmax(dim=1) - 78) / 15.625
    assert ((moved["atst"][:, 0].argmax(dim=1) - 500) / 100 - seconds).abs().max() <= 0.005 + 1e-6
    assert ((moved["crnn"][:, 0].argmax(dim=1) - 312) / 62.5 - seconds).abs().max() < 1e-6
    assert seconds.abs().max() > 1.0


def test_the_shift_is_a_normal_draw_rounded_towards_zero():
    features = {"mel": torch.zeros(4000, 1, 1000)}
    features["mel"][:, :, 500] = 1.0
    moved, _ = FrameShift()(features, {}, generator(0))
    steps = moved["mel"][:, 0].argmax(dim=1) - 500
    expected = (torch.randn(4000, generator=generator(0)).double() * 90).trunc()
    assert torch.equal(steps.double(), expected)


def test_no_deviation_is_no_shift():
    features = {"mel": torch.rand(3, 4, 20)}
    moved, _ = FrameShift(std_seconds=0.0)(features, {"strong": torch.rand(3, 5, 2)})
    assert torch.equal(moved["mel"], features["mel"])


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_without_wrapping_no_event_comes_back_at_the_other_end(seed):
    onsets = torch.tensor([0.52, 3.0, 6.4, 8.92])
    rows = {rate: torch.stack([events_at(onset, 10.0, 10 * rate) for onset in onsets]) for rate in (100, 25)}
    features, targets = {"mel": 1 + rows[100][:, None]}, {"strong": rows[25][:, :, None], "weak": torch.rand(4, 1)}
    targets["padding"] = torch.zeros(4, 250, dtype=torch.bool)
    moved, labels = FrameShift(std_seconds=2.0, wrap=False)(features, targets, generator(seed))
    sound, strong = moved["mel"][:, 0].view(4, 250, 4), labels["strong"][:, :, 0]
    assert torch.equal((sound == 2).all(dim=2), strong == 1)
    assert torch.equal((sound == 0).all(dim=2), labels["padding"]), "what opens is silent, and known to be nothing"
    assert (strong.diff(dim=1, prepend=torch.zeros(4, 1)) == 1).sum(dim=1).max() <= 1, "no event in two pieces"


@pytest.mark.parametrize(
    "make",
    [
        lambda: FrameShift(std_seconds=-1),
        lambda: FrameShift(clip_seconds=0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError, match="must"):
        make()
