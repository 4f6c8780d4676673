"""Speed and memory of detection in long files, and how much the joints between windows show.

    python benchmarks/inference.py [--model NAME_OR_FOLDER ...] [--seconds 3600] [--batch 8] [--device cpu]

For each model, in a process of its own: seconds of audio per second, peak memory above the loaded model (MB, from the
kernel's high-water mark), and the mean and largest difference of raw scores between a recording and the same recording
moved by a quarter of a window. Windows overlap by half: moved by half a window, other windows with the same content
would give the same scores; moved by a quarter, every score comes from windows that were cut elsewhere.
Names are ``pmam``, ``pmam-windows`` (with its sliding windows), ``pmam-small``, ``sedt``, ``atst-sed`` and ``crnn``,
full size unless they say otherwise, with random weights, whose scores differ more than trained ones. Give a folder to
judge a trained model. The last column counts the scores of 0.3 s of audio.
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

from pmam_plugin.audio import read_audio
from pmam_plugin.checkpoints import load_model
from pmam_plugin.config import from_config
from pmam_plugin.encoders import Windows
from pmam_plugin.inference import SoundEventDetector
from pmam_plugin.postprocessing import PostProcessing, Scoring

LABELS = [f"class_{index}" for index in range(10)]


def main() -> None:
    """Print one row per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["crnn"])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--recording", help="file to judge the joints on, instead of noise")
    parser.add_argument("--rate", type=int, default=48_000, help="sample rate of the (stereo) file")
    arguments = parser.parse_args()
    threads = torch.get_num_threads()
    print(f"{arguments.seconds:g} s, batches of {arguments.batch}, {arguments.precision}, {threads} threads")
    heads = f"{'x real time':>11} {'peak MB':>8} {'seam mean':>10} {'seam max':>9} {'0.3 s':>6}"
    print(f"{'model':<12} {'parameters':>11} {heads}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        write_noise(path, arguments.seconds, arguments.rate)
        for name in arguments.model:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rest = (arguments.batch, arguments.device, arguments.precision, arguments.recording)
                row = pool.apply(measure, (name, path, *rest))
            print(
                f"{name:<12} {row['parameters']:>11,} {row['speed']:>11.1f} {row['peak']:>8.0f} "
                f"{row['seam_mean']:>10.2e} {row['seam_max']:>9.2e} {row['short']:>6}"
            )


def measure(name: str, path: Path, batch: int, device: str, precision: Any, recording: str | None) -> dict[str, float]:
    """Figures of one model."""
    if Path(name).is_dir():
        loaded = load_model(name)
        model, scoring = loaded.model, loaded.scoring
    else:
        model = build(name).eval()
        windows = Windows() if name.endswith("-windows") else None
        scoring = Scoring(PostProcessing(weak_mask="soft", median_seconds=0.36), windows)
    detector = SoundEventDetector(model, scoring, device, precision, batch)
    before = reset_peak()
    start = time.perf_counter()
    (result,) = detector.detect_each([path])
    seconds, peak = time.perf_counter() - start, peak_bytes() - before
    mean, largest = seam(detector, recording)
    short = detector.scores(noise(0.3, detector.sample_rate), detector.sample_rate)
    assert np.isfinite(short["offset"]).all()
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "speed": result.seconds / seconds,
        "peak": peak / 1e6,
        "seam_mean": mean,
        "seam_max": largest,
        "short": len(short),
    }


def seam(detector: SoundEventDetector, recording: str | None) -> tuple[float, float]:
    """Differences between a recording (or three clips of noise) and the same without its first quarter of a window."""
    frames = detector.grid().hop // 2
    wave = noise(3 * detector.model.clip_seconds, detector.sample_rate)
    if recording is not None:
        wave = read_audio(recording, detector.sample_rate).numpy()
    moved = wave[detector.grid().sample_of(frames) :]
    columns = list(detector.labels)
    whole = detector.scores(wave, detector.sample_rate, postprocess=False)[columns].to_numpy()[frames:]
    other = detector.scores(moved, detector.sample_rate, postprocess=False)[columns].to_numpy()
    inner = slice(2 * frames, min(len(whole), len(other)) - 2 * frames)  # what both hear twice
    difference = np.abs(whole[inner] - other[inner])
    return float(difference.mean()), float(difference.max())


def build(name: str) -> torch.nn.Module:
    """A model with random weights."""
    torch.manual_seed(0)
    dcase = {"channels": [16, 32, 64, 128, 128, 128, 128], "pooling": [[2, 2], [2, 2], *([[1, 2]] * 5)]}
    cnn = {"type": "CNNEncoder", "feature": "crnn", "feature_rate": 62.5, **dcase}
    crnn_mel, atst_mel = {"type": "CRNNMel"}, {"type": "ATSTMel"}
    recurrent = {"type": "RecurrentContext", "input_dim": 128, "hidden": 128, "layers": 2}
    attention_head = {"type": "AttentionHead", "dim": 256, "classes": 10}
    patches = {"type": "PatchEncoder", "dim": 144, "depth": 1, "mlp_ratio": 2.0, "context_frames": 6}
    attention = {"type": "RelativePositionTransformer", "dim": 144, "depth": 3, "heads": 4, "mlp_ratio": 2.0}
    passt = {
        "type": "DualBranchEncoder",
        "transformer": {"type": "PaSSTEncoder"},
        "cnn": {"type": "CNNEncoder"},
    }
    pmam_head = {"type": "LinearSoftmaxHead", "dim": 384, "classes": 10, "token_dim": 768}
    small_head = {"type": "LinearSoftmaxHead", "dim": 144, "classes": 10, "token_dim": 144, "tag_heads": 4}
    frame_models: dict[str, tuple[Any, ...]] = {
        "crnn": ({"crnn": crnn_mel}, cnn, recurrent, attention_head),
        "atst-sed": ({"crnn": crnn_mel, "atst": atst_mel}, {"type": "ATSTSEDEncoder"}, recurrent, attention_head),
        "pmam": ({"mel": {"type": "PaSSTMel"}}, passt, {"type": "RelativePositionTransformer"}, pmam_head),
        "pmam-small": ({"mel": {"type": "LogMel", "n_mels": 64}}, patches, attention, small_head),
    }
    if name == "sedt":
        network = {"type": "SetNetwork", "backbone": {"type": "SpectrogramResNet"}}
        frontend = {"type": "FrontEnds", "mel": {"type": "SEDTMel"}}
        return from_config({"type": "SEDT", "frontend": frontend, "network": network, "labels": LABELS})
    base = name.removesuffix("-windows")
    if base not in frame_models:
        raise SystemExit(f"{name}: neither a model folder nor one of {', '.join(frame_models)}, pmam-windows, sedt")
    frontend, encoder, context, head = frame_models[base]
    frontend = {"type": "FrontEnds", **frontend}
    backbone = {"type": "Backbone", "frontend": frontend, "encoder": encoder, "context": context}
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
