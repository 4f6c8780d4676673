"""Two processes, each with its own part of the frames, end with the estimators that one process finds."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes import ArrayStore, GaussianMixture, KMeans, Projection, PrototypeSet, draw_frames
from tests.prototypes.clusters import clusters


def fit_all(frames: torch.Tensor, batch_frames: int) -> dict[str, torch.Tensor]:
    results: dict[str, torch.Tensor] = {}
    for covariance_type in ("full", "diag"):
        settings = {"covariance_type": covariance_type, "random_state": 3, "max_iter": 6, "tol": 0.0}
        model = GaussianMixture(4, batch_frames=batch_frames, **settings).fit(frames)
        results |= {f"{covariance_type}.{name}": tensor for name, tensor in model.tensors().items()}
        results[f"{covariance_type}.bounds"] = torch.tensor(model.history_)
    results["kmeans"] = KMeans(5, random_state=1).fit(frames).means_
    results["pca"] = Projection(4).fit(frames).components_
    return results


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
    torch.save(fit_all(torch.from_numpy(clusters(900)), 90), Path(folder) / f"{rank}.pt")
    store = ArrayStore.open(Path(folder) / "store")
    draw_frames(store, store.ids(), 3, 0, Path(folder) / "together.npy")
    try:
        GaussianMixture(1).fit(torch.zeros(1, 2))
    except InputError as error:
        (Path(folder) / f"{rank}.txt").write_text(str(error))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    store = ArrayStore(folder / "store", 10, 2)
    store.extend([f"clip{number}" for number in range(5)], torch.randn(5, 10, 2), [10, 7, 10, 1, 10])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, str(folder)), nprocs=2)
    return folder


def test_two_processes_fit_what_one_fits(folder: Path) -> None:
    alone = fit_all(torch.from_numpy(clusters(900)), 400)
    for rank in range(2):
        together = torch.load(folder / f"{rank}.pt", weights_only=True)
        assert together.keys() == alone.keys()
        for name, expected in alone.items():
            torch.testing.assert_close(together[name], expected, rtol=1e-5, atol=1e-5, msg=name)


def test_frames_are_drawn_together_as_alone(folder: Path) -> None:
    store = ArrayStore.open(folder / "store")
    alone = draw_frames(store, store.ids(), 3, 0, folder / "alone.npy")
    assert (np.load(folder / "together.npy") == alone).all()


def test_fewer_frames_than_processes_stop_all_of_them(folder: Path) -> None:
    for rank in range(2):
        assert "1 frames to fit on where at least 2" in (folder / f"{rank}.txt").read_text()


def test_prototypes_need_no_process_group() -> None:
    prototypes = PrototypeSet(KMeans(2, random_state=0), Projection(2)).fit(clusters(50))
    assert prototypes.means.shape == (2, 2)
