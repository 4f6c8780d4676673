"""Suggested passages are those a model is undecided about, each unlike the ones before, within the time asked."""

import itertools

import numpy as np
import pytest
import soundfile

from pmam_plugin.errors import InputError
from pmam_plugin.inference import SoundEventDetector
from pmam_plugin.inference.suggestion import Passage, _chosen, _entropy, suggest_passages
from pmam_plugin.postprocessing import PostProcessing, Scoring
from tests.tiny_models import tiny_detector

RATE = 16_000


@pytest.fixture
def detector():
    return SoundEventDetector(tiny_detector(), Scoring(PostProcessing(threshold=0.5)), device="cpu")


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    for number, seconds in enumerate((0.4, 2.0, 7.3)):
        soundfile.write(tmp_path / f"{number}.wav", random.normal(0, 0.1, round(seconds * RATE)), RATE)
    return sorted(tmp_path.glob("*.wav"))


@pytest.mark.parametrize("length", [0.6, 1.0])
def test_all_of_every_recording_is_looked_at_once(detector, files, length):
    everything = suggest_passages(detector, files, minutes=10, seconds=length, prototypes=4)
    for path, seconds in zip(files, (0.4, 2.0, 7.3), strict=True):
        spans = sorted((p.onset, p.offset) for p in everything if p.filename == str(path))
        assert spans[0][0] == 0
        assert spans[-1][1] == pytest.approx(seconds, abs=0.05)
        assert all(before[1] == pytest.approx(after[0]) for before, after in itertools.pairwise(spans))
        # None is a splinter that is not worth opening, but what a recording ends with.
        assert all(0.6 * length <= offset - onset <= 1.5 * length for onset, offset in spans[:-1])


def test_no_more_is_suggested_than_there_is_time_for(detector, files):
    chosen = suggest_passages(detector, files, minutes=0.05, seconds=1.0, prototypes=4)
    assert 3.0 <= sum(p.offset - p.onset for p in chosen) <= 4.0
    assert chosen == suggest_passages(detector, files, minutes=0.05, seconds=1.0, prototypes=4)


def test_a_score_at_its_threshold_is_the_most_uncertain():
    assert _entropy(np.array([0.2, 0.5]), np.array([0.2, 0.2])) == pytest.approx([1.0, 0.7219], abs=1e-3)
    assert _entropy(np.array([0.0, 1.0]), np.array([0.5, 0.5])) == pytest.approx([0.0, 0.0], abs=1e-4)


def test_what_sounds_like_a_chosen_passage_waits_for_what_does_not():
    passages = [Passage("a", start, start + 1.0, "Dog", doubt, 1.0) for start, doubt in ((0, 1.0), (1, 0.9), (2, 0.5))]
    profiles = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert [p.onset for p in _chosen(passages, profiles, 2.0)] == [0, 2]
    assert [p.novelty for p in _chosen(passages, profiles, 3.0)] == [1.0, 1.0, 0.0]


def test_nothing_to_choose_from_is_said(detector, files):
    with pytest.raises(InputError, match="no recordings to choose"):
        suggest_passages(detector, [])
    with pytest.raises(InputError, match="choose nothing"):
        suggest_passages(detector, files, minutes=0)
