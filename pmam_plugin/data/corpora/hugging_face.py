"""Hugging Face data sets with a column of audio, kept as shards.

A row of a Parquet file can only be had with its row group, often hundreds of recordings, and one of a stream only after
all before it: neither serves batches in any order. So a data set is streamed once, row by row and without decoding,
into tar files that are read in place (:mod:`pmam_plugin.audio.shards`), by WebDataset's writer.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from pmam_plugin.audio.names import has_audio_ending, plain_path
from pmam_plugin.data.corpora.base import Corpus, Part, Recording, audio_folder
from pmam_plugin.data.corpora.shards import Labels, parsed_labels, part_of
from pmam_plugin.errors import InputError, reason
from pmam_plugin.files import RECORDINGS

_SHARD_BYTES = 1e9
# What the library raises, from a wrong name to a broken connection.
_FAULTS = (OSError, ValueError, RuntimeError, KeyError, TypeError)
# Sets that come of data without labels and with them.
_PARTS: tuple[tuple[Part, ...], tuple[Part, ...]] = (("unlabelled",), ("strong", "weak"))


def hugging_face(source: Path, folder: Path, split: str = "train", labels: str | None = None) -> Corpus:
    """Stream a data set once into shards of about 1 GB; the recordings' bytes stay as they are.

    Args:
        source: of the Hub (``org/name``), or a folder of Parquet files.
        folder: of the corpus, where the shards go.
        split: which.
        labels: column of class names (the set becomes ``weak``) or of events (``strong``), see
            :func:`~pmam_plugin.data.corpora.shards.parsed_labels`. None: ``unlabelled``.

    Raises:
        InputError: the library is not installed, the data set cannot be read, has no such split or column, or holds
            labels of another form; or the folder has such shards already.
    """
    try:
        import datasets
        from webdataset import ShardWriter
    except ImportError as error:
        raise InputError(f"{error.name} is not installed; install it with pip install 'pmam-plugin[shards]'") from error
    for part in _PARTS[labels is not None]:
        for shard in audio_folder(folder, part).glob(f"{split}-*.tar"):
            raise InputError(f"{shard}: is there already; remove the shards of {split!r}, or choose a new folder")
    rows, column, kinds = _opened(datasets, source, split, labels)
    partial = folder / ".arriving"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    labelled: list[Recording] = []
    written = bare = 0
    pattern = f"{partial}/{split}-%06d.tar"
    with ShardWriter(pattern, maxsize=_SHARD_BYTES, verbose=0, encoder=False, mtime=0, format="PAX_FORMAT") as writer:
        for number, row in enumerate(_each(rows, source)):
            place = f"{source}, row {number}"
            known = Labels() if labels is None else parsed_labels(_spelt(kinds[labels], row[labels]), place)
            content, given = _content(row[column], place)
            if known is None or not content:
                bare += 1
                continue
            stem, ending = _file_name(given, content)
            writer.write({"__key__": f"{number:09d}/{stem}", ending: content})
            written += 1
            if labels is not None:
                name = f"{Path(writer.fname).name}/{number:09d}/{stem}.{ending}"
                labelled.append(Recording(name, partial / name, *known))
    if not written:
        shutil.rmtree(partial)
        wanted = "audio and labels" if labels else "audio"
        raise InputError(f"{source}: no row of {split!r} has {wanted}; name other columns or another split")
    part = "unlabelled" if labels is None else part_of(labelled, str(source))
    target = audio_folder(folder, part)
    target.mkdir(parents=True, exist_ok=True)
    shards = [Path(shutil.move(shard, target / shard.name)) for shard in sorted(partial.iterdir())]
    partial.rmdir()
    recordings = [replace(known, path=target / known.name) for known in labelled]
    recordings = recordings or [Recording(path.name, path) for path in shards]
    return Corpus({part: recordings}, notes=[f"{bare} rows without audio or labels are left out"] if bare else [])


def _opened(library: Any, source: Path, split: str, labels: str | None) -> tuple[Any, str, Mapping[str, Any]]:
    """Rows that are not decoded, the name of their column of audio, and the kinds of all columns."""
    try:
        # Whole, a folder is not taken for what the library itself calls "parquet" or "csv".
        name = source.resolve() if source.is_dir() else source
        data = library.load_dataset(os.fspath(name), split=split, streaming=True)
        kinds = dict(data.features or data._resolve_features().features or {})
    except _FAULTS as error:
        raise InputError(
            f"{source}: split {split!r} cannot be loaded as a Hugging Face data set ({reason(error)}); "
            "check name and split, and hf auth login for a private one"
        ) from error
    audio = [name for name, kind in kinds.items() if isinstance(kind, library.Audio) or _like_audio(kind)]
    if not audio:
        raise InputError(f"{source}: has no column of audio, only {', '.join(kinds)}; name another data set")
    if labels is not None and labels not in kinds:
        raise InputError(f"{source}: has no column {labels!r}, only {', '.join(kinds)}; name the one with the labels")
    kept = data.select_columns([audio[0], *([labels] if labels else [])])
    return kept.cast_column(audio[0], library.Audio(decode=False)), audio[0], kinds


def _like_audio(kind: Any) -> bool:
    """Whether a column is what one of audio is in a Parquet file that does not say so."""
    return isinstance(kind, Mapping) and set(kind) == {"bytes", "path"}


def _each(rows: Any, source: Path) -> Iterator[Mapping[str, Any]]:
    from tqdm.auto import tqdm  # which the library needs itself

    try:
        yield from tqdm(rows, desc=str(source), unit="row", leave=False)
    except ImportError as error:  # of torchcodec, which the library wants for them even where nothing is decoded
        raise InputError(
            f"{source}: consists of audio files, which are used as they are; fetch them "
            f"(hf download --repo-type dataset {source} --local-dir FOLDER) and lay them out"
        ) from error
    except _FAULTS as error:
        raise InputError(f"{source}: breaks off ({reason(error)}); run the command again") from error


def _content(audio: Any, place: str) -> tuple[bytes, str]:
    """The bytes of a recording and the name that it came with."""
    held = audio or {}
    if held.get("bytes") is None and held.get("path"):
        raise InputError(f"{place}: names {held['path']} and does not hold it; push it with its audio embedded")
    return held.get("bytes") or b"", held.get("path") or ""


def _file_name(given: str, content: bytes) -> tuple[str, str]:
    """Stem and ending of a recording in a shard: AudioSet's names say what it was cut from."""
    name = PurePosixPath(plain_path(given)).name
    if has_audio_ending(name):
        stem, _, ending = name.rpartition(".")
        return stem.lstrip("._") or "audio", ending
    return name.lstrip("._") or "audio", RECORDINGS.get(content[:4], "mp3")


def _spelt(kind: Any, value: Any) -> Any:
    """A value with the names of classes for their numbers, and a list of events for lists of their parts."""
    if value is None:
        return None
    if hasattr(kind, "int2str"):
        return [kind.int2str(value)] if isinstance(value, int) else value
    inner = getattr(kind, "feature", kind[0] if isinstance(kind, list) else None)
    if isinstance(value, Mapping) and isinstance(inner, Mapping):
        value = [dict(zip(value, parts)) for parts in zip(*value.values())]
    if isinstance(value, list) and inner is not None:
        return [_spelt_entry(inner, entry) for entry in value]
    return value


def _spelt_entry(kind: Any, entry: Any) -> Any:
    if isinstance(entry, Mapping) and isinstance(kind, Mapping):
        return {name: _spelt_entry(kind[name], part) for name, part in entry.items()}
    return kind.int2str(entry) if hasattr(kind, "int2str") and isinstance(entry, int) else entry
