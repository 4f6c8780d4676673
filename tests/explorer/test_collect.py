"""From the folder of a run to the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pmam_plugin.cli import app
from pmam_plugin.data import Prepared, prepare
from pmam_plugin.errors import InputError
from pmam_plugin.explorer.collect import collect
from pmam_plugin.prototypes import ArrayStore, GaussianMixture, KMeans, Projection, PrototypeSet
from tests.data.corpus import tiny_corpus
from tests.report.test_pages import data_of

FRAMES = 20  # of a clip of 1 s


def posteriors_of(clip: str) -> np.ndarray:
    """Prototype 0 is the background, 1 and 2 are events: strong clips of even number hold 1, odd ones 2."""
    gamma = np.zeros((FRAMES, 3), np.float32)
    gamma[:, 0] = 1.0
    if clip.startswith("s"):
        gamma[5:15, 0] = 0.0
        gamma[5:15, 1 + int(clip[1:]) % 2] = 1.0
    return gamma


def write_iteration(run: Path, prepared: Prepared, number: int, kmeans: bool = False, codec: str = "float16") -> None:
    random = torch.Generator().manual_seed(number)
    frames = torch.randn(300, 4, generator=random) + torch.arange(300)[:, None] % 3 * 5
    model = KMeans(3, random_state=0) if kmeans else GaussianMixture(3, random_state=0)
    prototypes = PrototypeSet(model, None if kmeans else Projection(2)).fit(frames)
    prototypes.save(run / f"prototypes/{number}")
    store = ArrayStore(run / f"prototypes/{number}/posteriors", FRAMES, 3, codec)
    for name in ("strong", "weak", "unlabelled", "selection"):
        for clip in prepared.manifests.get(name, ()):
            store.extend([clip.id], [posteriors_of(clip.id)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a mixture in float16 and k-means in bytes."""
    folder = tmp_path_factory.mktemp("run with blanks")
    corpus = tiny_corpus(folder / "corpus")
    prepared = prepare(corpus, folder / "run/manifests", clip_seconds=1.0, hold_out=0.2)
    write_iteration(folder / "run", prepared, 1)
    write_iteration(folder / "run", prepared, 2, kmeans=True, codec="uint8")
    (folder / "run/hyperparams.yaml").write_text(f"seed: 1\ndata_folder: '{corpus}'   # where\n")
    return folder / "run"


def test_labels_and_posteriors_are_counted_together(run: Path) -> None:
    first, second = collect(run).iterations
    # Nine strong clips hold a half-second event each (frames 5 to 15), the tenth is labelled as empty.
    events = first.joint[1:, :2].sum()
    assert events == pytest.approx(9 * 10)
    assert first.joint.sum() == pytest.approx(10 * FRAMES)
    assert first.joint[1, 1] == first.joint[2, 0] == 0.0  # even clips are Cats, odd ones Dogs
    assert first.scores()["nmi_events"] == pytest.approx(1.0)
    assert first.mean_entropy == pytest.approx(0.0, abs=1e-6)
    # A store of bytes rounds; what is counted does not show it.
    np.testing.assert_allclose(second.joint, first.joint, atol=0.05)
    assert second.mean_entropy == pytest.approx(0.0, abs=1e-3)
    assert first.durations[1] == pytest.approx(0.5)


def test_excerpts_are_centred_on_what_they_show(run: Path) -> None:
    first = collect(run).iterations[0]
    for group in first.excerpts[1:]:
        assert 1 <= len(group) <= 8
        assert len({excerpt.clip for excerpt in group}) == len(group)
        for excerpt in group:
            assert excerpt.wave.shape == (16_000,)
            assert 0.25 <= excerpt.seconds < 0.75
            assert len(excerpt.posterior) == FRAMES
            assert excerpt.posterior.sum() == pytest.approx(10)
    assert {tuple(excerpt.labels) for excerpt in first.excerpts[1]} <= {("Cat",), ()}


def test_a_mixture_has_two_maps_and_k_means_one(run: Path) -> None:
    first, second = collect(run).iterations
    assert list(first.maps) == ["Discriminant", "Principal"]
    assert first.maps["Discriminant"].covariances is not None
    assert list(second.maps) == ["Principal"]
    assert first.spectra.shape == (3, 64)
    assert np.isfinite(first.spectra).all()


def test_the_command_writes_the_page_and_says_what_it_found(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["prototypes", str(run), "--out", str(page)])
    assert result.exit_code == 0, result.output
    assert "normalised mutual information" in result.output
    assert [item["name"] for item in data_of(page)["iterations"]] == ["iteration 1", "iteration 2"]


def test_progress_is_told_to_the_end(run: Path) -> None:
    told: dict[str, tuple[int, int]] = {}
    collect(run, progress=lambda what, done, of: told.update({what: (done, of)}))
    assert len(told) == 6
    assert all(done == of for done, of in told.values())


def test_moved_data_are_found_with_the_option(run: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(run.parent / "corpus")
    assert len(collect(run, tmp_path / "data").iterations) == 2


def test_what_is_missing_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no prototypes"):
        collect(tmp_path)
    (tmp_path / "prototypes").symlink_to(run / "prototypes")
    with pytest.raises(InputError, match="give --data-folder"):
        collect(tmp_path)
    (tmp_path / "hyperparams.yaml").write_text("data_folder: !ref <elsewhere>\n")
    with pytest.raises(InputError, match="give --data-folder"):
        collect(tmp_path)
    with pytest.raises(InputError, match="holds no prepared data"):
        collect(tmp_path, run.parent / "corpus")
    with pytest.raises(InputError, match=r"the training data are not there .* say with --data-folder"):
        collect(run, tmp_path)
