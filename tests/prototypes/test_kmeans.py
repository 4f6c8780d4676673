from __future__ import annotations

import numpy as np
import pytest
import torch

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes import KMeans
from tests.prototypes.clusters import clusters


def separate() -> tuple[np.ndarray, np.ndarray]:
    """Three clusters far from the origin and from each other."""
    random = np.random.default_rng(0)
    means = np.array([[0, 0], [9, 0], [0, 9]], dtype=np.float32) + 1000
    label = random.integers(3, size=600)
    return (means[label] + random.normal(size=(600, 2))).astype(np.float32), means


@pytest.mark.parametrize("minibatch", [False, True])
def test_finds_separate_clusters_and_repeats_itself(minibatch: bool) -> None:
    data, means = separate()
    model = KMeans(3, minibatch=minibatch, max_iter=20, random_state=2).fit(data)
    assert all(np.abs(model.means_.numpy() - mean).sum(axis=1).min() < 0.5 for mean in means)
    again = KMeans(3, minibatch=minibatch, max_iter=20, random_state=2).fit(torch.from_numpy(data))
    assert torch.equal(model.means_, again.means_)


def test_every_frame_is_labelled_with_its_nearest_centre() -> None:
    data = clusters(500, 4, 4) + 100
    model = KMeans(6, sample=200).fit(data)
    posteriors = model.predict_proba(data)
    nearest = np.linalg.norm(data[:, None].astype(np.float64) - model.means_.double().numpy(), axis=2).argmin(axis=1)
    assert np.array_equal(posteriors.argmax(dim=1).numpy(), nearest)
    assert (posteriors.sum(dim=1) == 1).all()
    assert (posteriors.amax(dim=1) == 1).all()


def test_what_cannot_be_fitted_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="2 frames to fit on where at least 3"):
        KMeans(3).fit(np.eye(2))
    with pytest.raises(InputError, match="n_clusters"):
        KMeans(0)
    with pytest.raises(InputError, match="dimension 2 is nan"):
        KMeans(3).fit(np.array([[0, 0, np.nan, 0]] * 9))
    with pytest.raises(InputError, match="too much alike for 3 clusters"), pytest.warns(match="distinct clusters"):
        KMeans(3).fit(np.zeros((20, 2)))
    with pytest.raises(InputError, match="not fitted"):
        KMeans(3).predict_proba(clusters(20))
