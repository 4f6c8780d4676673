from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.mixture import GaussianMixture as Reference

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes import FitProgress, GaussianMixture
from tests.prototypes.clusters import clusters, start

TYPES = ["full", "tied", "diag", "spherical"]


def reference(data: np.ndarray, covariance_type: str, iterations: int) -> Reference:
    given_start = start(data, 4, covariance_type)
    model = Reference(4, covariance_type=covariance_type, max_iter=iterations, tol=0.0, **given_start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(data.astype(np.float64))


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("width", [6, 70])
def test_follows_scikit_learn_from_the_same_start(covariance_type: str, width: int) -> None:
    data = clusters(1500, width)
    expected = reference(data, covariance_type, 8)
    model = GaussianMixture(
        4, covariance_type=covariance_type, max_iter=8, tol=0.0, batch_frames=400, **start(data, 4, covariance_type)
    ).fit(data)
    assert model.n_iter_ == 8
    assert model.score(data) == pytest.approx(expected.score(data), rel=1e-4)
    assert model.lower_bound_ == pytest.approx(expected.lower_bound_, rel=1e-4)
    np.testing.assert_allclose(model.weights_, expected.weights_, atol=1e-4)
    np.testing.assert_allclose(model.means_, expected.means_, atol=2e-3)
    np.testing.assert_allclose(model.covariances_, expected.covariances_, atol=5e-3)
    assert model.covariances_.shape == expected.covariances_.shape
    assert model.precisions_cholesky_.shape == expected.precisions_cholesky_.shape
    np.testing.assert_allclose(model.precisions_cholesky_, expected.precisions_cholesky_, atol=5e-2)
    np.testing.assert_allclose(model.predict_proba(data), expected.predict_proba(data), atol=5e-3)
    assert (model.predict(data) == expected.predict(data)).mean() > 0.999


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_likelihood_never_falls(covariance_type: str) -> None:
    data = clusters(800, 5)
    model = GaussianMixture(4, covariance_type=covariance_type, max_iter=25, tol=0.0, random_state=0).fit(data)
    objectives = np.array([step.objective for step in model.history_])
    assert (np.diff(objectives) > -1e-4).all()
    assert objectives[-1] > objectives[0]


def test_far_from_the_origin_nothing_cancels() -> None:
    data = clusters(800, 5)
    near = GaussianMixture(4, random_state=0, max_iter=10, tol=0.0, **start(data, 4, "full"))
    moved = data + np.float32(1000.0)
    shifted = start(data, 4, "full")
    shifted["means_init"] = shifted["means_init"] + 1000.0
    far = GaussianMixture(4, random_state=0, max_iter=10, tol=0.0, **shifted)
    assert far.fit(moved).score(moved) == pytest.approx(near.fit(data).score(data), rel=1e-3)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_an_array_a_file_and_batches_give_the_same_mixture(covariance_type: str, tmp_path: Path) -> None:
    data = clusters(500)
    data.tofile(tmp_path / "frames.bin")
    sources = [
        data,
        torch.from_numpy(data),
        np.memmap(tmp_path / "frames.bin", np.float32, mode="r", shape=data.shape),
        list(torch.from_numpy(data).split(33)),
    ]
    fits = [
        GaussianMixture(4, covariance_type=covariance_type, random_state=1, max_iter=6, tol=0.0, batch_frames=128).fit(
            source
        )
        for source in sources
    ]
    for fit in fits[1:]:
        torch.testing.assert_close(fit.means_, fits[0].means_, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fit.covariances_, fits[0].covariances_, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random"])
def test_every_start_finds_separate_clusters_and_repeats_itself(init_params: str) -> None:
    random = np.random.default_rng(0)
    means = np.array([[0, 0], [8, 0], [0, 8]], dtype=np.float32)
    data = (means[random.integers(3, size=300)] + random.normal(size=(300, 2))).astype(np.float32)
    model = GaussianMixture(3, init_params=init_params, random_state=2).fit(data)
    again = GaussianMixture(3, init_params=init_params, random_state=2).fit(data)
    assert torch.equal(model.means_, again.means_)
    if init_params != "random":
        found = model.means_.numpy()
        assert all(np.abs(found - mean).sum(axis=1).min() < 0.6 for mean in means)
    assert model.converged_


def test_sparse_em_ends_at_the_likelihood_of_exact_em() -> None:
    data = clusters(3000, 24, 6)
    options = {"max_iter": 12, "tol": 0.0, "random_state": 0}
    exact = GaussianMixture(6, **options).fit(data)
    sparse = GaussianMixture(6, full_every=4, **options).fit(list(torch.from_numpy(data).split(150)))
    assert exact.history_[0].objective < exact.history_[-1].objective - 0.1
    assert sparse.score(data) == pytest.approx(exact.score(data), rel=1e-4)
    assert [step.exact for step in sparse.history_[:6]] == [True, True, False, False, True, False]


def test_sparse_em_converges_on_full_steps_only() -> None:
    data = clusters(1000, 5)
    model = GaussianMixture(4, full_every=10, tol=1e-3, random_state=0, max_iter=200).fit(data)
    assert model.converged_
    assert model.history_[-1].exact


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 50.0), st.integers(0, 100))
def test_posterior_rows_sum_to_one_at_any_temperature(temperature: float, seed: int) -> None:
    model = fitted()
    frames = torch.randn(20, 6, generator=torch.Generator().manual_seed(seed)) * 5
    posterior = model.predict_proba(frames, temperature)
    assert (posterior >= 0).all()
    torch.testing.assert_close(posterior.sum(dim=1), torch.ones(20))


