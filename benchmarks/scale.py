"""What grows with the corpus: preparation, start-up, memory of a process, an epoch's order, the E-step.

    python benchmarks/scale.py [--clips 10000 100000 1000000] [--shards 1000 10000 100000] [--width 768]
        [--prototypes 30] [--no_networks]

Shards of so many recordings of a tenth of a second, a thousand in each, are prepared as a run prepares them: seen for
the first time (headers only), then again in a process of its own; 200 clips are read at random.

Manifests of so many clips, which share a hundred tiny recordings, and the index of an E-step's posteriors are written
as preparation and E-step write them. Then a process of its own starts from them as every process of a run does:
prepared data opened, data set made, posteriors' index read, an epoch of batches of 24 ordered, 200 clips read.
Memory is what the process has for itself (RssAnon); what it maps is the kernel's to share and to drop.

E-step: posteriors of stored embeddings, 99 columns a clip as PaSST has them, by a full-covariance mixture, and PMAM's
full-size networks (forward for embeddings; a masked pre-training step), each measured on a few clips, since clips are
treated one by one. The last lines project to AudioSet's two million clips. One thread. Linux.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from train_step import arguments, backbone, training_step

from pmam_plugin.data import (
    TRAINING_SUBSETS,
    ClipDataset,
    Event,
    Manifest,
    SubsetBatchSampler,
    load_prepared,
    prepare,
)
from pmam_plugin.data.manifest import Clip
from pmam_plugin.files import write_json
from pmam_plugin.prototypes import ArrayStore, GaussianMixture, PrototypeSet

AUDIOSET_CLIPS = 2_000_000
COLUMNS = 99
RATE = 16_000


def megabytes() -> float:
    """Memory of this process that no file stands behind."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def write(folder: Path, clips: int) -> None:
    """A manifest with a hundredth of strong clips' events, and the index of a store that has a row for every clip."""
    (folder / "audio").mkdir()
    for number in range(100):
        noise = np.random.default_rng(number).normal(0, 0.1, RATE)
        soundfile.write(folder / f"audio/{number}.flac", noise, RATE)
    names = [f"Y{number:011d}_30" for number in range(clips)]
    rows = (
        Clip(
            name,
            folder / f"audio/{number % 100}.flac",
            1.0,
            sample_rate=RATE,
            size=400_000,
            content=f"{number:032x}",
            events=(Event(0.1, 0.5, "Dog"),) if number % 100 == 0 else None,
        )
        for number, name in enumerate(names)
    )
    Manifest("unlabelled", list(rows)).save(folder / "unlabelled.json", folder)
    report = {"subsets": {"unlabelled": {"sample_rates": {RATE: clips}}}}
    state = {"subsets": ["unlabelled"], "clip_seconds": 1.0, "report": report, "fingerprint": ""}
    write_json(folder / "labels.json", ["Dog"])
    write_json(folder / "prepared.json", state)
    digest = load_prepared(folder, folder).digest("unlabelled")
    write_json(folder / "prepared.json", state | {"digests": {"unlabelled": digest}})
    ArrayStore(folder / "posteriors", COLUMNS, 30, "uint8")
    with open(folder / "posteriors" / "index.tsv", "w") as index:
        for number, name in enumerate(names):
            checksum = zlib.crc32(f"{number}\t{COLUMNS}\t{name}".encode())
            index.write(f"{number}\t{COLUMNS}\t{checksum:08x}\t{name}\n")


def start(folder: Path) -> dict[str, float]:
    """What a process of a run does before its first update, CPU seconds and megabytes."""
    before, begin = megabytes(), time.process_time()
    data = load_prepared(folder, folder)
    data.digest("unlabelled")
    dataset = ClipDataset(data.manifests, None, RATE, 1.0)
    store = ArrayStore.open(folder / "posteriors")
    started = time.process_time() - begin
    begin = time.process_time()
    for _ in SubsetBatchSampler(dataset.indices, {"unlabelled": 24}, 0):
        pass
    ordered = time.process_time() - begin
    begin = time.process_time()
    chosen = random.Random(0).sample(range(len(dataset)), 200)
    if any(store.length(dataset[index].id) != COLUMNS for index in chosen):
        raise RuntimeError("a row of the store is another clip's")
    read = (time.process_time() - begin) / len(chosen)
    return {"start": started, "order": ordered, "read": read, "memory": megabytes() - before}


