"""What grows with the corpus: start-up, memory of a process, the E-step and the order of an epoch.

    python benchmarks/scale.py [--clips 10000 100000 1000000] [--width 768] [--prototypes 30]

Manifests of that many clips (no audio: what a run knows of its clips does not depend on it) are written, loaded and
batched, each size in a process of its own. E-step: posteriors of stored embeddings, 99 columns a clip as PaSST has
them, by a full-covariance mixture; measured on 200 clips, since clips are labelled one by one. The last lines project
to AudioSet's two million clips. Networks are not part of it: see benchmarks/train_step.py and inference.py. Linux.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from pmam_plugin.data import ClipDataset, Event, Manifest, SubsetBatchSampler
from pmam_plugin.data.manifest import Clip
from pmam_plugin.prototypes import ArrayStore, GaussianMixture, PrototypeSet

AUDIOSET_CLIPS = 2_000_000
COLUMNS = 99


def megabytes() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def manifest(folder: Path, clips: int) -> Path:
    """One with a hundredth of strong clips' events, written as preparation writes it."""
    rows = (
        Clip(
            f"Y{number:011d}_30",
            folder / f"audio/{number % 1000:03d}/Y{number:011d}_30.flac",
            10.0,
            sample_rate=32000,
            size=400_000,
            content=f"{number:032x}",
            events=(Event(1.0, 2.5, "Dog"),) if number % 100 == 0 else None,
        )
        for number in range(clips)
    )
    Manifest("strong", tuple(rows)).save(folder / "strong.json", folder)
    return folder / "strong.json"


def load(path: Path) -> dict[str, float]:
    """Start from a manifest and order an epoch of batches of 24, as every process of a run does."""
    before, begin = megabytes(), time.process_time()
    dataset = ClipDataset({"strong": Manifest.load(path, path.parent)}, None, 32000)
    started = time.process_time() - begin
    begin = time.process_time()
    for _ in SubsetBatchSampler(dataset.indices, {"strong": 24}, 0):
        pass
    return {"start": started, "epoch": time.process_time() - begin, "memory": megabytes() - before}


def estep(folder: Path, width: int, prototypes: int, clips: int = 200) -> tuple[float, float]:
    """CPU seconds and bytes of one clip: embeddings read, posteriors computed, both stored."""
    torch.manual_seed(0)
    fitted = PrototypeSet(GaussianMixture(prototypes, max_iter=2, random_state=0)).fit(torch.randn(5000, width))
    names = [f"clip{number}" for number in range(clips)]
    embeddings = ArrayStore(folder / "embeddings", COLUMNS, width, "float16")
    posteriors = ArrayStore(folder / "posteriors", COLUMNS, prototypes, "uint8")
    for name in names:
        embeddings.extend([name], torch.randn(1, COLUMNS, width), [COLUMNS])
    begin = time.process_time()
    for name in names:
        posteriors.extend([name], [fitted.posteriors(embeddings[name], 1.0)])
    seconds = (time.process_time() - begin) / clips
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return seconds, size / clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--prototypes", type=int, default=30)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.load:
        print(json.dumps(load(options.load)))
        return
    print("clips      start-up s   us/clip   order of an epoch us/clip   memory MB   bytes/clip")
    last: dict[str, float] = {}
    for clips in options.clips:
        with tempfile.TemporaryDirectory() as name:
            path = manifest(Path(name), clips)
            command = [sys.executable, __file__, "--load", str(path)]
            last = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        start, epoch, memory = (last[key] / clips * 1e6 for key in ("start", "epoch", "memory"))
        print(f"{clips:<11}{last['start']:<13.2f}{start:<10.1f}{epoch:<28.2f}{last['memory']:<12.0f}{memory:.0f}")
    with tempfile.TemporaryDirectory() as name:
        seconds, size = estep(Path(name), options.width, options.prototypes)
    ratio = AUDIOSET_CLIPS / options.clips[-1]
    print(f"E-step: {seconds * 1e3:.2f} ms and {size:.0f} bytes on disk a clip, one thread")
    print(
        f"AudioSet, {AUDIOSET_CLIPS} clips, {options.width} dimensions, {options.prototypes} prototypes: start-up "
        f"{last['start'] * ratio / 60:.1f} min and {last['memory'] * ratio / 1e3:.1f} GB of memory in every process; "
        f"E-step {seconds * AUDIOSET_CLIPS / 3600:.1f} h of one core, shared by all processes, "
        f"and {size * AUDIOSET_CLIPS / 1e9:.0f} GB on disk"
    )


if __name__ == "__main__":
    main()