def test_temperature_softens_without_changing_the_order() -> None:
    frames = torch.from_numpy(clusters(100))
    model = fitted()
    hard, soft = model.predict_proba(frames), model.predict_proba(frames, temperature=10.0)
    assert torch.special.entr(soft).sum() > torch.special.entr(hard).sum()
    assert torch.equal(hard.argmax(1), soft.argmax(1))
    torch.testing.assert_close(model.predict_proba(frames, 1e6), torch.full((100, 4), 0.25), atol=1e-3, rtol=0)


def test_an_array_comes_back_as_an_array_and_a_tensor_as_a_tensor() -> None:
    data = clusters(20)
    model = fitted()
    assert isinstance(model.predict_proba(data), np.ndarray)
    assert isinstance(model.score_samples(data), np.ndarray)
    assert isinstance(model.predict(torch.from_numpy(data)), torch.Tensor)
    assert model.score(data) == pytest.approx(float(model.score_samples(data).mean()), rel=1e-5)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_component_without_frames_restarts_beside_the_heaviest(
    covariance_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = clusters(400, 3, 2)
    given_start = start(data, 3, covariance_type)
    given_start["means_init"][2] = 1e4
    with caplog.at_level(logging.WARNING):
        model = GaussianMixture(3, covariance_type=covariance_type, max_iter=15, tol=0.0, **given_start).fit(data)
    assert "lost its frames" in caplog.text
    assert (model.weights_ > 0.01).all()
    assert torch.isfinite(model.means_).all()
    assert (model.means_ < 100).all()


def test_progress_is_told_after_every_iteration(caplog: pytest.LogCaptureFixture) -> None:
    steps: list[FitProgress] = []
    with caplog.at_level(logging.INFO):
        model = GaussianMixture(4, max_iter=5, tol=0.0, progress=steps.append, random_state=0).fit(clusters(300))
    assert [step.iteration for step in steps] == [1, 2, 3, 4, 5]
    assert steps == model.history_
    assert steps[0].frames == 300
    assert "EM iteration 5" in caplog.text


def test_scikit_learn_can_clone_and_configure_it() -> None:
    model = GaussianMixture(5, covariance_type="diag", tol=0.5)
    assert clone(model).get_params() == model.get_params()
    assert model.set_params(n_components=7).n_components == 7
    assert repr(model) == "GaussianMixture(n_components=7, covariance_type='diag', tol=0.5)"
    with pytest.raises(ValueError, match="no parameter 'k'"):
        model.set_params(k=3)


@pytest.mark.parametrize(
    ("settings_", "frames", "message"),
    [
        ({}, np.full((50, 3), np.nan), "frame 0, dimension 0 is nan"),
        ({}, np.eye(3), "3 frames are fewer than the 4 components"),
        ({"covariance_type": "round"}, clusters(50), "unknown covariance_type 'round'"),
        ({"init_params": "magic"}, clusters(50), "unknown init_params 'magic'"),
        ({"n_components": 0}, clusters(50), "at least 1, got 0"),
        ({"full_every": 0}, clusters(50), "must be at least 1"),
        ({"weights_init": np.ones(4)}, clusters(50), "sum to one"),
        ({"means_init": np.ones((3, 6))}, clusters(50), "means_init must have the shape"),
        ({"precisions_init": np.ones((4, 6))}, clusters(50), r"shape \(4, 6, 6\)"),
        ({"precisions_init": -np.tile(np.eye(6), (4, 1, 1))}, clusters(50), "positive definite"),
        ({"reg_covar": 0.0}, np.repeat(clusters(5), 20, axis=0), "ill-defined covariance"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_sentence(
    settings_: dict[str, object], frames: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        GaussianMixture(**{"n_components": 4, "random_state": 0, **settings_}).fit(frames)  # type: ignore[arg-type]


def test_using_it_wrongly_is_refused() -> None:
    with pytest.raises(InputError, match="not fitted yet"):
        GaussianMixture(2).predict(np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"expected frames of shape \(n, 6\)"):
        fitted().predict(np.zeros((3, 2)))
    with pytest.raises(InputError, match="temperature must be positive"):
        fitted().predict_proba(np.zeros((3, 6)), temperature=0)
    with pytest.raises(InputError, match="NaN or infinite"):
        fitted().predict_proba(np.full((3, 6), np.inf))


_FITTED: list[GaussianMixture] = []


def fitted() -> GaussianMixture:
    if not _FITTED:
        _FITTED.append(GaussianMixture(4, random_state=0, max_iter=5).fit(clusters(400)))
    return _FITTED[0]
