from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pmam_plugin.data import Clip, Event
from pmam_plugin.prototypes import ArrayStore, GaussianMixture, KMeans, PrototypeSet
from pmam_plugin.stages import EStep
from tests.tiny_models import tiny_detector


class Asked(Exception):
    pass


CLIPS = {f"clip{number}": 1.0 for number in range(4)}


def context(device: torch.device | None = None) -> Any:
    events = (Event(0.0, 1.0, "Cat"),)
    clips = [Clip(id=name, path=Path(name), seconds=1.0, events=events) for name in CLIPS]
    data = SimpleNamespace(
        seconds_by_clip=lambda _: CLIPS, manifests={"strong": clips}, labels=("Cat", "Dog"), clip_seconds=1.0
    )
    return SimpleNamespace(device=device or torch.device("cpu"), seed=1, data=data, shared=None)


def embeddings(folder: Path, shift: float) -> ArrayStore:
    store = ArrayStore(folder, 25, 6)
    frames = torch.randn(4, 25, 6, generator=torch.Generator().manual_seed(0))
    frames[:, ::2, 0] += 4
    store.extend(list(CLIPS), frames + shift)
    return store


def test_the_mixture_is_fitted_where_the_models_run(tmp_path: Path) -> None:
    """Processes that exchange sums over NCCL have nothing to exchange on the CPU."""

    def estimator(**options: Any) -> Any:
        raise Asked(str(options["device"]))

    stage = EStep(1, tiny_detector().backbone, estimator, centre=False)
    with pytest.raises(Asked, match="cuda:1"):
        stage._fit(context(torch.device("cuda", 1)), embeddings(tmp_path / "embeddings", 0.0), tmp_path)


@pytest.mark.parametrize("centre", [True, False])
def test_prototypes_that_point_the_same_way_are_warned_of(
    centre: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def estimator(**options: Any) -> GaussianMixture:
        return GaussianMixture(2, reg_covar=1e-2, **options)

    stage = EStep(1, tiny_detector().backbone, estimator, centre=centre, frame_subsampling=2)
    monkeypatch.setattr(stage, "_embed", lambda _, folder: embeddings(folder / "embeddings", 30.0))
    with caplog.at_level(logging.INFO):
        result = stage.run(context(), tmp_path)
    assert ("point almost the same way" in caplog.text) is not centre
    assert "2 of 2 prototypes active" in caplog.text
    assert (result.notes["cosine"] > 0.9) is not centre
    assert result.notes["label_information"] == 0.0  # one label everywhere says nothing
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "posteriors",
        "prototypes.json",
        "prototypes.safetensors",
    ]
    posteriors = ArrayStore.open(tmp_path / "posteriors")
    assert posteriors["clip0"][::2].argmax(axis=1).tolist() != posteriors["clip0"][1::2].argmax(axis=1).tolist()


def test_what_an_encoder_interpolates_is_stored_before_it_does(tmp_path: Path) -> None:
    """PaSST's columns in the store, its frames out of it."""
    from pmam_plugin.encoders import Columns, PaSSTEncoder
    from pmam_plugin.features import FrontEnds, LogMel
    from pmam_plugin.models import Backbone
    from pmam_plugin.nn.context import RelativePositionTransformer

    torch.manual_seed(0)
    encoder = PaSSTEncoder(depth=2, layer=2, dim=24, heads=2, pooling_heads=2, mel_bins=36, time_patches=9)
    frontend = FrontEnds(mel=LogMel(n_mels=36))
    backbone = Backbone(frontend, encoder, RelativePositionTransformer(dim=24, depth=1, heads=2)).eval()
    waves = torch.randn(2, 16000)
    for layer in ("normalised", "stream", "block_1"):
        stage = EStep(1, backbone, KMeans, layer=layer)
        batch: Any = SimpleNamespace(waves=waves, features=lambda frontend: frontend(waves))
        frames, columns = stage._embeddings(backbone, batch)
        assert isinstance(columns, Columns)
        assert columns.shape[1] * 10 <= frames
        store = ArrayStore(tmp_path / layer, frames, 24, "float16", columns.shape[1], columns.grid)
        store.extend(["a", "b"], columns.values, [frames, frames - 7])
        expected = backbone.embed(backbone.frontend(waves), layer)
        torch.testing.assert_close(torch.from_numpy(store["a"]), expected[0], atol=5e-3, rtol=0)
        torch.testing.assert_close(torch.from_numpy(store["b"]), expected[1, :-7], atol=5e-3, rtol=0)


def test_killed_between_fit_and_labels_it_labels_with_what_was_fitted(tmp_path: Path) -> None:
    def never(**_: Any) -> Any:
        raise AssertionError("was fitted before")

    store = embeddings(tmp_path / "embeddings", 0.0)
    PrototypeSet(KMeans(2)).fit(store["clip0"]).save(tmp_path)
    prototypes = EStep(1, tiny_detector().backbone, never)._fit(context(), store, tmp_path)
    assert prototypes.means.shape == (2, 6)


def test_runs_share_embeddings_where_nothing_they_depend_on_differs(tmp_path: Path) -> None:
    """Not the seed nor the number of prototypes, but the layer and every weight on the way to it."""
    clip = Clip(id="a", path=Path("a.wav"), seconds=1.0)
    run = SimpleNamespace(data=SimpleNamespace(manifests={"strong": [clip]}, clip_seconds=1.0))
    backbone = tiny_detector().backbone

    def identity(**settings: Any) -> str:
        return EStep(**{"iteration": 2, "backbone": backbone, "estimator": KMeans, **settings})._identity(run, backbone)  # type: ignore[arg-type]

    first, deep = identity(), identity(layer="context_1")
    assert identity(components=4, frame_subsampling=2) == first
    assert len({first, deep, identity(iteration=1, first_embeddings="mel")}) == 3
    with torch.no_grad():
        next(backbone.context.parameters()).add_(1.0)
    assert identity() == first
    assert identity(layer="context_1") != deep
    with torch.no_grad():
        next(backbone.encoder.parameters()).add_(1.0)
    assert identity() != first


def test_prototypes_that_follow_the_labels_share_their_information(tmp_path: Path) -> None:
    run = context()
    clip = run.data.manifests["strong"][0]
    run.data.manifests = {"strong": [replace(clip, events=(Event(0.0, 0.4, "Cat"), Event(0.4, 1.0, "Dog")))]}
    store = ArrayStore(tmp_path, 10, 3)
    stage = EStep(1, tiny_detector().backbone, KMeans)
    for classes, expected in (([2] * 4 + [0] * 6, 1.0), ([0, 1] * 5, 0.0)):
        store.extend([clip.id], [torch.eye(3)[classes]])
        assert stage._agreement(run, store)["label_information"] == pytest.approx(expected, abs=1e-3)
