"""AudioSet-strong: ten-second clips of videos with onsets and offsets (Hershey et al., ICASSP 2021).

The download is two tables of segments (103 463 and 16 996 clips), a table of class names, and no audio: everybody has
his own copy of the clips that are still to be had, named in one of several ways, and about a tenth is missing.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from pmam_plugin.audio.names import find_audio
from pmam_plugin.data.corpora.base import Corpus, Part, Recording, read_rows, require_folder
from pmam_plugin.data.manifest import Event
from pmam_plugin.errors import InputError
from pmam_plugin.tables.reading import numbered_lines

TABLES: dict[Part, str] = {"strong": "audioset_train_strong.tsv", "test": "audioset_eval_strong.tsv"}
NAMES = "mid_to_display_name.tsv"
CLIP_SECONDS = 10.0

_CLIP = re.compile(
    r"^Y?(?P<video>[A-Za-z0-9_-]{11})(?:_(?P<start>\d+(?:\.\d+)?)(?:_(?P<end>\d+(?:\.\d+)?))?)?$",
)


def audioset_strong(source: Path) -> Corpus:
    """Read AudioSet-strong.

    Training segments become ``strong``, evaluation segments ``test``. Audio is looked for everywhere below the folder,
    under the names that downloaders give it: ``VIDEO``, ``YVIDEO``, each perhaps followed by ``_30000`` (milliseconds)
    or ``_30.000_40.000`` (seconds). A file without a start serves a video of which only one segment is annotated.

    Args:
        source: folder with the tables and the audio.

    Raises:
        InputError: a table is missing or broken, or names a class without a display name.
    """
    require_folder(source, "AudioSet-strong", *TABLES.values(), NAMES)
    names = _display_names(source / NAMES)
    clips: dict[tuple[str, int | None], Path] = {}
    for file in find_audio(source).values():
        key = clip_key(file.stem)
        if key is not None:
            clips.setdefault(key, file)
    corpus = Corpus({})
    for part, table in TABLES.items():
        segments = _segments(source / table, names)
        times = Counter(segment.rpartition("_")[0] for segment in segments)
        recordings = []
        for segment in segments:
            video, _, start_text = segment.rpartition("_")
            start = int(start_text)
            path = clips.get((video, start))
            if path is None and times[video] == 1:
                path = clips.get((video, None))
            if path is None:
                corpus.missing.append(segment)
                continue
            seconds = start / 1000
            name = f"Y{video}_{seconds:.3f}_{seconds + CLIP_SECONDS:.3f}{path.suffix}"
            recordings.append(Recording(name, path, tuple(segments[segment])))
        corpus.parts[part] = recordings
    return corpus


def clip_key(stem: str) -> tuple[str, int | None] | None:
    """Video and start in milliseconds (None where the name does not tell) of a clip's file name; None for others."""
    match = _CLIP.match(stem)
    if match is None:
        return None
    start, end = match["start"], match["end"]
    if start is None:
        return match["video"], None
    # Two whole numbers are milliseconds if they lie that far apart; a single one always is.
    in_seconds = "." in start or (end is not None and float(end) - float(start) <= CLIP_SECONDS)
    return match["video"], round(float(start) * (1000 if in_seconds else 1))


def _display_names(path: Path) -> dict[str, str]:
    names = {}
    for number, line in numbered_lines(path):
        row = line.split("\t")
        if len(row) < 2:
            raise InputError(f"{path}, line {number}: {row[0]!r} has no display name; restore the official table")
        names[row[0]] = row[1]
    return names


def _segments(path: Path, names: dict[str, str]) -> dict[str, list[Event]]:
    segments: dict[str, list[Event]] = {}
    for line, row in read_rows(path, ("segment_id", "start_time_seconds", "end_time_seconds", "label"), "\t"):
        if row["label"] not in names:
            raise InputError(f"{path}, line {line}: the class {row['label']!r} is not in {NAMES}; restore both tables")
        if not re.fullmatch(r".{11}_\d+", row["segment_id"]):
            raise InputError(f"{path}, line {line}: {row['segment_id']!r} is no segment (VIDEO_milliseconds)")
        try:
            event = Event(float(row["start_time_seconds"]), float(row["end_time_seconds"]), names[row["label"]])
        except ValueError:
            raise InputError(f"{path}, line {line}: a time is no number; restore the official table") from None
        segments.setdefault(row["segment_id"], []).append(event)
    return segments
