"""AudioSet-strong: ten-second clips of videos with onsets and offsets (Hershey et al., ICASSP 2021).

The download is two tables of segments (103 463 and 16 996 clips), a table of class names, and no audio: everybody has
his own copy of the clips that are still to be had, named in one of several ways, and about a tenth is missing.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from pmam_plugin.audio.names import clip_name, find_audio
from pmam_plugin.data.corpora.base import Corpus, Part, Recording, require_folder
from pmam_plugin.data.manifest import Event
from pmam_plugin.errors import InputError
from pmam_plugin.tables.reading import Table, cells_of, numbered_lines

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
        key = clip_key(clip_name(file.name))
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
        identity, *name = cells_of(path, number, line, "\t")
        if not name:
            raise InputError(f"{path}, line {number}: {identity!r} has no display name; restore the official table")
        names[identity] = name[0]
    return names


def _segments(path: Path, names: dict[str, str]) -> dict[str, list[Event]]:
    table = Table.read(path, ("segment_id", "start_time_seconds", "end_time_seconds", "label"))
    ids, labels = table.columns["segment_id"], table.columns["label"]
    table.refuse([label not in names for label in labels], "label", f"is not in {NAMES}; restore both tables")
    strange = [re.fullmatch(r".{11}_\d+", segment) is None for segment in ids]
    table.refuse(strange, "segment_id", "is no segment (VIDEO_milliseconds); restore the official table")
    segments: dict[str, list[Event]] = {}
    times = (table.numbers(column).tolist() for column in ("start_time_seconds", "end_time_seconds"))
    for segment, label, onset, offset in zip(ids, labels, *times):
        segments.setdefault(segment, []).append(Event(onset, offset, names[label]))
    return segments
