import numpy as np
import pandas as pd
import pytest
import torch

from pmam_plugin.errors import InputError
from pmam_plugin.inference import SoundEventDetector
from pmam_plugin.postprocessing import PostProcessing, Scoring, SoundEventBoxes
from tests.inference.test_detector import RATE, balanced, noise, values
from tests.tiny_models import LABELS, tiny_detector


@pytest.fixture(scope="module")
def detector() -> SoundEventDetector:
    return balanced(weak_mask="soft", median_seconds=0.2)


def run(stream, wave: np.ndarray, piece: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    parts = [stream.feed(wave[start : start + piece]) for start in range(0, len(wave), piece)]
    parts.append(stream.finish())
    tables = [part.scores for part in parts if len(part.scores)]
    events = [part.events for part in parts if len(part.events)]
    return pd.concat(tables, ignore_index=True), pd.concat(events, ignore_index=True)


@pytest.mark.parametrize("seconds", [0.3, 1.7, 2.0, 2.01, 9.3])
@pytest.mark.parametrize("piece", [160, 7_001])
def test_at_full_latency_a_stream_scores_like_the_whole_file(detector, seconds, piece):
    wave = noise(seconds)
    scores, events = run(detector.stream(), wave, piece)
    whole = detector.scores(wave, RATE)
    np.testing.assert_allclose(values(scores), values(whole), atol=1e-6)
    np.testing.assert_allclose(scores.offset, whole.offset, atol=1e-9)
    expected = detector.detect(wave, RATE).sort_values(["event_label", "onset"])
    found = events.sort_values(["event_label", "onset"])
    assert found.event_label.tolist() == expected.event_label.tolist()
    np.testing.assert_allclose(found[["onset", "offset", "score"]], expected[["onset", "offset", "score"]], atol=1e-5)


@pytest.mark.parametrize("latency", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("filtering", [0.0, 0.2])
def test_scores_are_out_within_the_stated_latency(latency, filtering):
    detector = SoundEventDetector(tiny_detector(), Scoring(PostProcessing(median_seconds=filtering)), device="cpu")
    stream = detector.stream(latency=latency)
    assert stream.latency <= latency + filtering / 2 + 4 / 25
    wave, out = noise(6.0), 0.0
    for start in range(0, len(wave), 320):
        part = stream.feed(wave[start : start + 320])
        out = part.scores.offset.iloc[-1] if len(part.scores) else out
        assert (start + 320) / RATE - out <= stream.latency + 0.02


@pytest.mark.parametrize("latency", [0.1, 0.5, 1.3])
def test_a_fast_stream_gives_every_row_once_and_in_order(detector, latency):
    wave = noise(5.1)
    scores, events = run(detector.stream(latency=latency), wave, 1_000)
    np.testing.assert_allclose(scores.onset, np.arange(len(scores)) / 25)
    assert scores.offset.iloc[-1] == pytest.approx(5.1)
    assert len(scores) == np.ceil(5.1 * 25)
    assert (events.offset > events.onset).all()
    for label in LABELS:
        mine = events[events.event_label == label].sort_values("onset")
        assert (mine.onset.to_numpy()[1:] >= mine.offset.to_numpy()[:-1]).all()


def test_a_fast_stream_of_a_short_sighted_model_agrees_with_the_file():
    detector = SoundEventDetector(tiny_detector(recurrent=False), device="cpu")
    wave = noise(6.0)
    scores, _ = run(detector.stream(latency=0.6), wave, 800)
    # The triangle gives the frames at a window's end, which look into nothing, little weight.
    assert np.abs(values(scores) - values(detector.scores(wave, RATE))).mean() < 0.01


def test_events_are_what_the_streamed_scores_say(detector):
    scores, events = run(detector.stream(latency=0.5), noise(6.0), 1_600)
    expected = detector.postprocessing.events(scores, "stream").sort_values(["event_label", "onset"])
    found = events.sort_values(["event_label", "onset"])
    np.testing.assert_allclose(found[["onset", "offset", "score"]], expected[["onset", "offset", "score"]], atol=1e-9)


def test_other_rates_channels_and_tensors_can_be_fed(detector):
    samples = np.stack([noise(4.0, seed, 44_100) for seed in range(2)], axis=1)
    stream = detector.stream(sample_rate=44_100)
    scores, _ = run(stream, torch.from_numpy(samples), 5_000)
    np.testing.assert_allclose(values(scores), values(detector.scores(samples, 44_100)), atol=1e-5)


@pytest.mark.parametrize("first", [False, True])
def test_channels_stay_on_the_axis_they_were_on(detector, first):
    samples = np.stack([noise(2.0, seed) for seed in range(2)], axis=1)[:-15_999]  # the last piece: one moment
    stream = detector.stream()
    parts = [samples[start : start + 8_000] for start in range(0, len(samples), 8_000)]
    assert parts[-1].shape == (1, 2)
    for part in parts:
        stream.feed(part.T if first else part)
    np.testing.assert_allclose(values(stream.finish().scores), values(detector.scores(samples, RATE)), atol=1e-6)


def test_integer_samples_are_scaled_as_in_files(detector):
    wave = np.clip(noise(2.0), -0.9, 0.9)
    scores, _ = run(detector.stream(), (wave * 2**15).astype(np.int16), 4_000)
    np.testing.assert_allclose(values(scores), values(detector.scores(wave, RATE)), atol=5e-3)


def test_bounding_boxes_can_be_streamed():
    rule = PostProcessing(segments=SoundEventBoxes(), threshold=0.3)
    detector = SoundEventDetector(tiny_detector(), Scoring(rule), device="cpu")
    scores, events = run(detector.stream(latency=1.0), noise(8.0), 3_200)
    assert len(scores) == 200
    assert len(events)


def test_silence_in_the_stream_is_no_trouble(detector):
    stream = detector.stream()
    assert len(stream.finish().scores) == 0
    scores, _ = run(detector.stream(latency=0.5), np.zeros(3 * RATE, dtype=np.float32), 1_000)
    assert np.isfinite(values(scores)).all()


def test_a_stream_refuses_what_it_cannot_do(detector):
    for latency in (0.0, -1.0, 2.5):
        with pytest.raises(InputError, match="latency"):
            detector.stream(latency=latency)
    with pytest.raises(InputError, match="NaN"):
        detector.stream().feed(np.array([0.0, np.nan], dtype=np.float32))
    with pytest.raises(InputError, match="sample rates must be positive"):
        detector.stream(sample_rate=0)
    stream = detector.stream()
    stream.finish()
    for use in (stream.finish, lambda: stream.feed(noise(1.0))):
        with pytest.raises(RuntimeError, match="has been finished; open another"):
            use()


def test_memory_of_a_stream_does_not_grow(detector):
    stream = detector.stream(latency=0.5)
    sizes = []
    for seed in range(40):
        stream.feed(noise(1.0, seed))
        sizes.append((len(stream._cutter._buffer), len(stream._scores._kept), len(stream._joiner._weight)))
    assert max(sizes[20:]) <= max(sizes[5:20])
