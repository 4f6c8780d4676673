"""HEAR corpora made of tones, in the layouts that s3prl reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

RATE = 48000  # s3prl insists
TONES = {"low": 300.0, "middle": 1100.0, "high": 4000.0}


def event_corpus(root: Path, clips: dict[str, int], seconds: float = 4.0, seed: int = 0) -> Path:
    """HearDcase2016Task2's layout: ``clips`` recordings per split, two tones in each, none without an event.

    A recording without events would silently vanish from s3prl's tables, also from the test set.
    """
    generator = np.random.default_rng(seed)
    for split, number in clips.items():
        table = {}
        for clip in range(number):
            wave, events = 0.01 * generator.standard_normal(int(seconds * RATE)), []
            for half, label in enumerate(generator.choice(sorted(TONES), 2, replace=False)):
                start = half * seconds / 2 + generator.uniform(0.1, 0.4)
                end = start + generator.uniform(0.7, 1.2)
                add_tone(wave, TONES[label], start, end)
                events.append({"label": str(label), "start": 1000 * start, "end": 1000 * end})
            table[f"{split}{clip}.wav"] = events
            write(root / "48000" / split / f"{split}{clip}.wav", wave)
        (root / f"{split}.json").write_text(json.dumps(table))
    return root


def scene_corpus(root: Path, clips_per_fold: int = 3, seconds: float = 1.0, folds: int = 5) -> Path:
    """HearESC50's layout: one tone per recording, every class in every fold."""
    generator = np.random.default_rng(0)
    for fold in range(folds):
        table = {}
        for clip in range(clips_per_fold):
            label = sorted(TONES)[clip % len(TONES)]
            wave = 0.01 * generator.standard_normal(int(seconds * RATE))
            add_tone(wave, TONES[label], 0.1, seconds)
            table[f"{fold}-{clip}.wav"] = [label]
            write(root / "48000" / f"fold{fold:02d}" / f"{fold}-{clip}.wav", wave)
        (root / f"fold{fold:02d}.json").write_text(json.dumps(table))
    return root


def add_tone(wave: np.ndarray, hertz: float, start: float, end: float) -> None:
    first, last = int(start * RATE), int(end * RATE)
    wave[first:last] += 0.3 * np.sin(2 * np.pi * hertz * np.arange(len(wave[first:last])) / RATE)


def write(path: Path, wave: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE)
