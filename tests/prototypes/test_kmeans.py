from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as Reference

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes import KMeans
from tests.prototypes.clusters import clusters


def test_follows_scikit_learn_from_the_same_start() -> None:
    data = clusters(900, 8, 5)
    centres = data[:5].copy()
    expected = Reference(5, init=centres, n_init=1, max_iter=50, tol=0.0).fit(data)
    model = KMeans(5, init=centres, max_iter=50, tol=0.0).fit(list(torch.from_numpy(data).split(70)))
    np.testing.assert_allclose(model.cluster_centers_, expected.cluster_centers_, atol=1e-4)
    assert model.inertia_ == pytest.approx(expected.inertia_, rel=1e-4)
    assert (model.predict(data) == expected.predict(data)).all()
    np.testing.assert_allclose(model.transform(data), expected.transform(data), atol=1e-3)
    assert model.score(data) == pytest.approx(expected.score(data), rel=1e-4)
    assert model.converged_


def test_the_tolerance_is_relative_to_the_variance() -> None:
    data = clusters(500, 4, 4)
    iterations = [KMeans(4, tol=1e-2, init=scale * data[:4]).fit(scale * data).n_iter_ for scale in (1.0, 1000.0)]
    assert iterations[0] == iterations[1]


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_repeats_itself_and_never_gets_worse(init: str) -> None:
    data = clusters(500, 4, 4)
    model = KMeans(6, init=init, random_state=5).fit(data)
    assert torch.equal(model.cluster_centers_, KMeans(6, init=init, random_state=5).fit(data).cluster_centers_)
    inertias = np.array([step.objective for step in model.history_])
    assert (np.diff(inertias) <= 1e-3 * inertias[0]).all()


def test_a_cluster_without_frames_moves_to_a_far_one(caplog: pytest.LogCaptureFixture) -> None:
    data = clusters(300, 3, 2)
    outlier = np.full((1, 3), 60.0, dtype=np.float32)
    centres = np.concatenate([data[:2], [[-1e3, -1e3, -1e3]]])
    with caplog.at_level(logging.WARNING):
        model = KMeans(3, init=centres).fit(np.concatenate([data, outlier]))
    assert "lost all their frames" in caplog.text
    assert np.abs(model.cluster_centers_.numpy() - outlier).sum(axis=1).min() < 1e-3


def test_what_cannot_be_fitted_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="2 frames are fewer than the 3 clusters"):
        KMeans(3).fit(np.eye(2))
    with pytest.raises(InputError, match="unknown start 'magic'"):
        KMeans(3, init="magic").fit(clusters(20))
    with pytest.raises(InputError, match="init must have the shape"):
        KMeans(3, init=np.zeros((2, 6))).fit(clusters(20))
    with pytest.raises(InputError, match="dimension 2 is nan"):
        KMeans(3, init=np.zeros((3, 4))).fit(np.array([[0, 0, np.nan, 0]] * 9))
    with pytest.raises(InputError, match="not fitted"):
        KMeans(3).predict(clusters(20))
