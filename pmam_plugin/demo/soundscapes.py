"""The built-in corpus: synthetic sounds mixed into soundscapes with exact labels, in DESED's layout.

It is what a first run trains on where no recordings are at hand. Each clip depends on nothing but the seed, its subset
and its number, so training and validation clips share no draw, and an interrupted build continues where it stopped.
"""

from __future__ import annotations

import logging
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pmam_plugin.audio import write_wav
from pmam_plugin.data.manifest import Event
from pmam_plugin.demo.backgrounds import background, distraction
from pmam_plugin.demo.sounds import SOUNDS
from pmam_plugin.demo.synthesis import Array, Random, between, equaliser, faded, filtered, in_room, rms
from pmam_plugin.errors import InputError, Progress
from pmam_plugin.files import read_json, write_json, write_text
from pmam_plugin.tables.events import EVENT_COLUMNS, write_events, write_weak

logger = logging.getLogger(__name__)

# Raise when the same seed gives other sounds than before.
_VERSION = 1
_PEAK = 0.9
# An event is what lies above this level, relative to its loudest 10 ms; the rest is cut off, so that labels are exact.
_AUDIBLE_DECIBELS = -30.0
_LEAST_SECONDS, _LEAST_GAP_SECONDS = 0.1, 0.3


@dataclass(frozen=True)
class Counts:
    """Clips per subset of a corpus."""

    strong: int = 120
    weak: int = 150
    unlabelled: int = 300
    selection: int = 60
    validation: int = 100


@dataclass(frozen=True)
class _Place:
    audio: str
    table: str | None = None
    durations: str | None = None


_PLACES = {
    "strong": _Place("train/strong_label_real", "train/audioset_strong.tsv"),
    "weak": _Place("train/weak", "train/weak.tsv"),
    "unlabelled": _Place("train/unlabel_in_domain"),
    "selection": _Place(
        "validation/synthetic21_validation/soundscapes",
        "validation/synthetic21_validation/soundscapes.tsv",
        "validation/synthetic21_validation/durations.tsv",
    ),
    "validation": _Place("validation/validation", "validation/validation.tsv", "validation/validation_durations.tsv"),
}


def soundscape(rng: Random, seconds: float = 10.0, sample_rate: int = 16000) -> tuple[Array, tuple[Event, ...]]:
    """One soundscape: up to three classes, overlapping, 3 dB below to 15 dB above their background.

    Returns:
        Waveform ``(samples,)`` float32 and its events in order of onset. An event covers all samples that were added
        for it and no others; events of one class do not touch.
    """
    samples = round(seconds * sample_rate)
    mixture = background(rng, samples, sample_rate)
    events: list[Event] = []
    for _ in range(int(rng.choice(3, p=(0.5, 0.35, 0.15)))):
        _add(rng, mixture, in_room(rng, distraction(rng, sample_rate), sample_rate, 4.0), sample_rate, [])
    labels = sorted(SOUNDS)
    count = int(rng.choice(4, p=(0.04, 0.34, 0.38, 0.24)))
    for label in rng.choice(labels, count, replace=False):
        sound = SOUNDS[str(label)]
        of_class: list[tuple[float, float]] = []
        for _ in range(int(rng.integers(1, sound.repeats + 1))):
            dry = sound.make(rng, between(rng, *sound.seconds), sample_rate)
            heard = _audible(in_room(rng, dry, sample_rate, 6.0), sample_rate)
            span = _add(rng, mixture, heard, sample_rate, of_class)
            if span is not None:
                of_class.append(span)
        events += [Event(onset, offset, str(label)) for onset, offset in of_class]
    # The microphone: its own colour, and a level that says nothing.
    mixture = filtered(mixture, equaliser(rng, sample_rate, 4.0))
    mixture *= 10 ** (between(rng, -32, -18) / 20) / rms(mixture)
    mixture *= min(1.0, _PEAK / float(np.abs(mixture).max()))
    return mixture, tuple(sorted(events))


