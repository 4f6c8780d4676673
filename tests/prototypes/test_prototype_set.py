from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes import (
    GaussianMixture,
    KMeans,
    PrincipalComponents,
    PrototypeSet,
    load_published_means,
)
from tests.prototypes.clusters import clusters


def build(kind: str, pca: bool) -> PrototypeSet:
    model = KMeans(4, random_state=0) if kind == "kmeans" else GaussianMixture(4, covariance_type=kind, random_state=0)
    return PrototypeSet(model, PrincipalComponents(3) if pca else None).fit(clusters(400))


@pytest.mark.parametrize("pca", [False, True])
@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical", "kmeans"])
def test_comes_back_from_disk_as_it_was(kind: str, pca: bool, tmp_path: Path) -> None:
    prototypes = build(kind, pca)
    frames = clusters(30, seed=1)
    prototypes.save(tmp_path / "prototypes")
    loaded = PrototypeSet.load(tmp_path / "prototypes")
    assert sorted(path.name for path in (tmp_path / "prototypes").iterdir()) == [
        "prototypes.json",
        "prototypes.safetensors",
    ]
    np.testing.assert_allclose(loaded.posteriors(frames), prototypes.posteriors(frames), atol=1e-5)
    assert torch.equal(loaded.means, prototypes.means)
    assert torch.equal(loaded.weights, prototypes.weights)
    assert loaded.means.shape == (4, 3 if pca else 6)
    assert loaded.input_dim == 6
    assert loaded.components == 4


def test_means_live_where_the_principal_components_are() -> None:
    prototypes = build("full", pca=True)
    frames = clusters(400)
    embedded = prototypes.embed(frames)
    posterior = prototypes.posteriors(frames)
    averages = posterior.T @ embedded / posterior.sum(axis=0)[:, None]
    np.testing.assert_allclose(averages, prototypes.means, atol=0.1)


def test_k_means_gives_one_hot_labels_and_even_weights() -> None:
    prototypes = build("kmeans", pca=False)
    posterior = prototypes.posteriors(torch.from_numpy(clusters(50)))
    assert set(posterior.unique().tolist()) == {0.0, 1.0}
    assert (posterior.sum(dim=1) == 1).all()
    torch.testing.assert_close(prototypes.weights, torch.full((4,), 0.25))


def test_the_summary_tells_hard_labels_from_soft_ones_and_unused_prototypes() -> None:
    prototypes = build("full", pca=False)
    hard = torch.eye(4)[torch.tensor([0, 0, 1, 1, 1, 2])]
    summary = prototypes.summary([hard[:2], hard[2:]])
    assert (summary.frames, summary.entropy, summary.active, summary.sure_share) == (6, 0.0, 3, 1.0)
    uniform = prototypes.summary([torch.full((5, 4), 0.25)])
    assert uniform.entropy == pytest.approx(math.log(4))
    assert uniform.entropy_share == pytest.approx(1.0)
    assert (uniform.active, uniform.components, uniform.sure_share) == (4, 4, 0.0)
    assert json.dumps(uniform.as_dict())
    with pytest.raises(InputError, match="no posteriors"):
        prototypes.summary([])


def test_what_is_no_prototypes_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        PrototypeSet.load(tmp_path)
    build("full", pca=False).save(tmp_path)
    (tmp_path / "prototypes.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="not a safetensors file"):
        PrototypeSet.load(tmp_path)
    (tmp_path / "prototypes.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="not prototypes this version reads"):
        PrototypeSet.load(tmp_path)


def test_published_means_are_read_as_plain_tensors_only(tmp_path: Path) -> None:
    means = torch.randn(30, 8, dtype=torch.float64)
    torch.save(means, tmp_path / "gmm_means.pt")
    torch.testing.assert_close(load_published_means(tmp_path / "gmm_means.pt"), means.float())

    class Surprise:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Surprise()))
    torch.save([means], tmp_path / "list.pt")
    for name, message in [("evil.pt", "not a plain tensor"), ("list.pt", "one finite tensor"), ("no.pt", "no such")]:
        with pytest.raises(InputError, match=message):
            load_published_means(tmp_path / name)
    assert not (tmp_path / "executed").exists()
