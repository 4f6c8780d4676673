"""Two processes, each with its own part of the frames, end with the estimators that one process finds."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes import GaussianMixture, KMeans, PrincipalComponents, PrototypeSet
from tests.prototypes.clusters import clusters

TYPES = ("full", "tied", "diag", "spherical")


def fit_all(frames: torch.Tensor, batch_frames: int) -> dict[str, torch.Tensor]:
    results: dict[str, torch.Tensor] = {}
    for covariance_type in TYPES:
        for full_every in (1, 3):
            model = GaussianMixture(
                4,
                covariance_type=covariance_type,
                random_state=3,
                max_iter=6,
                tol=0.0,
                batch_frames=batch_frames,
                full_every=full_every,
            ).fit(frames)
            results |= {
                f"{covariance_type}{full_every}.weights": model.weights_,
                f"{covariance_type}{full_every}.means": model.means_,
                f"{covariance_type}{full_every}.covariances": model.covariances_,
                f"{covariance_type}{full_every}.bound": torch.tensor(model.lower_bound_),
            }
    results["kmeans"] = KMeans(5, random_state=1, batch_frames=batch_frames).fit(frames).cluster_centers_
    results["pca"] = PrincipalComponents(4, batch_frames=batch_frames).fit(frames).components_
    return results


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
    frames = torch.from_numpy(clusters(900))
    own = frames[:250] if rank == 0 else frames[250:]
    torch.save(fit_all(own, 90), Path(folder) / f"{rank}.pt")
    try:
        GaussianMixture(2).fit(own if rank == 0 else own[:0])
    except InputError as error:
        (Path(folder) / f"{rank}.txt").write_text(str(error))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
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


def test_a_process_without_frames_stops_all_of_them(folder: Path) -> None:
    for rank in range(2):
        assert "no frames to fit on in process 1" in (folder / f"{rank}.txt").read_text()


def test_prototypes_need_no_process_group() -> None:
    prototypes = PrototypeSet(KMeans(2, random_state=0), PrincipalComponents(2)).fit(clusters(50))
    assert prototypes.means.shape == (2, 2)
