"""URBAN-SED v2: ten thousand synthetic street scenes with exact labels (Salamon et al., WASPAA 2017)."""

from __future__ import annotations

from pathlib import Path

from pmam_plugin.audio.names import clip_name
from pmam_plugin.data.corpora.base import Corpus, Part, Recording, by_stem, read_annotation, require_folder
from pmam_plugin.data.manifest import merge_events

PARTS: dict[str, Part] = {"train": "strong", "validate": "selection", "test": "test"}


def urban_sed(source: Path, merge: bool = True) -> Corpus:
    """Read URBAN-SED: 6 000 clips to train on, 2 000 to select on, 2 000 to report.

    Args:
        source: folder with ``audio/{train,validate,test}`` and ``annotations/{train,validate,test}`` (text or JAMS; the
            text files are read).
        merge: join overlapping events of one class, as detectors cannot tell them apart. The published figures of SEDT
            were taken on tables in which overlaps that end at 10.0 s had stayed, because times were compared as text.

    Raises:
        InputError: a folder is missing or an annotation is broken.
    """
    corpus, joined = Corpus({}), 0
    for folder, part in PARTS.items():
        audio, annotations = require_folder(source, "URBAN-SED v2", f"audio/{folder}", f"annotations/{folder}")
        recordings, clips = [], by_stem(audio)
        for table in sorted(annotations.glob("*.txt")):
            events = read_annotation(table)
            kept = merge_events(events) if merge else events
            joined += len(events) - len(kept)
            name = clip_name(table.stem)
            if name in clips:
                recordings.append(Recording(clips[name].name, clips[name], kept))
            else:
                corpus.missing.append(f"{folder}/{name}")
        corpus.parts[part] = recordings
    if joined:
        corpus.notes.append(f"{joined} events joined with one of their class that they overlap")
    return corpus
