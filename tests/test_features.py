"""Front ends agree with the reference systems and keep their promises about frames, clips and precision."""

import json
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file
from torch import nn

from pmam_plugin.config import from_config, to_config
from pmam_plugin.features import (
    ATSTMel,
    CRNNMel,
    FrontEnds,
    KaldiMel,
    LogMel,
    MobileNetMel,
    PaSSTMel,
    SEDTMel,
    YAMNetMel,
)
from pmam_plugin.features.banks import band_statistics, kaldi_filterbank
from tests.support import shared

ALL = [PaSSTMel, ATSTMel, CRNNMel, SEDTMel, LogMel, YAMNetMel, KaldiMel, MobileNetMel]


def reference(name):
    return load_file(shared(f"reference_outputs/{name}_components.safetensors"))


def noise(samples, batch=2, seed=0):
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


def largest_difference(first, second):
    assert first.shape == second.shape
    return float((first - second).abs().max())


def test_passt_mel_agrees_with_the_reference():
    tensors = reference("pmam")
    front_end = PaSSTMel().eval()
    assert largest_difference(front_end.filterbank, tensors["frontend.filterbank_eval"]) < 1e-4
    jittered = kaldi_filterbank(128, 1024, 32000, 7.0, 15321.0)
    assert largest_difference(jittered, tensors["frontend.filterbank_fmin7_fmax15321"]) < 1e-4
    mel, expected = front_end(tensors["frontend.waveform"]), tensors["frontend.mel"]
    # The logarithm of a nearly silent cell shows how a machine rounds sums: a few cells in 256 000 come near 1e-4.
    assert largest_difference(mel, expected) < 3e-4
    assert (mel - expected).abs().quantile(0.9999) < 1e-4


def test_atst_mel_agrees_with_the_reference():
    tensors = reference("atst_sed")
    front_end = ATSTMel()
    mel = front_end.power(tensors["frontend.wav"])
    assert torch.allclose(mel, tensors["frontend.atst_mel"], rtol=1e-4, atol=1e-4)
    assert largest_difference(front_end.scale(mel), tensors["frontend.atst_norm_each"]) < 1e-4


def test_crnn_mel_agrees_with_the_reference():
    tensors = reference("atst_sed")
    front_end = CRNNMel()
    mel = front_end.power(tensors["frontend.wav"])
    assert largest_difference(mel, tensors["frontend.crnn_mel"]) < 1e-4
    assert largest_difference(front_end.log(mel), tensors["frontend.crnn_log"]) < 1e-4
    assert largest_difference(front_end.scale(mel), tensors["frontend.crnn_scaled"]) < 1e-4


def test_sedt_mel_agrees_with_the_reference():
    tensors = reference("sedt")
    front_end = SEDTMel()
    mel = front_end.power(tensors["frontend.wave"][None])
    assert torch.allclose(mel[0].T, tensors["frontend.mel"], rtol=1e-4, atol=1e-4)
    assert largest_difference(front_end.log(mel)[0].T, tensors["frontend.log"]) < 1e-4


def test_kaldi_mel_is_beats_and_the_audio_spectrogram_transformers():
    tensors = reference("pretrained_sed")
    front_end = KaldiMel()
    assert largest_difference(front_end.window[56:456], tensors["frontend.beats.window"]) < 1e-6
    assert largest_difference(front_end.filterbank[:, :256], tensors["frontend.beats.filterbank"]) < 1e-4
    mel = front_end(tensors["frontend.waveform"])
    # Quiet bins show how a window and a bank were rounded.
    assert largest_difference(mel.transpose(1, 2), tensors["frontend.beats.fbank"]) < 2e-4
    assert largest_difference(front_end(torch.zeros(1, 16000)), torch.full((1, 128, 98), -2.3917)) < 1e-4
    other = KaldiMel(level=1.0, window="hanning", mean=-4.2677393, std=4.5689974)
    segment = tensors["frontend.waveform"][:, 32000:64000]
    # That model takes the mean off the whole clip first, which the frames' own mean undoes.
    assert largest_difference(other(segment), tensors["frontend.asit.fbank_2s"][0]) < 2e-4


def test_the_mels_of_pretrained_detectors_agree_with_the_reference():
    tensors = reference("pretrained_sed")
    segment = tensors["frontend.waveform"][:, 32000:64000]
    front_end = MobileNetMel().eval()
    assert largest_difference(front_end.filterbank, tensors["frontend.frame_mn.filterbank"]) < 1e-4
    # As for PaSST: single quiet cells show how the feet of the triangles were rounded.
    assert largest_difference(front_end(segment), tensors["mn.input"][0]) < 2e-4
    whole = front_end(tensors["frontend.waveform"])
    edges = torch.cat((whole[..., :20], whole[..., -20:]), dim=-1)
    assert largest_difference(edges, tensors["frontend.frame_mn.mel_edges"][0]) < 2e-4
    periodic = MobileNetMel(periodic=True).eval()
    assert largest_difference(periodic(segment), tensors["frontend.fpasst.mel_2s"][0]) < 2e-4
    assert largest_difference(ATSTMel(None)(segment), tensors["frontend.atst.mel_2s"][0]) < 1e-4


