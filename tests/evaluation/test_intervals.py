import numpy as np
from hypothesis import given, settings, strategies as st

from pmam_plugin.evaluation.intervals import active_runs, events_above, score_intervals
from tests.evaluation.examples import LABELS, scores_table

levels = st.sampled_from([-np.inf, 0.0, 0.1, 0.2, 0.5, 0.9])
clip = st.integers(1, 14).flatmap(
    lambda frames: st.lists(st.lists(levels, min_size=2, max_size=2), min_size=frames, max_size=frames)
)


def detections(scores, threshold, number):
    """Runs of frames at or above the threshold, with the column number as in the intervals."""
    label, first, last = active_runs((scores >= threshold) & (scores > -np.inf))
    return {(number * 2 + a, round(b * 0.1, 6), round((c + 1) * 0.1, 6)) for a, b, c in zip(label, first, last)}


@settings(max_examples=150, deadline=None)
@given(st.lists(clip, min_size=1, max_size=3))
def test_intervals_hold_the_detections_of_every_threshold(clips):
    arrays = [np.array(scores) for scores in clips]
    tables = {str(index): scores_table(scores) for index, scores in enumerate(arrays)}
    ((_, intervals),) = score_intervals(tables, list(tables), LABELS[:2])
    for threshold in (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9, 1.0):
        wanted = set().union(*(detections(scores, threshold, index) for index, scores in enumerate(arrays)))
        there = (intervals.floor < threshold) & (threshold <= intervals.level)
        parts = zip(intervals.column[there], intervals.onset[there].round(6), intervals.offset[there].round(6))
        assert sorted(parts) == sorted(wanted)


@settings(max_examples=150, deadline=None)
@given(clip)
def test_the_parent_of_an_interval_is_the_shortest_that_holds_it(scores):
    ((_, intervals),) = score_intervals({"a": scores_table(np.array(scores))}, ["a"], LABELS[:2])
    for index in range(len(intervals)):
        holds = (
            (intervals.column == intervals.column[index])
            & (intervals.onset <= intervals.onset[index])
            & (intervals.offset >= intervals.offset[index])
        )
        holds[index] = False
        length = np.where(holds, intervals.offset - intervals.onset, np.inf)
        assert intervals.parent[index] == (length.argmin() if holds.any() else -1)
        assert intervals.floor[index] == (intervals.level[intervals.parent[index]] if holds.any() else -np.inf)


def test_clips_are_handed_out_in_portions_that_cover_all(monkeypatch):
    monkeypatch.setattr("pmam_plugin.evaluation.intervals._CHUNK", 20)
    tables = {str(index): scores_table(np.full((4, 2), 0.1 * index)) for index in range(7)}
    portions = list(score_intervals(tables, list(tables), LABELS[:2]))
    assert [done for done, _ in portions] == [3, 6, 7]
    assert np.concatenate([part.column for _, part in portions]).tolist() == list(range(14))


def test_events_exceed_the_threshold_of_their_class():
    scores = np.array([[0.5, 0.5], [0.6, 0.5], [0.7, 0.9], [0.1, 0.9]])
    events = events_above({"a": scores_table(scores)}, ["a"], LABELS[:2], np.array([0.5, 0.8]))
    found = list(zip(events.label, events.onset.round(6), events.offset.round(6)))
    assert found == [(0, 0.1, 0.3), (1, 0.2, 0.4)]
