from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes import GaussianMixture, KMeans, Projection, PrototypeSet
from tests.prototypes.clusters import clusters


def build(kind: str, projection: Projection | None = None) -> PrototypeSet:
    model = KMeans(4, random_state=0) if kind == "kmeans" else GaussianMixture(4, covariance_type=kind, random_state=0)
    return PrototypeSet(model, projection).fit(clusters(400))


@pytest.mark.parametrize("projection", [None, Projection(), Projection(3)], ids=["none", "centre", "pca"])
@pytest.mark.parametrize("kind", ["full", "diag", "kmeans"])
def test_comes_back_from_disk_as_it_was(kind: str, projection: Projection | None, tmp_path: Path) -> None:
    prototypes = build(kind, projection)
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
    assert loaded.means.shape == (4, 3 if projection is not None and projection.components else 6)
    assert loaded.input_dim == 6
    assert loaded.components == 4


def test_means_live_where_the_principal_components_are() -> None:
    prototypes = build("full", Projection(3))
    frames = clusters(400)
    embedded = prototypes.embed(frames)
    posterior = prototypes.posteriors(frames)
    averages = posterior.T @ embedded / posterior.sum(axis=0)[:, None]
    np.testing.assert_allclose(averages, prototypes.means, atol=0.1)


def test_k_means_gives_one_hot_labels_and_even_weights() -> None:
    prototypes = build("kmeans")
    posterior = prototypes.posteriors(torch.from_numpy(clusters(50)))
    assert set(posterior.unique().tolist()) == {0.0, 1.0}
    assert (posterior.sum(dim=1) == 1).all()
    torch.testing.assert_close(prototypes.weights, torch.full((4,), 0.25))


def test_the_summary_tells_hard_labels_from_soft_ones_and_unused_prototypes() -> None:
    prototypes = build("full")
    hard = torch.eye(4)[torch.tensor([0, 0, 1, 1, 1, 2])]
    summary = prototypes.summary([hard[:2], hard[2:]])
    assert (summary.frames, summary.entropy, summary.active, summary.sure_share) == (6, 0.0, 3, 1.0)
    uniform = prototypes.summary([torch.full((5, 4), 0.25)])
    assert uniform.entropy == pytest.approx(math.log(4))
    assert uniform.entropy_share == pytest.approx(1.0)
    assert (uniform.active, uniform.components, uniform.sure_share) == (4, 4, 0.0)
    assert json.dumps(asdict(uniform))
    with pytest.raises(InputError, match="no posteriors"):
        prototypes.summary([])


def test_what_is_no_prototypes_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        PrototypeSet.load(tmp_path)
    build("full").save(tmp_path)
    (tmp_path / "prototypes.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"is empty .* fit and save them again"):
        PrototypeSet.load(tmp_path)
    (tmp_path / "prototypes.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="not prototypes this version reads"):
        PrototypeSet.load(tmp_path)


def test_centring_spreads_prototypes_that_point_the_same_way() -> None:
    data = clusters(400) + 30
    together, centred = (PrototypeSet(KMeans(4), projection).fit(data) for projection in (None, Projection()))
    assert together.cosine() > 0.95
    assert centred.cosine() < 0.2
    pairs = torch.nn.functional.cosine_similarity(centred.means[:, None], centred.means[None], dim=2)
    assert centred.cosine() == pytest.approx(float(pairs[~torch.eye(4, dtype=torch.bool)].mean()), abs=1e-5)