def write_shards(folder: Path, clips: int, each: int = 1000) -> None:
    """So many recordings in tar files of a thousand; each the same tenth of a second of noise."""
    encoded = io.BytesIO()
    soundfile.write(encoded, np.random.default_rng(0).normal(0, 0.1, RATE // 10), RATE, format="FLAC")
    for begin in range(0, clips, each):
        with tarfile.open(folder / f"shard-{begin // each:06d}.tar", "w") as tar:
            for number in range(begin, min(begin + each, clips)):
                entry = tarfile.TarInfo(f"{number:09d}.flac")
                entry.size = encoded.getbuffer().nbytes
                encoded.seek(0)
                tar.addfile(entry, encoded)
    settled = time.time() - 60
    for path in (*folder.iterdir(), folder):
        os.utime(path, (settled, settled))


def start_shards(folder: Path) -> dict[str, float]:
    """What preparing shards takes, CPU seconds and megabytes."""
    before, begin = megabytes(), time.process_time()
    data = prepare(folder / "shards", folder / "out", selection="none", test="none", check="header")
    data.digest(*TRAINING_SUBSETS, "selection")
    dataset = ClipDataset(data.manifests, None, RATE, 0.1)
    prepared = time.process_time() - begin
    begin = time.process_time()
    for index in random.Random(0).sample(range(len(dataset)), 200):
        dataset[index]
    read = (time.process_time() - begin) / 200
    return {"prepare": prepared, "read": read, "memory": megabytes() - before}


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


def networks() -> tuple[float, float]:
    """CPU seconds of a 10 s clip in PMAM's networks, float32: its embeddings, and its share of a masked step."""
    options = arguments(["--batch", "2", "--threads", "1"])
    model = backbone(tiny=False).eval()
    features = model.frontend(torch.randn(2, round(options.seconds * model.sample_rate)))
    with torch.inference_mode():
        embedding = _fastest(lambda: model.columns(features, "stream"))
    step = training_step(options, torch.device("cpu"))
    return embedding / 2, _fastest(lambda: step(torch.float32)) / 2


def _process(*arguments: str) -> dict[str, float]:
    """What a process of its own measures."""
    command = [sys.executable, __file__, *arguments]
    measured: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return measured


def _fastest(action: Callable[[], Any], times: int = 2) -> float:
    seconds = []
    for _ in range(times):
        begin = time.process_time()
        action()
        seconds.append(time.process_time() - begin)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--shards", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--prototypes", type=int, default=30)
    parser.add_argument("--no_networks", action="store_true", help="leave out PMAM's full-size networks")
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--start_shards", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.start:
        print(json.dumps(start(options.start)))
        return
    if options.start_shards:
        print(json.dumps(start_shards(options.start_shards)))
        return
    print("in shards  first ms/clip   memory MB   again s   memory MB   read ms/clip")
    for clips in options.shards:
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "shards").mkdir()
            write_shards(Path(name) / "shards", clips)
            first, again = (_process("--start_shards", name) for _ in range(2))
        print(
            f"{clips:<11}{first['prepare'] / clips * 1e3:<16.2f}{first['memory']:<12.1f}{again['prepare']:<10.2f}"
            f"{again['memory']:<12.1f}{again['read'] * 1e3:.2f}"
        )
    print("clips      written us/clip   start-up s   us/clip   order us/clip   read ms/clip   memory MB")
    last: dict[str, float] = {}
    growth, earlier = 0.0, 0
    for clips in options.clips:
        before = last
        with tempfile.TemporaryDirectory() as name:
            begin = time.process_time()
            write(Path(name), clips)
            written = (time.process_time() - begin) / clips * 1e6
            last = _process("--start", name)
        growth = (last["memory"] - before["memory"]) / (clips - earlier) if before else 0.0
        earlier = clips
        each, order = (last[key] / clips * 1e6 for key in ("start", "order"))
        print(
            f"{clips:<11}{written:<18.1f}{last['start']:<13.2f}{each:<10.1f}{order:<16.2f}"
            f"{last['read'] * 1e3:<15.2f}{last['memory']:.1f}"
        )
    with tempfile.TemporaryDirectory() as name:
        posteriors, size = estep(Path(name), options.width, options.prototypes)
    print(f"E-step: {posteriors * 1e3:.1f} ms for the posteriors of a clip and {size:.0f} bytes on disk")
    more, hours = AUDIOSET_CLIPS - options.clips[-1], AUDIOSET_CLIPS / 3600
    print(
        f"AudioSet, {AUDIOSET_CLIPS} clips, {options.width} dimensions, {options.prototypes} prototypes: start-up "
        f"{last['start'] * AUDIOSET_CLIPS / options.clips[-1]:.0f} s and {last['memory'] + growth * more:.0f} MB in "
        f"every process; shared by all processes: {size * AUDIOSET_CLIPS / 1e9:.0f} GB on disk, "
        f"{posteriors * hours:.1f} core hours for posteriors"
    )
    if not options.no_networks:
        embedding, step = networks()
        print(
            f"networks, one core, float32: {embedding:.2f} s a clip for embeddings and {step:.2f} s in a masked step; "
            f"{embedding * hours:.0f} core hours an E-step and {step * hours:.0f} an epoch over all clips"
        )


if __name__ == "__main__":
    main()