def test_without_peak_normalisation_passt_mel_is_that_of_hear21passt():
    preprocess = pytest.importorskip("hear21passt.models.preprocess")
    theirs = preprocess.AugmentMelSTFT(n_mels=128, sr=32000, win_length=800, hopsize=320, n_fft=1024).eval()
    waveform = noise(64000)
    ours = PaSSTMel(low_jitter=1, high_jitter=1000, peak_normalise=False).eval()
    ours.filterbank = kaldi_filterbank(128, 1024, 32000, theirs.fmin, theirs.fmax)
    with torch.no_grad():
        assert largest_difference(ours(waveform), theirs(waveform)) < 1e-3


@pytest.mark.parametrize(
    ("front_end", "seconds", "frames", "rate"),
    [
        (PaSSTMel(), 10, 1000, 100.0),
        (ATSTMel(), 10, 1001, 100.0),
        (CRNNMel(), 10, 626, 62.5),
        (SEDTMel(), 10, 496, 16000 / 323),
        (SEDTMel(44100, hop=882, window_samples=1764, n_fft=2048), 10, 500, 50.0),
        (LogMel(), 10, 1001, 100.0),
        (YAMNetMel(), 10, 1000, 100.0),
        (KaldiMel(), 10, 998, 100.0),
        (MobileNetMel(), 10, 1000, 100.0),
        (LogMel(8000, n_mels=40, hop_seconds=0.02), 10, 501, 50.0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_ten_seconds_give_the_published_number_of_frames(front_end, seconds, frames, rate):
    samples = seconds * front_end.sample_rate
    assert front_end.frames(samples) == frames
    assert front_end.frame_rate == rate
    features = front_end(noise(samples, batch=1))
    assert features.shape == (1, front_end.n_mels, frames)
    assert features.is_contiguous()


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(1, 5000))
@pytest.mark.parametrize("kind", ALL)
def test_clips_of_any_length_have_the_promised_frames_and_finite_values(kind, samples):
    front_end = kind()
    features = front_end(noise(samples))
    assert features.shape == (2, front_end.n_mels, front_end.frames(samples))
    assert features.isfinite().all()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("level", [0.0, 1e-8, 1.0, 30.0])
def test_silence_and_extreme_levels_give_finite_features(kind, level):
    assert kind()(level * noise(8000)).isfinite().all()


@pytest.mark.parametrize("kind", ALL)
def test_a_clip_does_not_depend_on_its_neighbours(kind):
    quiet, loud = noise(8000, batch=1), 300 * noise(8000, batch=1, seed=1)
    front_end = kind().eval()
    together = front_end(torch.cat([quiet, loud]))
    assert largest_difference(together[:1], front_end(quiet)) < 1e-5


@pytest.mark.parametrize("kind", [PaSSTMel, CRNNMel])
def test_normalisation_by_clip_makes_features_independent_of_the_level(kind):
    front_end = kind().eval()
    waveform = noise(32000)
    assert largest_difference(front_end(waveform), front_end(0.25 * waveform)) < 1e-3


@pytest.mark.parametrize("kind", ALL)
def test_features_stay_in_single_precision_under_autocast(kind):
    front_end = kind().eval()
    waveform = noise(8000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = front_end(waveform)
    assert features.dtype == torch.float32
    assert torch.equal(features, front_end(waveform))


@pytest.mark.parametrize("kind", ALL)
def test_power_then_scale_is_the_whole_front_end(kind):
    front_end = kind().eval()
    mel = front_end.power(noise(8000))
    before = mel.clone()
    assert (mel >= 0).all()
    assert torch.equal(front_end.scale(mel), front_end(noise(8000)))
    assert torch.equal(mel, before)  # the mixture still needs the linear mel


@pytest.mark.parametrize("kind", ALL)
def test_gradients_reach_the_waveform(kind):
    waveform = noise(8000).requires_grad_()
    kind()(waveform).sum().backward()
    assert waveform.grad.isfinite().all()
    assert waveform.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(8000,), (2, 0), (2, 1, 8000)])
def test_what_is_no_batch_of_waveforms_is_refused(shape):
    with pytest.raises(ValueError, match="batch, samples"):
        LogMel()(torch.zeros(shape))


def test_training_jitters_the_filterbank_once_per_batch_and_repeats_with_the_seed():
    front_end = PaSSTMel()
    waveform = noise(32000, batch=1).expand(2, -1)

    def draw(seed):
        torch.manual_seed(seed)
        return front_end(waveform)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(draw(1)[0], draw(1)[1])
    front_end.eval()
    assert torch.equal(draw(1), draw(2))


def test_the_upper_end_of_the_filterbank_is_drawn_around_fifteen_kilohertz():
    front_end = PaSSTMel()
    tops = set()
    for seed in range(60):
        torch.manual_seed(seed)
        weights = front_end._mel(torch.eye(513)[None])[0]
        tops.add(float(weights.sum(dim=0).nonzero().max()) * 32000 / 1024)
    assert 13950 < min(tops) < 14250
    assert 15750 < max(tops) <= 16000


def test_the_atst_floor_is_an_option():
    quiet = 1e-3 * noise(16000)
    with_floor, without = ATSTMel()(quiet), ATSTMel(floor_db=None)(quiet)
    floor = 2 * (-50 + 79.6482) / (50.6842 + 79.6482) - 1
    assert with_floor.min() >= floor - 1e-6
    assert without.min() < floor - 0.05
    assert torch.equal(with_floor, without.clamp_min(with_floor.min()))


def test_statistics_of_the_bands_are_those_of_all_frames():
    generator = torch.Generator().manual_seed(0)
    clips = [3 + 2 * torch.randn(4, 8, frames, generator=generator) for frames in (10, 20, 5)]
    mean, std = band_statistics(iter(clips))
    frames = torch.cat([clip.transpose(1, 2).reshape(-1, 8) for clip in clips])
    assert torch.allclose(mean, frames.mean(dim=0), atol=1e-5)
    assert torch.allclose(std, frames.std(dim=0, correction=0), atol=1e-5)
    with pytest.raises(ValueError, match="no frames"):
        band_statistics([])


def test_a_fitted_sedt_front_end_standardises_and_travels_with_its_state():
    waveforms = [noise(16000, seed=seed) for seed in range(3)]
    front_end = SEDTMel().fit(waveforms)
    mean, std = band_statistics(front_end(waveform) for waveform in waveforms)
    assert mean.abs().max() < 1e-4
    assert (std - 1).abs().max() < 1e-4
    other = SEDTMel()
    other.load_state_dict(front_end.state_dict())
    assert torch.equal(other(waveforms[0]), front_end(waveforms[0]))


def test_a_constant_band_is_not_divided_by_zero():
    assert SEDTMel().fit([torch.zeros(1, 16000)])(torch.zeros(1, 16000)).isfinite().all()


def test_only_measured_statistics_are_part_of_the_state():
    assert [list(kind().state_dict()) for kind in ALL] == [[], [], [], ["mean", "std"], [], [], [], []]


def test_named_front_ends_share_the_waveform():
    front_ends = FrontEnds(atst=ATSTMel(), crnn=CRNNMel())
    waveform = noise(16000)
    features = front_ends(waveform)
    assert {name: value.shape for name, value in features.items()} == {"atst": (2, 64, 101), "crnn": (2, 128, 63)}
    assert front_ends.sample_rate == 16000
    assert front_ends.frame_rates == {"atst": 100.0, "crnn": 62.5}
    assert front_ends.frames(16000) == {"atst": 101, "crnn": 63}
    split = front_ends.scale(front_ends.power(waveform))
    assert all(torch.equal(features[name], split[name]) for name in features)


def test_front_ends_of_different_rates_or_none_at_all_are_refused():
    with pytest.raises(ValueError, match="one sample rate"):
        FrontEnds(mel=PaSSTMel(), crnn=CRNNMel())
    with pytest.raises(ValueError, match="one sample rate"):
        FrontEnds()


@pytest.mark.parametrize("kind", ALL)
def test_a_configuration_rebuilds_the_front_end(kind):
    front_ends = FrontEnds(mel=kind()).eval()
    rebuilt = from_config(json.loads(json.dumps(to_config(front_ends)))).eval()
    waveform = noise(8000)
    assert torch.equal(rebuilt(waveform)["mel"], front_ends(waveform)["mel"])


def test_kaldi_triangles_rise_to_one_and_overlap_their_neighbours_only():
    bank = kaldi_filterbank(32, 8192, 32000, 0.0, 15000.0)
    assert bank.shape == (32, 4097)
    assert ((bank >= 0) & (bank <= 1)).all()
    inside = bank[:, 60 : int(12000 / 32000 * 8192)].sum(dim=0)
    assert torch.allclose(inside, torch.ones_like(inside), atol=1e-4)  # two halves of neighbouring triangles
    assert bank.amax(dim=1).min() > 0.9
    centre = 1127 * math.log1p(15000 / 700) * 16 / 33
    peak = bank[15].argmax() * 32000 / 8192
    assert abs(1127 * math.log1p(peak / 700) - centre) < 5
