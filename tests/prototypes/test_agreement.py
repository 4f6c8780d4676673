"""Agreement of prototypes and labels is what the definitions say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pmam_plugin.prototypes.agreement import co_occurrence, normalised_mutual_information

assignments = st.integers(1, 200).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 4), min_size=n, max_size=n), st.lists(st.integers(0, 3), min_size=n, max_size=n)
    )
)


@settings(deadline=None, max_examples=50)
@given(assignments)
def test_mutual_information_of_hard_assignments_is_scikit_learns(pair: tuple[list[int], list[int]]) -> None:
    from sklearn.metrics import normalized_mutual_info_score

    clusters, labels = map(np.array, pair)
    joint = co_occurrence(np.eye(5)[clusters], np.eye(4)[labels, :3])  # the fourth label: no event
    expected = normalized_mutual_info_score(labels, clusters)
    if len(set(pair[0])) == len(set(pair[1])) == 1:
        expected = 0.0  # scikit-learn calls one cluster of one label perfect; nothing is learnt from it
    assert normalised_mutual_information(joint) == pytest.approx(expected, abs=1e-9)


def test_every_frame_weighs_one_however_many_events_it_has() -> None:
    activity = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]])
    posteriors = np.array([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]])
    joint = co_occurrence(posteriors, activity)
    np.testing.assert_allclose(joint, [[0.25, 0.25, 1.0, 0.0], [0.25, 0.25, 0.0, 1.0]])
    assert joint.sum() == pytest.approx(3.0)
