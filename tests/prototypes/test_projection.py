from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes import Projection
from tests.prototypes.clusters import clusters


def test_agrees_with_scikit_learn() -> None:
    data = clusters(700, 12) + np.float32(50.0)
    expected = PCA(5, svd_solver="full").fit(data.astype(np.float64))
    model = Projection(5).fit(data)
    assert model.explained_ == pytest.approx(expected.explained_variance_ratio_.sum(), rel=1e-4)
    assert model.components_ is not None
    np.testing.assert_allclose(model.components_, expected.components_, atol=1e-4)
    np.testing.assert_allclose(model.transform(data), expected.transform(data), atol=1e-3)


def test_without_components_it_only_centres() -> None:
    data = clusters(700, 12) + np.float32(50.0)
    np.testing.assert_allclose(Projection().fit(data).transform(data), data - data.mean(axis=0), atol=1e-4)


def test_what_cannot_be_fitted_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="7 principal components do not fit in 6 dimensions"):
        Projection(7).fit(clusters(50, 6))
    with pytest.raises(InputError, match="2 frames to fit on where at least 3"):
        Projection(3).fit(clusters(2, 6))
    with pytest.raises(InputError, match="at least 1, got 0"):
        Projection(0).fit(clusters(50, 6))
