from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes import PrincipalComponents
from tests.prototypes.clusters import clusters


@pytest.mark.parametrize("whiten", [False, True])
def test_agrees_with_scikit_learn(whiten: bool) -> None:
    data = clusters(700, 12) + np.float32(50.0)
    expected = PCA(5, whiten=whiten, svd_solver="full").fit(data.astype(np.float64))
    model = PrincipalComponents(5, whiten=whiten).fit(list(torch.from_numpy(data).split(64)))
    np.testing.assert_allclose(model.explained_variance_, expected.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(model.explained_variance_ratio_, expected.explained_variance_ratio_, rtol=1e-4)
    np.testing.assert_allclose(model.components_, expected.components_, atol=1e-4)
    np.testing.assert_allclose(model.transform(data), expected.transform(data), atol=1e-3)
    np.testing.assert_allclose(
        model.inverse_transform(model.transform(data)), expected.inverse_transform(expected.transform(data)), atol=1e-3
    )


def test_all_components_together_lose_nothing() -> None:
    data = clusters(100, 5)
    model = PrincipalComponents(5, whiten=True).fit(data)
    np.testing.assert_allclose(model.inverse_transform(model.transform(data)), data, atol=1e-4)
    assert float(model.explained_variance_ratio_.sum()) == pytest.approx(1.0, rel=1e-5)


def test_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    data = clusters(100, 5)
    model = PrincipalComponents(3, whiten=True).fit(data)
    model.save(tmp_path / "pca.safetensors")
    loaded = PrincipalComponents.load(tmp_path / "pca.safetensors")
    assert loaded.whiten
    assert np.array_equal(loaded.transform(data), model.transform(data))


def test_what_cannot_be_fitted_or_read_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="7 principal components do not fit in 6 dimensions"):
        PrincipalComponents(7).fit(clusters(50, 6))
    with pytest.raises(InputError, match="2 frames are fewer than the 3 principal components"):
        PrincipalComponents(3).fit(clusters(2, 6))
    with pytest.raises(InputError, match="no frames"):
        PrincipalComponents(3).fit([])
    (tmp_path / "pca.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="not a safetensors file"):
        PrincipalComponents.load(tmp_path / "pca.safetensors")
    with pytest.raises(InputError, match="no such file"):
        PrincipalComponents.load(tmp_path / "other.safetensors")
