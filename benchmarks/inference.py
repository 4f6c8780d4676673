"""Speed and memory of detection in long files, and how much the joints between windows show.

    python benchmarks/inference.py [--model crnn atst-sed pmam | FOLDER] [--seconds 3600] [--batch 8] [--device cpu]

For each model, in a process of its own: seconds of audio per second, peak memory above the loaded model (MB, from the
kernel's high-water mark), and the mean and largest difference of scores between a file and the same file moved by half
a window (where both are heard by the same windows nothing differs; elsewhere each score comes from other windows).
Built-in models have random weights, whose scores differ more than trained ones; give a folder to judge a trained model.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from pmam_plugin.checkpoints import load_model
from pmam_plugin.config import from_config
from pmam_plugin.inference import SoundEventDetector

LABELS = [f"class_{index}" for index in range(10)]


def main() -> None:
    """Print one row per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["crnn"])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--rate", type=int, default=48_000, help="sample rate of the (stereo) file")
    arguments = parser.parse_args()
    print(f"{'model':<12} {'parameters':>11} {'x real time':>11} {'peak MB':>8} {'seam mean':>10} {'seam max':>9}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        write_noise(path, arguments.seconds, arguments.rate)
        for name in arguments.model:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = pool.apply(measure, (name, path, arguments.batch, arguments.device, arguments.precision))
            print(
                f"{name:<12} {row['parameters']:>11,} {row['speed']:>11.1f} {row['peak']:>8.0f} "
                f"{row['seam_mean']:>10.2e} {row['seam_max']:>9.2e}"
            )


def measure(name: str, path: Path, batch: int, device: str, precision: Any) -> dict[str, float]:
    """Figures of one model."""
    model: Any = load_model(name).model if Path(name).is_dir() else build(name)
    detector = SoundEventDetector(model, device=device, precision=precision, batch_size=batch)
    before = reset_peak()
    start = time.perf_counter()
    table = detector.scores(path, postprocess=False)
    seconds, peak = time.perf_counter() - start, peak_bytes() - before
    mean, largest = seam(detector)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "speed": float(table["offset"].iloc[-1]) / seconds,
        "peak": peak / 1e6,
        "seam_mean": mean,
        "seam_max": largest,
    }


def seam(detector: SoundEventDetector) -> tuple[float, float]:
    """Differences between three clips of noise and the same noise without its first half window."""
    clip = detector.model.clip_seconds
    frames = detector.grid().hop // 2
    wave = noise(3 * clip, detector.sample_rate)
    moved = wave[detector.grid().sample_of(frames) :]
    columns = list(detector.labels)
    whole = detector.scores(wave, detector.sample_rate, postprocess=False)[columns].to_numpy()[frames:]
    other = detector.scores(moved, detector.sample_rate, postprocess=False)[columns].to_numpy()
    inner = slice(2 * frames, min(len(whole), len(other)) - 2 * frames)  # what both hear twice
    difference = np.abs(whole[inner] - other[inner])
    return float(difference.mean()), float(difference.max())


def build(name: str) -> torch.nn.Module:
    """A full-size model with random weights."""
    torch.manual_seed(0)
    dcase = {"channels": [16, 32, 64, 128, 128, 128, 128], "pooling": [[2, 2], [2, 2], *([[1, 2]] * 5)]}
    cnn = {"type": "CNNEncoder", "feature": "crnn", "feature_rate": 62.5, **dcase}
    recurrent = {"type": "RecurrentContext", "input_dim": 128, "hidden": 128, "layers": 2}
    attention_head = {"type": "AttentionHead", "dim": 256, "classes": 10}
    crnn_mel, atst_mel = {"type": "CRNNMel"}, {"type": "ATSTMel"}
    backbones: dict[str, dict[str, Any]] = {
        "crnn": {"frontend": {"crnn": crnn_mel}, "encoder": cnn, "context": recurrent},
        "atst-sed": {
            "frontend": {"crnn": crnn_mel, "atst": atst_mel},
            "encoder": {"type": "ATSTSEDEncoder"},
            "context": recurrent,
        },
        "pmam": {
            "frontend": {"mel": {"type": "PaSSTMel"}},
            "encoder": {
                "type": "DualBranchEncoder",
                "transformer": {"type": "PaSSTEncoder"},
                "cnn": {"type": "CNNEncoder"},
            },
            "context": {"type": "RelativePositionTransformer"},
        },
    }
    if name not in backbones:
        raise SystemExit(f"{name}: neither a model folder nor one of {', '.join(backbones)}")
    backbone = {**backbones[name], "type": "Backbone"}
    backbone["frontend"] = {**backbone["frontend"], "type": "FrontEnds"}
    head = attention_head
    if name == "pmam":
        head = {"type": "LinearSoftmaxHead", "dim": 384, "classes": 10, "token_dim": 768}
    return from_config({"type": "FrameDetector", "backbone": backbone, "head": head, "labels": LABELS})


def noise(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """Noise whose loudness changes every half second."""
    generator = np.random.default_rng(seed)
    time_axis = np.arange(round(seconds * rate)) / rate
    points = np.arange(0, seconds + 1, 0.5)
    return (
        np.interp(time_axis, points, 0.3 * generator.random(len(points))) * generator.standard_normal(len(time_axis))
    ).astype(np.float32)


def write_noise(path: Path, seconds: float, rate: int) -> None:
    """A stereo file, written ten seconds at a time."""
    with soundfile.SoundFile(path, "w", rate, 2) as file:
        for start in np.arange(0, seconds, 10.0):
            block = noise(min(10.0, seconds - start), rate, seed=int(start))
            file.write(np.stack((block, block[::-1]), axis=1))


def reset_peak() -> int:
    """Forget the process's memory peak; returns what it holds now, bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_bytes() -> int:
    """Largest memory of the process since :func:`reset_peak`, bytes."""
    return _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


if __name__ == "__main__":
    main()
