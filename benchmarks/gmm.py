"""Gaussian mixtures: this package against scikit-learn on the same data, start and number of EM iterations.

    python benchmarks/gmm.py [--frames 50000 --dimensions 256 --components 30 --iterations 15 --threads 2]

The frames imitate embeddings of audio: states on a curved low-dimensional surface, more of them than components and
overlapping, mixed into all dimensions, with correlated noise of decaying spectrum. Prints one row per contender: CPU
time, speed relative to scikit-learn, exact log-likelihood per frame at the end and its relative difference, and the
peak memory that the fit takes beyond the data; then the time that the fit's products alone would take at the rate at
which the machine multiplies float32 matrices.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import platform
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=50_000)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--components", type=int, default=30)
    parser.add_argument("--iterations", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--repeats", type=int, default=2, help="fits of this package; the slower of two, the median of more"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--double", action="store_true", help="let scikit-learn also run in float64")
    parser.add_argument("--without-sklearn", action="store_true", help="only this package (for profiling)")
    return parser.parse_args()


def embeddings(frames: int, dimensions: int, seed: int) -> np.ndarray:
    """Frames like those of an audio encoder, float32 ``(frames, dimensions)``."""
    random = np.random.default_rng(seed)
    states, latent = 80, 12
    centres = random.normal(size=(states, latent))
    shapes = random.normal(size=(states, latent, latent)) * 0.35
    state = random.choice(states, size=frames, p=random.dirichlet(np.full(states, 2.0)))
    hidden = centres[state] + np.einsum("nij,nj->ni", shapes[state], random.normal(size=(frames, latent)))
    hidden = np.tanh(hidden @ random.normal(size=(latent, 4 * latent)) / np.sqrt(latent))
    surface = 0.3 * hidden @ random.normal(size=(4 * latent, dimensions)) / np.sqrt(4 * latent)
    rotation, _ = np.linalg.qr(random.normal(size=(dimensions, dimensions)))
    spectrum = 1.2 / np.sqrt(1.0 + np.arange(dimensions) / 8.0)
    noise = (random.normal(size=(frames, dimensions)) * spectrum) @ rotation
    loudness = 1.0 + 0.1 * np.abs(hidden[:, :1])
    return (surface + loudness * noise + random.normal(size=dimensions)).astype(np.float32)


def common_start(data: np.ndarray, components: int, seed: int) -> dict[str, Any]:
    """Weights, means and precisions of a short k-means on a sample: where both contenders begin."""
    from sklearn.cluster import KMeans

    sample = data[np.random.default_rng(seed).permutation(len(data))[: 256 * components]].astype(np.float64)
    clusters = KMeans(components, n_init=1, max_iter=5, random_state=seed).fit(sample)
    labels = clusters.labels_
    pooled = np.cov((sample - clusters.cluster_centers_[labels]).T)
    counts = np.bincount(labels, minlength=components)
    precision = np.linalg.inv(pooled + 1e-3 * np.eye(len(pooled)))
    return {
        "weights_init": counts / counts.sum(),
        "means_init": clusters.cluster_centers_,
        "precisions_init": np.repeat(precision[None], components, axis=0),
    }


@dataclass
class Result:
    """One contender."""

    name: str
    seconds: float
    likelihood: float
    extra_bytes: float


def peak_while(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, CPU seconds of all threads (a busy machine changes them little), and how far the process's memory rose.

    The memory is what the process allocated and touched (resident minus file-backed pages), sampled every 5 ms: pages
    of libraries come and go as the system likes.
    """
    gc.collect()
    if platform.system() == "Linux":
        ctypes.CDLL(None).malloc_trim(0)
    before = own_memory()
    peak = before
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        start = time.process_time()
        result = run()
        seconds = time.process_time() - start
    finally:
        done.set()
        watcher.join()
    return result, seconds, peak - before


