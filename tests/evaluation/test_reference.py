import numpy as np
import pytest

from pmam_plugin.errors import InputError
from pmam_plugin.evaluation.reference import Reference
from tests.evaluation.examples import events_table

DURATIONS = {"a.wav": 10.0, "b.wav": 10.0}


def test_touching_and_overlapping_events_of_a_class_are_united_for_intersection():
    rows = [("a.wav", 0, 2, "Dog"), ("a.wav", 1, 1.5, "Dog"), ("a.wav", 2, 3, "Dog"), ("a.wav", 3.5, 4, "Dog")]
    rows += [("a.wav", 1, 5, "Cat"), ("b.wav", 0, 1, "Dog"), ("b.wav", 2, 2, "Dog")]
    united = Reference.from_tables(events_table(rows), DURATIONS).for_intersection()
    found = list(zip(united.events.clip, united.events.label, united.events.onset, united.events.offset))
    assert found == [(0, 0, 1, 5), (0, 1, 0, 3), (0, 1, 3.5, 4), (1, 1, 0, 1), (1, 1, 2, 2.001)]


def test_a_class_that_never_occurs_is_left_out_of_intersection_only():
    reference = Reference.from_tables(events_table([("b.wav", 0, 1, "Dog")]), DURATIONS, labels=("Cat", "Dog"))
    assert reference.labels == ("Cat", "Dog")
    assert reference.for_intersection().labels == ("Dog",)
    assert reference.for_intersection().events.label.tolist() == [0]


def test_counts_are_per_clip_and_class():
    rows = [("a.wav", 0, 1, "Dog"), ("a.wav", 2, 3, "Dog"), ("b.wav", 0, 1, "Cat")]
    np.testing.assert_array_equal(Reference.from_tables(events_table(rows), DURATIONS).counts, [[0, 2], [1, 0]])


@pytest.mark.parametrize(
    ("rows", "durations", "labels", "said"),
    [
        ([("c.wav", 0, 1, "Dog")], DURATIONS, None, "c.wav have no duration"),
        ([("a.wav", 0, 1, "Frog")], DURATIONS, ("Dog",), "unknown class Frog"),
        ([("a.wav", np.nan, np.nan, None)], DURATIONS, None, "holds no event"),
        ([("a.wav", 0, 1, "Dog")], {}, None, "name no clip"),
        ([("a.wav", 0, 1, "Dog")], {"a.wav": 1.0, "a.flac": 2.0}, None, "two durations"),
        ([("a.wav", 2, 1, "Dog")], DURATIONS, None, "from 2.0 s to 1.0 s|from 2 s to 1 s"),
        ([("a.wav", np.nan, 1, "Dog")], DURATIONS, None, "from nan s"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(rows, durations, labels, said):
    with pytest.raises(InputError, match=said):
        Reference.from_tables(events_table(rows), durations, labels)
