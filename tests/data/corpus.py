"""Tiny corpora in DESED's layout, made on the spot."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from pmam_plugin.data import Prepared, prepare

EVENTS = "filename\tonset\toffset\tevent_label\n"
WEAK = "filename\tevent_labels\n"


def noise(path: Path, seconds: float = 1.0, rate: int = 8000, channels: int = 1, seed: int = 0) -> Path:
    """A noise recording; the suffix gives the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).normal(0, 0.1, (round(seconds * rate), channels))
    soundfile.write(path, samples.clip(-1, 1), rate)
    return path


def table(path: Path, header: str, rows: Iterable[Iterable[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + "".join("\t".join(map(str, row)) + "\n" for row in rows))
    return path


def tiny_corpus(root: Path, strong: int = 10, weak: int = 4, unlabelled: int = 5, test: int = 3) -> Path:
    """Clips of 1 s at 8 kHz; strong clip ``n`` holds class ``n % 2``, the last one holds none."""
    names = ("Cat", "Dog")
    events: list[tuple[object, ...]] = []
    for number in range(strong):
        noise(root / f"audio/train/strong_label_real/s{number}.wav", seed=number)
        empty = number == strong - 1
        events.append((f"s{number}.wav", "", "", "") if empty else (f"s{number}.wav", 0.25, 0.75, names[number % 2]))
    table(root / "metadata/train/audioset_strong.tsv", EVENTS, events)
    for number in range(weak):
        noise(root / f"audio/train/weak/w{number}.wav", seed=100 + number)
    table(root / "metadata/train/weak.tsv", WEAK, [(f"w{number}.wav", "Cat,Dog") for number in range(weak)])
    for number in range(unlabelled):
        noise(root / f"audio/train/unlabel_in_domain/u{number}.wav", seed=200 + number)
    rows = []
    for number in range(test):
        noise(root / f"audio/validation/validation/v{number}.wav", seconds=0.8, seed=300 + number)
        rows.append((f"v{number}.wav", 0.1, 0.5, names[number % 2]))
    table(root / "metadata/validation/validation.tsv", EVENTS, rows)
    return root


def prepare_tiny(corpus: Path, save: Path, **options) -> Prepared:
    return prepare(corpus, save, clip_seconds=1.0, **options)
