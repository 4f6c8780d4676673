import itertools

import numpy as np
import pytest

from benchmarks import corpus_probe
from pmam_plugin.data import class_list, prepare
from pmam_plugin.demo.sounds import SOUNDS
from pmam_plugin.demo.soundscapes import Counts, _add, _audible, build_corpus, soundscape
from pmam_plugin.errors import InputError

TINY = Counts(strong=3, weak=2, unlabelled=2, selection=1, validation=2)


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_labels_lie_within_the_clip_and_events_of_a_class_do_not_touch():
    heard, empty = set(), 0
    for seed in range(60):
        wave, events = soundscape(np.random.default_rng(seed), 4.0)
        assert wave.shape == (64000,)
        assert np.isfinite(wave).all()
        assert 0.001 < np.abs(wave).max() <= 0.9001
        assert all(0 <= event.onset < event.offset <= 4.0 for event in events)
        assert len({event.label for event in events}) <= 3
        for one, two in itertools.combinations(events, 2):
            assert one.label != two.label or one.offset + 0.2 < two.onset
        heard |= {event.label for event in events}
        empty += not events
    assert heard == set(SOUNDS)
    assert 0 < empty < 10


def test_an_event_covers_exactly_what_was_added_for_it():
    rng = np.random.default_rng(0)
    for _ in range(30):
        silence = np.zeros(16000, np.float32)
        event = rng.uniform(0.5, 1, int(rng.integers(2000, 20000))).astype(np.float32)
        onset, offset = _add(rng, silence, event, 16000, [])
        touched = np.flatnonzero(silence)
        assert touched[0] == round(onset * 16000)
        assert touched[-1] + 1 == round(offset * 16000)


def test_events_stand_3_db_below_to_15_db_above_the_background():
    rng, ratios = np.random.default_rng(0), []
    for _ in range(200):
        silence = np.zeros(16000, np.float32)
        onset, offset = _add(rng, silence, np.ones(8000, np.float32), 16000, [])
        part = silence[round(onset * 16000) : round(offset * 16000)]
        ratios.append(20 * np.log10(np.sqrt(np.mean(part**2))))
    assert -3.01 < min(ratios) < -2
    assert 14 < max(ratios) < 15.01


def test_inaudible_ends_belong_to_no_event():
    wave = np.concatenate([np.full(1600, 1e-3), np.ones(3200), np.full(4800, 1e-3)]).astype(np.float32)
    heard = _audible(wave, 16000)
    assert len(heard) == 3200


def test_a_corpus_is_written_in_the_layout_that_is_prepared(tmp_path):
    calls = []
    done = build_corpus(tmp_path / "c", TINY, seed=1, seconds=2.0, progress=lambda *state: calls.append(state))
    assert done == {"written": 10, "kept": 0}
    assert calls[-1] == ("soundscapes", 10, 10)
    data = prepare(tmp_path / "c", tmp_path / "out", clip_seconds=2.0)
    assert data.counts == {"strong": 3, "weak": 2, "unlabelled": 2, "selection": 1, "test": 2}
    assert data.report["selection"] == "synthetic_validation"
    assert set(class_list(tmp_path / "c")) <= set(SOUNDS)
    assert all(seconds == 2.0 for seconds in data.durations("test").values())
    assert not (tmp_path / "c/.labels").exists()


def test_the_seed_decides_and_no_two_clips_are_alike(tmp_path):
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        build_corpus(tmp_path / name, TINY, seed=seed, seconds=1.0)
    one, same, other = (content(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    audio = [name for name in one if name.endswith(".wav")]
    assert len({one[name] for name in audio} | {other[name] for name in audio}) == 2 * len(audio)


def test_an_interrupted_build_goes_on_and_ends_as_an_unbroken_one(tmp_path):
    class Killed(Exception):
        pass

    def stop(what, finished, total):
        if finished == 4:
            raise Killed

    with pytest.raises(Killed):
        build_corpus(tmp_path / "broken", TINY, seconds=1.0, progress=stop)
    resumed = build_corpus(tmp_path / "broken", TINY, seconds=1.0)
    assert resumed == {"written": 6, "kept": 4}
    build_corpus(tmp_path / "whole", TINY, seconds=1.0)
    assert content(tmp_path / "broken") == content(tmp_path / "whole")
    assert build_corpus(tmp_path / "whole", TINY, seconds=1.0) == {"written": 0, "kept": 10}
    victim = next((tmp_path / "whole").rglob("weak_*.wav"))
    victim.unlink()
    build_corpus(tmp_path / "whole", TINY, seconds=1.0)
    assert content(tmp_path / "broken") == content(tmp_path / "whole")


def test_other_peoples_folders_and_other_settings_are_left_alone(tmp_path):
    build_corpus(tmp_path / "c", Counts(1, 0, 0, 0, 0), seconds=1.0)
    with pytest.raises(InputError, match="holds a corpus of other settings; remove the folder"):
        build_corpus(tmp_path / "c", Counts(2, 0, 0, 0, 0), seconds=1.0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no built-in corpus"):
        build_corpus(tmp_path / "mine", TINY)
    with pytest.raises(InputError, match="make no corpus"):
        build_corpus(tmp_path / "none", Counts(0, 0, 0, 0, 0))
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_linear_probe_on_the_mean_spectrum_does_not_solve_the_corpus(tmp_path):
    build_corpus(tmp_path / "c", Counts(100, 40, 0, 0, 60), seed=5)
    data = prepare(tmp_path / "c", tmp_path / "out", selection="none", check="header")
    figures = corpus_probe.probe(data, deviation=False)
    assert figures["macro F1"] < 0.6
    assert figures["mean average precision"] < 0.5