def own_memory() -> float:
    """Resident memory of this process that no file backs, in bytes; NaN elsewhere than on Linux."""
    if platform.system() != "Linux":
        return float("nan")
    _, resident, shared = Path("/proc/self/statm").read_text().split()[:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def run_sklearn(options: argparse.Namespace, data: np.ndarray, start: dict[str, Any]) -> Result:
    from sklearn.mixture import GaussianMixture

    start = {name: value.astype(data.dtype) for name, value in start.items()}
    model = GaussianMixture(options.components, max_iter=options.iterations, tol=0.0, **start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, seconds, extra = peak_while(lambda: model.fit(data))
    likelihood = float(np.mean([model.score(part) for part in np.array_split(data.astype(np.float64), 10)]))
    return Result(f"scikit-learn {data.dtype}", seconds, likelihood, extra)


def run_ours(options: argparse.Namespace, data: np.ndarray, start: dict[str, Any]) -> tuple[Result, Any]:
    import torch

    from pmam_plugin.prototypes import GaussianMixture

    # The Cholesky factor of a matrix turned round, turned back, is the upper triangular one.
    factors = np.linalg.cholesky(start["precisions_init"][:, ::-1, ::-1])[:, ::-1, ::-1]
    values = (start["weights_init"], start["means_init"], factors)
    begin = GaussianMixture(options.components)
    begin.restore(*(torch.from_numpy(value.astype(np.float32)) for value in values))
    model = GaussianMixture(options.components, max_iter=options.iterations, tol=0.0)
    _, seconds, extra = peak_while(lambda: model.fit(data, begin))
    assert len(model.history_) == options.iterations
    return Result("pmam_plugin", seconds, model.score(data), extra), model


def limit(options: argparse.Namespace, model: Any, data: np.ndarray) -> str:
    """What the products of the fit take at the machine's own rate.

    An E-step whitens every frame with every component's triangular matrix, ``D (D + 1) / 2`` multiplications and
    additions; an M-step sums half of ``x x^T`` for every frame and each component that it belongs to.
    """
    import torch

    left = torch.randn(2048, 2048)
    seconds = []
    for _ in range(8):
        begin = time.process_time()
        left @ left
        seconds.append(time.process_time() - begin)
    rate = 2 * 2048**3 / sorted(seconds)[len(seconds) // 2]
    triangle = options.dimensions * (options.dimensions + 1)  # two operations for each of its elements
    owners = float((model.predict_proba(data) > 1e-7).sum()) / len(data)
    operations = options.iterations * options.frames * triangle * (options.components + owners)
    return (
        f"{operations / 1e9:.0f} GFLOP at {rate / 1e9:.1f} GFLOP/s (float32 product of 2048): {operations / rate:.2f} s"
    )


def middle(runs: list[Result]) -> Result:
    """The run of median time, with the largest memory of all."""
    ranked = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
    return replace(ranked, extra_bytes=max(run.extra_bytes for run in runs))


def describe(model: Any, data: np.ndarray) -> str:
    """How the fit went and how far the clusters overlap in the end."""
    posterior = model.predict_proba(data).double().numpy()
    entropy = -(posterior * np.log(np.maximum(posterior, 1e-30))).sum(axis=1).mean()
    live = (posterior > 1e-6).sum(axis=1).mean()
    steps = " ".join(f"{objective:.3f}" for objective in model.history_)
    return (
        f"log-likelihood by iteration: {steps}\nin the end: mean posterior entropy {entropy:.4f} nats, "
        f"{live:.2f} components above 1e-6 per frame"
    )


def main() -> None:
    options = arguments()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(options.threads)
    data = embeddings(options.frames, options.dimensions, options.seed)
    start = common_start(data, options.components, options.seed)
    print(
        f"{options.frames} frames, {options.dimensions} dimensions, {options.components} components, full covariance,\n"
        f"{options.iterations} EM iterations, {options.threads} threads, data {data.nbytes / 1e6:.0f} MB (float32)"
    )
    with threadpool_limits(options.threads):
        run_ours(options, data[: 100 * options.components], start)  # loads the libraries
        runs, rows = [], []
        for repeat in range(options.repeats):
            result, model = run_ours(options, data, start)
            runs.append(result)
            if repeat == 0:
                print(describe(model, data), flush=True)
                if not options.without_sklearn:
                    rows.append(run_sklearn(options, data, start))
        if options.double:
            rows.append(run_sklearn(options, data.astype(np.float64), start))
        print_table(rows, [middle(runs)], data.nbytes)
        print(f"the products alone: {limit(options, model, data)}")


def print_table(baselines: list[Result], ours: list[Result], data_bytes: int) -> None:
    """Ratios to the first baseline (to the first contender where there is none)."""
    reference = (baselines + ours)[0]
    print(f"\n{'':28}{'seconds':>9}{'speed':>9}{'log-lik.':>12}{'relative':>12}{'extra MB':>10}{'/ data':>8}")
    for row in baselines + ours:
        difference = abs(row.likelihood - reference.likelihood) / abs(reference.likelihood)
        print(
            f"{row.name:28}{row.seconds:9.2f}{reference.seconds / row.seconds:8.1f}x{row.likelihood:12.4f}"
            f"{difference:12.1e}{row.extra_bytes / 1e6:10.1f}{row.extra_bytes / data_bytes:8.2f}"
        )


if __name__ == "__main__":
    main()
