"""Development sets of DCASE: TUT Sound Events 2016 and 2017, MAESTRO Real, and the home recordings of 2018 task 5."""

from __future__ import annotations

import re
from pathlib import Path

from pmam_plugin.audio.names import clip_name, find_audio
from pmam_plugin.data.corpora.base import Corpus, Part, Recording, by_stem, read_annotation, require_folder
from pmam_plugin.data.manifest import heard_events, merge_events
from pmam_plugin.errors import InputError
from pmam_plugin.tables.reading import numbered_lines


def tut_sound_events(source: Path, fold: int = 1) -> Corpus:
    """Read TUT Sound Events 2016 or 2017 (Mesaros et al., EUSIPCO 2016): minutes of street, home, residential area.

    Args:
        source: the development folder, with ``audio``, ``meta`` and ``evaluation_setup``.
        fold: its training recordings become ``strong``, its test recordings ``test``.

    Raises:
        InputError: a folder, an annotation or the fold is missing.
    """
    audio, meta, setup = require_folder(source, "TUT Sound Events (development)", "audio", "meta", "evaluation_setup")
    clips, annotations = find_audio(audio), {clip_name(path.stem): path for path in sorted(meta.rglob("*.ann"))}
    corpus = Corpus({})
    parts: dict[Part, str] = {"strong": "train", "test": "test"}
    for part, name in parts.items():
        lists = sorted(setup.glob(f"*_fold{fold}_{name}.txt"))
        if not lists:
            raise InputError(f"{setup}: has no *_fold{fold}_{name}.txt; the folds are 1 to 4")
        lines = [line for path in lists for _, line in numbered_lines(path)]
        recordings = []
        for named in dict.fromkeys(re.split(r"[\t ]", line, maxsplit=1)[0].removeprefix("audio/") for line in lines):
            bare = clip_name(Path(named).name)
            if named not in clips:
                corpus.missing.append(named)
            elif bare not in annotations:
                raise InputError(f"{meta}: has no {bare}.ann for {named}; restore the annotations")
            else:
                events = merge_events(read_annotation(annotations[bare]))
                recordings.append(Recording(named, clips[named], events))
        corpus.parts[part] = recordings
    return corpus


def maestro_real(source: Path) -> Corpus:
    """Read MAESTRO Real (Martin-Morato et al., DCASE 2023): long recordings whose labels are the share of listeners.

    Labels stand in segments of 1 s, and training takes them as they are. In the test recordings a class is heard from
    0.5 on (:data:`~pmam_plugin.data.manifest.HEARD`), as in the task's own figures; neighbouring segments join.
    Every fifth recording of a scene is ``test``, the rest ``strong``: the published folds differ between releases.

    Args:
        source: folder with ``development_audio`` and ``development_annotation`` (folders ``soft_labels_SCENE``).

    Raises:
        InputError: a folder is missing or an annotation is broken.
    """
    audio, labels = require_folder(source, "MAESTRO Real (development)", "development_audio", "development_annotation")
    clips, corpus = by_stem(audio), Corpus({"strong": [], "test": []})
    scenes: dict[str, int] = {}
    for table in sorted(labels.rglob("*.txt")):
        name = clip_name(table.stem)
        if name not in clips:
            corpus.missing.append(name)
            continue
        path = clips[name]
        scene = path.parent.name
        scenes[scene] = scenes.get(scene, 0) + 1
        events = read_annotation(table, soft=True)
        tested = scenes[scene] % 5 == 0
        recording = Recording(f"{scene}/{path.name}", path, heard_events(events) if tested else events)
        corpus.parts["test" if tested else "strong"].append(recording)
    return corpus


def dcase2018_task5(source: Path) -> Corpus:
    """Read DCASE 2018 task 5 (SINS; Dekkers et al. 2018) as unlabelled audio: its activities are no sound events.

    Args:
        source: folder with ``audio``.
    """
    [audio] = require_folder(source, "DCASE 2018 task 5 (development)", "audio")
    return Corpus({"unlabelled": [Recording(name, path) for name, path in find_audio(audio).items()]})