def build_corpus(
    folder: str | PathLike[str],
    counts: Counts | None = None,
    seed: int = 0,
    seconds: float = 10.0,
    sample_rate: int = 16000,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write a corpus of soundscapes in DESED's layout; what is there already is kept.

    Args:
        folder: new, empty, or of an earlier build with the same settings.
        counts: clips per subset; ``selection`` becomes the synthetic validation set.
        seed: of everything.
        seconds, sample_rate: of a clip, s and Hz.
        progress: is told of every finished clip.

    Returns:
        How many clips were written, and how many were there already: ``{"written": ..., "kept": ...}``.

    Raises:
        InputError: ``folder`` holds something else or cannot be written, or the settings make no corpus.
    """
    root, sizes = Path(folder), asdict(counts or Counts())
    if min(sizes.values()) < 0 or not any(sizes.values()) or seconds < 1 or sample_rate < 8000:
        raise InputError(
            f"{sizes} clips of {seconds:g} s at {sample_rate} Hz make no corpus; "
            "ask for at least one clip of at least 1 s at 8000 Hz or more"
        )
    settings = {"version": _VERSION, "seed": seed, "seconds": seconds, "sample_rate": sample_rate, "clips": sizes}
    if _claim(root, settings):
        return {"written": 0, "kept": sum(sizes.values())}
    done = {"written": 0, "kept": 0}
    for subset, size in sizes.items():
        annotations: dict[str, list[list[Any]]] = {}
        for number in range(size):
            name, events, new = _clip(root, subset, number, settings)
            annotations[name] = events
            done["written" if new else "kept"] += 1
            if progress is not None:
                progress("soundscapes", sum(done.values()), sum(sizes.values()))
        _write_tables(root / "metadata", subset, annotations, seconds)
    write_json(root / "corpus.json", {**settings, "complete": True})
    shutil.rmtree(root / ".labels", ignore_errors=True)
    return done


def _claim(root: Path, settings: Mapping[str, Any]) -> bool:
    """Make sure that the folder is ours to write in; true if the corpus is there already, whole."""
    state = root / "corpus.json"
    if state.exists():
        found = read_json(state)
        if {key: value for key, value in found.items() if key != "complete"} != settings:
            raise InputError(f"{root}: holds a corpus of other settings; remove the folder or choose another one")
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root}: is not empty and holds no built-in corpus; choose another folder")
    else:
        write_json(state, settings)
        return False
    return bool(found.get("complete")) and all(path.exists() for path in _files(root, settings["clips"]))


def _files(root: Path, sizes: Mapping[str, int]) -> list[Path]:
    """All audio files and tables of a corpus."""
    audio = [_audio(root, subset, number) for subset, size in sizes.items() for number in range(size)]
    used = [_PLACES[subset] for subset, size in sizes.items() if size]
    return audio + [root / "metadata" / table for place in used for table in (place.table, place.durations) if table]


def _audio(root: Path, subset: str, number: int) -> Path:
    return root / "audio" / _PLACES[subset].audio / f"{subset}_{number:05d}.wav"


def _clip(root: Path, subset: str, number: int, settings: Mapping[str, Any]) -> tuple[str, list[list[Any]], bool]:
    """Write one clip unless it is there; its labels are kept beside the corpus, since they follow from the sound."""
    audio, labels = _audio(root, subset, number), root / ".labels" / subset / f"{number:05d}.json"
    if audio.exists() and labels.exists():
        return audio.name, read_json(labels), False
    rng = np.random.default_rng([settings["seed"], zlib.crc32(subset.encode()), number])
    wave, events = soundscape(rng, settings["seconds"], settings["sample_rate"])
    write_wav(audio, wave, settings["sample_rate"])
    rows = [[round(event.onset, 3), round(event.offset, 3), event.label] for event in events]
    write_json(labels, rows)
    return audio.name, rows, True


def _write_tables(metadata: Path, subset: str, annotations: Mapping[str, list[list[Any]]], seconds: float) -> None:
    place = _PLACES[subset]
    if place.table is None or not annotations:
        return
    if subset == "weak":
        write_weak(
            metadata / place.table, {name: sorted({row[2] for row in events}) for name, events in annotations.items()}
        )
    else:
        rows = [[name, *row] for name, events in annotations.items() for row in events or [[None, None, None]]]
        write_events(metadata / place.table, pd.DataFrame(rows, columns=EVENT_COLUMNS))
    if place.durations is not None:
        lines = [f"{name}\t{seconds:g}\n" for name in annotations]
        write_text(metadata / place.durations, "".join(["filename\tduration\n", *lines]))


def _audible(wave: Array, rate: int) -> Array:
    """Cut what cannot be heard from both ends, with short fades."""
    hop = rate // 100
    frames = wave[: len(wave) // hop * hop].reshape(-1, hop)
    level = np.sqrt(np.mean(frames**2, axis=1) + 1e-20)
    loud = np.flatnonzero(level > level.max() * 10 ** (_AUDIBLE_DECIBELS / 20))
    return faded(wave[loud[0] * hop : (loud[-1] + 1) * hop], rate, 0.003, 0.01)


def _add(
    rng: Random, mixture: Array, wave: Array, rate: int, taken: list[tuple[float, float]]
) -> tuple[float, float] | None:
    """Add an event to a background of unit level, clear of the ``taken`` spans; returns its own, if it fits.

    Long events may begin before the clip or end after it. Spans are in seconds, on whole milliseconds as in the tables.
    """
    grid = max(1, rate // 1000)
    for _ in range(10):
        slack = min(len(wave) // 2, rate * 3)
        first = int(rng.integers(-slack, max(1 - slack, len(mixture) - len(wave) + slack)))
        first -= first % grid
        begin, end = max(0, first), min(len(mixture), first + len(wave))
        clear = all(end / rate + _LEAST_GAP_SECONDS < a or begin / rate > b + _LEAST_GAP_SECONDS for a, b in taken)
        if end - begin >= _LEAST_SECONDS * rate and clear:
            part = wave[begin - first : end - first]
            mixture[begin:end] += part * np.float32(10 ** (between(rng, -3, 15) / 20) / rms(part))
            return begin / rate, end / rate
    return None
