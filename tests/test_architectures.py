"""Inference over every architecture: 0.3 s, a clip, long recordings, streams."""

import numpy as np
import pytest
import torch

from pmam_plugin.inference import Scorer, SoundEventDetector
from pmam_plugin.models.base import frame_rows
from pmam_plugin.postprocessing import PostProcessing, Scoring
from tests.sedt_models import tiny_sedt
from tests.upstream.models import (
    atst_detector,
    beats_detector,
    ctrans_detector,
    dual_detector,
    frame_mn_detector,
    noise,
    patch_detector,
    recurrent_detector,
)

ARCHITECTURES = {
    "small PMAM": lambda: patch_detector(2.0),
    "PMAM": lambda: dual_detector(2.0),
    "CRNN": recurrent_detector,
    "ATST-SED": atst_detector,
    "CTrans": ctrans_detector,
    "BEATs": beats_detector,
    "frame-MobileNet": frame_mn_detector,
    "SEDT": lambda: tiny_sedt().eval(),
}


@pytest.fixture(params=ARCHITECTURES)
def detector(request):
    model = ARCHITECTURES[request.param]()
    return SoundEventDetector(model, Scoring(PostProcessing(weak_mask="soft", median_seconds=0.2)), device="cpu")


def values(detector, table):
    return table[list(detector.labels)].to_numpy()


@pytest.mark.parametrize("seconds", [0.3, 0.05, 0.001])
def test_a_fraction_of_a_second_is_scored(detector, seconds):
    wave = noise(seconds, sample_rate=detector.sample_rate)
    table = detector.scores(wave, detector.sample_rate)
    assert len(table) >= 1
    assert table.onset.iloc[0] == 0
    assert table.offset.iloc[-1] == pytest.approx(len(wave) / detector.sample_rate)
    found = values(detector, table)
    assert ((found >= 0) & (found <= 1) | (found == -np.inf)).all()
    events = detector.detect(wave, detector.sample_rate, threshold=0.0)
    assert (events.offset <= seconds + 1e-3).all()


def test_what_else_is_in_a_batch_changes_nothing(detector):
    """Validation and evaluation score many clips of many lengths at once, a user one: all get the same scores."""
    clip = detector.model.clip_seconds
    waves = [noise(seconds, sample_rate=detector.sample_rate) for seconds in (0.3, clip, 0.6 * clip, 3.3 * clip)]
    together = Scorer(detector.model, detector.scoring, batch_size=16).waves(waves)
    for wave, scored in zip(waves, together, strict=True):
        [alone] = Scorer(detector.model, detector.scoring, batch_size=1).waves([wave])
        assert np.allclose(values(detector, scored.table), values(detector, alone.table), atol=1e-5)
        assert np.allclose(scored.clips, alone.clips, atol=1e-5)
        heard = detector.scores(wave, detector.sample_rate)
        evaluated = detector.postprocessing.filtered(scored.table)
        assert np.allclose(values(detector, heard), values(detector, evaluated), atol=1e-5)
        stream = detector.stream()
        parts = [stream.feed(wave.numpy()).scores, stream.finish().scores]
        rows = frame_rows(scored.frames, len(wave) / detector.sample_rate, detector.frame_rate, detector.labels)
        expected = values(detector, detector.postprocessing.filtered(rows.table()))
        assert np.allclose(np.concatenate([values(detector, part) for part in parts]), expected, atol=1e-5)


def test_a_long_recording_moved_by_half_a_window_scores_the_same(detector):
    """Windows overlap by half: other windows hear the same again. The ends, which are cut elsewhere, are left out."""
    difference = moved_difference(detector, detector.grid().hop)
    assert difference.max() < 1e-4


def test_a_long_recording_cut_elsewhere_scores_alike(detector):
    """Moved by a quarter, every window has other content; by how much trained models differ is in long_audio."""
    difference = moved_difference(detector, detector.grid().hop // 2)
    assert difference.mean() < 0.05


def moved_difference(detector, frames):
    """Differences of scores between a recording and the same without its first ``frames``, but for both ends."""
    rate, grid = detector.sample_rate, detector.grid()
    wave = noise(3.2 * detector.model.clip_seconds, sample_rate=rate)
    whole = detector.scores(wave, rate)
    assert len(whole) == np.ceil(len(wave) / rate * detector.frame_rate - 1e-6)
    moved = values(detector, detector.scores(wave[grid.sample_of(frames) :], rate))
    length = min(len(whole) - frames, len(moved))
    difference = np.abs(values(detector, whole)[frames : frames + length] - moved[:length])
    assert np.isfinite(difference).all()
    margin = grid.hop + round(0.2 * detector.frame_rate) + 1  # the median filter looks over the border
    return difference[margin : -margin - grid.hop]


def test_a_stream_ends_with_as_many_scores_as_the_file_has(detector):
    wave = noise(1.3 * detector.model.clip_seconds, sample_rate=detector.sample_rate)
    stream = detector.stream(latency=detector.model.clip_seconds / 2)
    parts = [stream.feed(piece.numpy()).scores for piece in torch.split(wave, detector.sample_rate)]
    parts.append(stream.finish().scores)
    rows = np.concatenate([values(detector, part) for part in parts])
    assert len(rows) == len(detector.scores(wave, detector.sample_rate))
    assert ((rows >= 0) & (rows <= 1)).all()
