from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.mixture import GaussianMixture as Reference

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes import GaussianMixture
from tests.prototypes.clusters import clusters, start, started

TYPES = ["full", "diag"]


def reference(data: np.ndarray, covariance_type: str, iterations: int) -> Reference:
    weights, means, precisions = start(data, 4, covariance_type)
    given_start = {"weights_init": weights, "means_init": means, "precisions_init": precisions}
    model = Reference(4, covariance_type=covariance_type, max_iter=iterations, tol=0.0, **given_start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(data.astype(np.float64))


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("width", [6, 70])
def test_follows_scikit_learn_from_the_same_start(covariance_type: str, width: int) -> None:
    data = clusters(1500, width)
    expected = reference(data, covariance_type, 8)
    model = GaussianMixture(4, covariance_type=covariance_type, max_iter=8, tol=0.0, batch_frames=400)
    model.fit(data, started(*start(data, 4, covariance_type)))
    assert len(model.history_) == 8
    assert model.score(data) == pytest.approx(expected.score(data), rel=1e-4)
    assert model.history_[-1] == pytest.approx(expected.lower_bound_, rel=1e-4)
    np.testing.assert_allclose(model.weights_, expected.weights_, atol=1e-4)
    np.testing.assert_allclose(model.means_, expected.means_, atol=2e-3)
    full = expected.covariances_ if covariance_type == "full" else [np.diag(row) for row in expected.covariances_]
    np.testing.assert_allclose(model.covariances_, full, atol=5e-3)
    assert model.precisions_cholesky_.shape == expected.precisions_cholesky_.shape
    np.testing.assert_allclose(model.precisions_cholesky_, expected.precisions_cholesky_, atol=5e-2)
    np.testing.assert_allclose(model.predict_proba(data), expected.predict_proba(data), atol=5e-3)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_likelihood_never_falls(covariance_type: str) -> None:
    data = clusters(800, 5)
    model = GaussianMixture(4, covariance_type=covariance_type, max_iter=25, tol=0.0, random_state=0).fit(data)
    assert (np.diff(model.history_) > -1e-4).all()
    assert model.history_[-1] > model.history_[0]


def test_far_from_the_origin_nothing_cancels() -> None:
    data = clusters(800, 5)
    weights, means, precisions = start(data, 4, "full")
    near = GaussianMixture(4, max_iter=10, tol=0.0).fit(data, started(weights, means, precisions))
    moved = data + np.float32(1000.0)
    far = GaussianMixture(4, max_iter=10, tol=0.0).fit(moved, started(weights, means + 1000.0, precisions))
    assert far.score(moved) == pytest.approx(near.score(data), rel=1e-3)


def test_finds_separate_clusters_and_repeats_itself() -> None:
    random = np.random.default_rng(0)
    means = np.array([[0, 0], [8, 0], [0, 8]], dtype=np.float32)
    data = (means[random.integers(3, size=300)] + random.normal(size=(300, 2))).astype(np.float32)
    model = GaussianMixture(3, random_state=2).fit(data)
    assert torch.equal(model.means_, GaussianMixture(3, random_state=2).fit(torch.from_numpy(data)).means_)
    assert all(np.abs(model.means_.numpy() - mean).sum(axis=1).min() < 0.6 for mean in means)
    assert model.converged_


class Killed(Exception):
    pass


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_killed_fit_goes_on_where_it_stopped_and_ends_as_an_unbroken_one(
    covariance_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data, state = clusters(300, 9), tmp_path / "fit.safetensors"
    settings_ = {"covariance_type": covariance_type, "random_state": 0, "max_iter": 9, "tol": 0.0}
    whole = GaussianMixture(8, **settings_).fit(data)
    original = GaussianMixture._expect

    def dies(self: GaussianMixture, *rest: Any) -> float:
        if len(self.history_) == 4:
            raise Killed
        return original(self, *rest)

    monkeypatch.setattr(GaussianMixture, "_expect", dies)
    with pytest.raises(Killed):
        GaussianMixture(8, **settings_).fit(data, state=state)
    monkeypatch.undo()
    with caplog.at_level(logging.INFO):
        resumed = GaussianMixture(8, **settings_).fit(data, state=state)
    assert "goes on after EM iteration 4" in caplog.text
    assert resumed.history_ == whole.history_
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name
    again = GaussianMixture(8, **settings_).fit(data, state=state)  # killed after its last iteration
    assert torch.equal(again.means_, whole.means_)
    with pytest.raises(InputError, match="the state of another fit"):
        GaussianMixture(7, **settings_).fit(data, state=state)


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


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_component_without_frames_restarts_beside_the_heaviest(
    covariance_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = clusters(400, 3, 2)
    given_start = start(data, 3, covariance_type)
    given_start[1][2] = 1e4
    with caplog.at_level(logging.WARNING):
        model = GaussianMixture(3, covariance_type=covariance_type, max_iter=15, tol=0.0)
        model.fit(data, started(*given_start))
    assert "lost its frames" in caplog.text
    assert (model.weights_ > 0.01).all()
    assert torch.isfinite(model.means_).all()
    assert (model.means_ < 100).all()


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"covariance_type": "round"}, "unknown covariance_type 'round'"),
        ({"n_components": 0}, "n_components and max_iter of at least 1"),
        ({"reg_covar": 0.0}, "ill-defined covariance"),
        ({"n_components": 900}, "100 frames to fit on where at least 900"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_sentence(settings_: dict[str, Any], message: str) -> None:
    data = np.repeat(clusters(5), 20, axis=0)
    with pytest.raises(InputError, match=message):
        GaussianMixture(**{"n_components": 4, **settings_}).fit(data)


def test_using_it_wrongly_is_refused() -> None:
    with pytest.raises(InputError, match="not fitted yet"):
        GaussianMixture(2).predict_proba(np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"expected frames of shape \(n, 6\)"):
        fitted().predict_proba(np.zeros((3, 2)))
    with pytest.raises(InputError, match="temperature must be positive"):
        fitted().predict_proba(np.zeros((3, 6)), temperature=0)
    with pytest.raises(InputError, match="NaN or infinite"):
        fitted().predict_proba(np.full((3, 6), np.inf))


_FITTED: list[GaussianMixture] = []


def fitted() -> GaussianMixture:
    if not _FITTED:
        _FITTED.append(GaussianMixture(4, random_state=0, max_iter=5).fit(clusters(400)))
    return _FITTED[0]
