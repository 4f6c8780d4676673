"""What is said of prototypes is what the definitions say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from pmam_plugin.explorer.statistics import (
    PrototypeCounts,
    TypicalMoments,
    discriminant_map,
    principal_map,
    purity,
    telling_labels,
)
from pmam_plugin.prototypes.agreement import co_occurrence, normalised_mutual_information


def one_hot(indices: np.ndarray, count: int) -> np.ndarray:
    return np.eye(count)[indices]


def test_prototypes_that_name_the_label_have_information_and_purity_one() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 2])
    joint = co_occurrence(one_hot(labels, 3), one_hot(labels, 3))
    assert normalised_mutual_information(joint) == pytest.approx(1.0)
    assert purity(joint) == 1.0


def test_independent_prototypes_carry_no_information() -> None:
    joint = np.outer([0.2, 0.3, 0.5], [0.6, 0.3, 0.1])
    assert normalised_mutual_information(joint) == pytest.approx(0.0, abs=1e-12)
    assert purity(joint) == pytest.approx(0.6)  # no better than the largest label


def test_a_prototype_without_frames_has_no_label() -> None:
    joint = np.array([[3.0, 1.0], [0.0, 0.0]])
    assert telling_labels(joint).tolist()[1] == -1
    assert normalised_mutual_information(np.zeros((2, 2))) == purity(np.zeros((2, 2))) == 0.0


def test_the_telling_label_is_the_one_that_is_unusual_here() -> None:
    # Label 2 (no event) leads everywhere, but prototype 0 is where label 0 lives.
    joint = np.array([[40.0, 0.0, 60.0], [0.0, 10.0, 490.0]])
    assert telling_labels(joint).tolist() == [0, 2]


def frame_entropy(posterior: np.ndarray) -> float:
    counts = PrototypeCounts(len(posterior), 1)
    counts.add(posterior[None])
    return counts.entropy_sum


@given(st.integers(2, 30), st.integers(0, 2**31))
def test_entropy_lies_between_certainty_and_ignorance(count: int, seed: int) -> None:
    gamma = np.random.default_rng(seed).dirichlet(np.full(count, 0.3), 20)
    assert all(-1e-9 <= frame_entropy(row) <= np.log(count) + 1e-9 for row in gamma)
    assert frame_entropy(np.full(count, 1 / count)) == pytest.approx(np.log(count))
    assert frame_entropy(np.eye(count)[1]) == pytest.approx(0.0, abs=1e-6)


def test_counts_know_how_long_a_prototype_lasts_and_in_how_many_clips_it_is() -> None:
    counts = PrototypeCounts(2, 1)
    counts.add(one_hot(np.array([0, 0, 0, 1, 1, 0]), 2))
    counts.add(one_hot(np.array([0, 0]), 2), np.array([[1], [0]]))
    np.testing.assert_allclose(counts.mean_duration, [6 / 3, 2.0])
    assert counts.clips.tolist() == [2, 1]
    assert (counts.frames, counts.labelled, counts.clip_count) == (8, 2, 2)
    assert counts.entropies[0] == counts.entropies.sum() == 8
    np.testing.assert_allclose(counts.joint, [[1, 1], [0, 0]])


def test_typical_moments_are_the_longest_reigns_one_per_clip() -> None:
    typical = TypicalMoments(2, count=2, width=3)
    typical.add("short", one_hot(np.array([1, 1, 0, 1, 1, 1]), 2))
    typical.add("long", one_hot(np.array([1, 0, 0, 0, 0, 1]), 2))
    typical.add("none", one_hot(np.array([1, 1, 1, 1, 1, 1]), 2))
    first, second = typical.best()
    assert [(moment.clip, round(moment.share, 2)) for moment in first] == [("long", 1.0), ("short", 0.33)]
    assert first[0].frame in (2, 3)
    assert {moment.clip for moment in second} <= {"short", "none"}
    assert len(second) == 2


def test_a_clip_shorter_than_the_stretch_still_counts() -> None:
    typical = TypicalMoments(1, count=1, width=50)
    typical.add("tiny", np.ones((3, 1)))
    typical.add("empty", np.ones((0, 1)))
    assert [moment.clip for moment in typical.best()[0]] == ["tiny"]


def test_the_principal_map_is_the_pca_of_weighted_means() -> None:
    from sklearn.decomposition import PCA

    means = np.random.default_rng(0).normal(size=(12, 5)) * [4, 3, 1, 0.5, 0.1]
    plane = principal_map(means, None, np.ones(12))
    reference = PCA(2).fit(means)
    np.testing.assert_allclose(np.abs(plane.means), np.abs(reference.transform(means)), atol=1e-9)
    assert plane.explained == pytest.approx(reference.explained_variance_ratio_.sum())
    assert plane.covariances is None


def test_ellipses_are_the_covariances_of_projected_samples() -> None:
    random = np.random.default_rng(0)
    means = random.normal(size=(3, 4)) * 5
    factors = random.normal(size=(3, 4, 4))
    covariances = factors @ factors.transpose(0, 2, 1)
    weights = np.array([0.5, 0.3, 0.2])
    plane = principal_map(means, covariances, weights)
    assert plane.covariances is not None
    axes = np.linalg.svd((means - weights @ means) * np.sqrt(weights)[:, None], full_matrices=False)[2][:2]
    for k in range(3):
        samples = random.multivariate_normal(means[k], covariances[k], 100_000) @ axes.T
        # The axes' signs are free, so compare what does not depend on them.
        np.testing.assert_allclose(
            np.linalg.eigvalsh(plane.covariances[k]), np.linalg.eigvalsh(np.cov(samples.T)), rtol=0.03
        )


def test_in_the_discriminant_map_distances_count_standard_deviations() -> None:
    means = np.array([[0.0, 0, 0], [30.0, 0, 0], [0, 0, 1.0]])  # 3 and 10 standard deviations from the first
    covariances = np.stack([np.diag([100.0, 1.0, 0.01])] * 3)
    plane = discriminant_map(means, covariances, np.ones(3))
    assert plane.covariances is not None
    np.testing.assert_allclose(plane.covariances, np.stack([np.eye(2)] * 3), atol=1e-9)
    assert np.linalg.norm(plane.means[2] - plane.means[0]) == pytest.approx(10.0)
    assert np.linalg.norm(plane.means[1] - plane.means[0]) == pytest.approx(3.0)


def test_maps_exist_for_one_prototype_and_for_one_dimension() -> None:
    single = principal_map(np.zeros((1, 3)), np.ones((1, 3, 3)), np.ones(1))
    assert single.means.shape == (1, 2)
    line = discriminant_map(np.array([[0.0], [2.0]]), np.ones((2, 1, 1)), np.ones(2))
    assert line.means.shape == (2, 2)
    assert np.ptp(line.means[:, 0]) == pytest.approx(2.0)
