"""How often a model hears something where nothing is annotated.

    python benchmarks/false_alarms.py FOLDER [--model NAME_OR_FOLDER]

On the test recordings of a corpus in DESED's layout (``audio/validation/validation``): detections that touch no
annotated event of any class, per hour of the time in which none sounds, and how many of them are in recordings without
any event. Then ten minutes each of silence, hiss (white noise) and mains hum, made here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from pmam_plugin.audio import audio_info
from pmam_plugin.audio.names import clip_name, find_audio
from pmam_plugin.inference import SoundEventDetector
from pmam_plugin.tables import read_events

RATE, MINUTES = 16_000, 10


def silent_seconds(events: pd.DataFrame, seconds: float) -> float:
    """Of a recording, the seconds in which no event sounds."""
    heard, end = 0.0, 0.0
    for onset, offset in sorted(zip(events.onset, events.offset)):
        heard += max(0.0, offset - max(onset, end))
        end = max(end, offset)
    return seconds - heard


def touching_none(detections: pd.DataFrame, events: pd.DataFrame) -> int:
    """How many detections of a recording touch no event of it."""
    onsets, offsets = events.onset.to_numpy(), events.offset.to_numpy()
    return sum(not ((onsets < row.offset) & (offsets > row.onset)).any() for row in detections.itertuples())


def made() -> dict[str, np.ndarray]:
    """Sounds in which nothing happens, 16 kHz."""
    time = np.arange(MINUTES * 60 * RATE) / RATE
    hum = sum(0.02 / number * np.sin(2 * np.pi * 50 * number * time) for number in (1, 2, 3, 4))
    hiss = 0.01 * np.random.default_rng(0).normal(size=len(time))
    return {"silence": np.zeros(len(time)), "hiss": hiss, "hum": np.asarray(hum)}


def main(arguments: list[str] | None = None) -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="builtin")
    options = parser.parse_args(arguments)
    detector = SoundEventDetector.from_pretrained(options.model)
    events = read_events(options.folder / "metadata" / "validation" / "validation.tsv").dropna(subset="onset")
    events = events.assign(filename=events.filename.map(clip_name))
    hours, alarms, quiet = 0.0, 0, []
    for name, path in find_audio(options.folder / "audio" / "validation" / "validation").items():
        truth = events[events.filename == clip_name(name)]
        count = touching_none(detector.detect(path), truth)
        alarms += count
        hours += silent_seconds(truth, audio_info(path).duration) / 3600
        if truth.empty:
            quiet.append(count)
    print(f"{alarms} in {60 * hours:.1f} minutes without events: {alarms / hours:.0f} an hour")
    print(f"{sum(quiet)} of them in the {len(quiet)} recordings without any event")
    for sound, wave in made().items():
        print(f"{len(detector.detect(wave, RATE))} in {MINUTES} minutes of {sound}")


if __name__ == "__main__":
    main()
