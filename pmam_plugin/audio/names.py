"""What recordings are called: one notion of a clip's name, one list of audio endings, one search for files.

A clip's name is its place within its folder, with forward slashes, without the audio ending, accents in one form
(NFC): ``day1\\Yabc_30.000_40.000.WAV`` is the clip ``day1/Yabc_30.000_40.000``. Detection, preparation, evaluation,
event files, score folders and caches all know clips by this name.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from pmam_plugin.errors import InputError

logger = logging.getLogger(__name__)

AUDIO_ENDINGS = frozenset(
    (
        "wav", "wave", "bwf", "rf64", "w64", "flac", "ogg", "oga", "opus", "mp3", "mp2", "mpga", "aif", "aiff", "aifc",
        "au", "snd", "caf", "voc", "sph", "nist", "avr", "paf", "pvf", "svx", "8svx", "iff", "ircam", "sf", "sds",
        "wve", "xi",
    )
)  # fmt: skip
"""Endings of the recordings that folders are searched for: what libsndfile reads. Its remaining formats (``.mat``,
``.htk``, ``.sd2``, ``.mpc``) are read when a file is named, but in most folders these endings mean something else."""

FOREIGN_ENDINGS = frozenset(
    (
        "m4a", "m4b", "m4p", "m4r", "aac", "aax", "wma", "amr", "awb", "3ga", "qcp", "ac3", "ec3", "eac3", "dts", "ape",
        "wv", "tta", "tak", "shn", "mpc", "mp1", "mka", "weba", "dsf", "dff", "ra", "spx", "gsm", "oma", "at3",
        # dictating machines; recorders of animals
        "dss", "ds2", "dvf", "msv", "wac", "sud", "dsg",
    )
)  # fmt: skip
"""Sound that must be converted first. Folders are searched for it too, so that it is refused and not overlooked."""

_VIDEO_ENDINGS = frozenset(
    (
        "mp4", "m4v", "mkv", "webm", "mov", "avi", "3gp", "3g2", "flv", "f4v", "wmv", "asf", "mpg", "mpeg",
        "mts", "m2ts", "vob", "ogv", "rm", "mxf",
    )
)  # fmt: skip
_ARRIVING_ENDINGS = frozenset(("part", "partial", "filepart", "crdownload", "download", "tmp", "icloud"))
_PACKED_ENDINGS = frozenset(("gz", "bz2", "xz", "zip", "zst", "7z", "rar"))
_SHARD_ENDING = ".tar"
_HEARD_ENDINGS = AUDIO_ENDINGS | FOREIGN_ENDINGS
# Tables name the video that a clip was taken from.
_NAMED_ENDINGS = _HEARD_ENDINGS | _VIDEO_ENDINGS

# What Macs, Windows and network storage leave in folders. Names with a leading dot are hidden anyway.
_SYSTEM_FOLDERS = frozenset({"__macosx", "$recycle.bin", "system volume information", "recycler", "@eadir", "#recycle"})
_STRANGE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ABSOLUTE = re.compile(r"^(?:[A-Za-z]:)?/")


def clip_name(filename: str | os.PathLike[str]) -> str:
    """The name of the clip that a table, a path or a score file means; a name stays as it is.

    Backslashes are slashes, ``./`` and doubled slashes vanish, accents are composed (NFC), and audio and video endings
    go, in any case and however many there are. Dots of other kinds belong to the name.
    """
    path = plain_path(filename)
    folder, slash, name = path.rpartition("/")
    while True:
        stem, dot, ending = name.rpartition(".")
        if not (dot and stem.strip(".") and ending.lower() in _NAMED_ENDINGS):
            return f"{folder}{slash}{name}"
        name = stem


def relative_path(filename: str, source: str, folder: str | os.PathLike[str] | None = None) -> str:
    """A path from a table or manifest within its folder, with forward slashes and without ``./``.

    Args:
        filename: as written there; an absolute path may lie in ``folder``.
        source: what messages call the table.
        folder: of the audio.

    Raises:
        InputError: the path leaves the folder, or names nothing.
    """
    path = plain_path(filename)
    if folder is not None and _ABSOLUTE.match(path):
        for root in (os.path.abspath(folder), os.path.realpath(folder)):
            inside = plain_path(root).rstrip("/") + "/"
            if path.startswith(inside):
                path = path[len(inside) :]
                break
    if _ABSOLUTE.match(path) or re.match("[A-Za-z]:", path) or ".." in path.split("/") or path in ("", "."):
        raise InputError(f"{source}: {filename!r} points outside of the audio folder; write a path inside it")
    return path


def match_clips(filenames: Iterable[str], clips: Iterable[str]) -> dict[str, str]:
    """Which known clip each file name of a table means.

    Absolute paths, on either side, count from the one folder that they share: with the clip ``day1/a`` known,
    ``/data/set/day1/a.wav`` means it, as long as no other path of the table would make ``/other`` the root.

    Args:
        filenames: as they stand in the table.
        clips: the known clips' names, from :func:`clip_name`.

    Returns:
        File name -> clip; names that mean no known clip are absent.
    """
    known = set(clips)
    names = {filename: clip_name(filename) for filename in filenames}
    found = {filename: name for filename, name in names.items() if name in known}
    others = {filename: name for filename, name in names.items() if name not in known}
    absolute = {filename: name for filename, name in others.items() if _ABSOLUTE.match(name)}
    root = _shared_root({root for root, clip in _splits(name) if clip in known} for name in absolute.values())
    if root:
        found |= {filename: name[len(root) :] for filename, name in absolute.items() if name[len(root) :] in known}
    roots: dict[str, set[str]] = {}
    for clip in filter(_ABSOLUTE.match, known):
        for start, name in _splits(clip):
            roots.setdefault(name, set()).add(start)
    root = _shared_root(roots.get(name, set()) for name in others.values())
    if root:
        found |= {filename: root + name for filename, name in others.items() if root + name in known}
    return found


def _shared_root(candidates: Iterable[set[str]]) -> str:
    """The folder that all paths allow, of several the one that keeps most of the names; empty if there is none."""
    allowed = [roots for roots in candidates if roots]
    return min(set.intersection(*allowed), key=len, default="") if allowed else ""


def is_hidden(path: str | os.PathLike[str]) -> bool:
    """Whether a relative path is hidden or a system's own: ``._a.wav``, ``__MACOSX/a.wav``, a trash, a thumbnail."""
    parts = [part for part in plain_path(path).split("/") if part != ".."]
    return any(part.startswith(".") or part.lower() in _SYSTEM_FOLDERS for part in parts)


def find_audio(folder: str | os.PathLike[str], shards: bool = False) -> dict[str, Path]:
    """All recordings below a folder, links followed, hidden and system files left out.

    Videos, and recordings that are packed or still arriving, are not read and not lost in silence: how many there are
    is logged, except those whose sound lies beside them.

    Args:
        folder: where to look.
        shards: also tar files of recordings (:mod:`pmam_plugin.audio.shards`), which are not looked into.

    Returns:
        Relative path with forward slashes -> path, sorted. A link that leads nowhere is among them, and so is sound of
        :data:`FOREIGN_ENDINGS`: reading it says what is wrong.

    Raises:
        InputError: a folder cannot be looked into.
    """
    files = files_below(folder)
    found = {
        name: path
        for name, path in files.items()
        if not is_hidden(path.name) and (has_audio_ending(path.name) or (shards and is_shard(path.name)))
    }
    _tell_passed_over(folder, (name for name in files if name not in found), set(map(clip_name, found)))
    return found


def files_below(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """All files below a folder, links followed once; what lies in hidden and system folders is left out.

    Returns:
        Relative path with forward slashes -> path, sorted.

    Raises:
        InputError: a folder cannot be looked into.
    """
    found: dict[str, Path] = {}
    for parent, names in _walk(folder):
        found |= {Path(parent, name).relative_to(folder).as_posix(): Path(parent, name) for name in names}
    return dict(sorted(found.items()))


def folders_below(folder: str | os.PathLike[str]) -> list[Path]:
    """A folder and all below it that :func:`files_below` looks into."""
    return [Path(parent) for parent, _ in _walk(folder)]


def _walk(folder: str | os.PathLike[str]) -> Iterator[tuple[str, list[str]]]:
    visited: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        if os.path.realpath(parent) in visited:
            folders.clear()
            continue
        visited.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield parent, names


def _passed_over(name: str) -> tuple[str, str] | None:
    """What a file is that holds sound and is not read, and the cure; None for all other files."""
    stem, _, ending = name.lower().rpartition(".")
    # A cloud's placeholder for a file that is elsewhere is hidden: .a.wav.icloud.
    if is_hidden(name) and ending != "icloud":
        return None
    if ending in _VIDEO_ENDINGS:
        return "videos", "write their sound beside them, as with ffmpeg -i clip.mp4 clip.wav"
    if ending in _ARRIVING_ENDINGS and has_audio_ending(stem):
        return "recordings that have not arrived wholly", "wait for them, or fetch them again"
    if ending in _PACKED_ENDINGS and (has_audio_ending(stem) or is_shard(stem)):
        return "packed recordings", "unpack them"
    return None


def _tell_passed_over(folder: str | os.PathLike[str], names: Iterable[str], heard: set[str]) -> None:
    kinds: dict[tuple[str, str], list[str]] = {}
    for name in sorted(names):
        kind = _passed_over(name.rpartition("/")[2])
        if kind is not None and clip_name(name) not in heard:
            kinds.setdefault(kind, []).append(name)
    for (what, cure), those in kinds.items():
        logger.warning("%s: %s are passed over: %d, %s for one; %s", folder, what, len(those), those[0], cure)


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be looked into ({error.strerror}); check its permissions") from error


def has_audio_ending(filename: str | os.PathLike[str]) -> bool:
    """Whether a file name ends as recordings do, in any case."""
    _, dot, ending = os.fspath(filename).rpartition(".")
    return bool(dot) and ending.lower() in _HEARD_ENDINGS


def is_shard(filename: str | os.PathLike[str]) -> bool:
    """Whether a file name ends as tar files do, in any case."""
    return os.fspath(filename).lower().endswith(_SHARD_ENDING)


def expand_pattern(pattern: str) -> list[Path]:
    """The files and folders that a glob means, sorted; hidden and system ones only where the pattern names them.

    ``*``, ``?``, ``[...]`` stand for parts of one name, ``**`` for folders in depth. A part that is there as it is
    written means just that (``take [2]/*.wav``). Accents match in either form.
    """
    path = Path(pattern)
    found = _expand(Path(path.anchor) if path.anchor else Path(), path.parts[1:] if path.anchor else path.parts)
    return sorted(dict.fromkeys(found))


def existing_path(given: str | os.PathLike[str]) -> Path:
    """A path as the disk writes its accents, if it is there in another form; else as given."""
    path = Path(given)
    if os.path.lexists(path) or path.name in ("", ".."):
        return path
    parent = existing_path(path.parent)
    return next((other for other in _entries(parent) if _nfc(other.name) == _nfc(path.name)), path)


def _expand(base: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    if not parts:
        yield base
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _expand(base, rest)
        for entry in _entries(base):
            if not is_hidden(entry.name) and entry.is_dir() and not entry.is_symlink():
                yield from _expand(entry, parts)
            elif not rest and not is_hidden(entry.name):
                yield entry
    elif os.path.lexists(base / part):
        yield from _expand(base / part, rest)
    else:
        for entry in _entries(base):
            shown = not is_hidden(entry.name) or part.startswith(".")
            if shown and fnmatchcase(_nfc(entry.name), _nfc(part)):
                yield from _expand(entry, rest)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except PermissionError as error:
        _refuse(error)
        raise
    except OSError:
        return []


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Every way to see an absolute path as a root and a clip in it."""
    for match in re.finditer("/", name):
        yield name[: match.end()], name[match.end() :]


def plain_path(filename: str | os.PathLike[str]) -> str:
    """A path as text that every table and page can hold: forward slashes, no ``./``, accents composed (NFC), bytes that
    are no UTF-8 read as Latin-1, ``_`` for tabs, line breaks and the like."""
    path = _nfc(os.fspath(filename)).replace("\\", "/")
    root = "/" if path.startswith("/") else ""
    return root + "/".join(part for part in path.split("/") if part not in ("", "."))


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", _STRANGE.sub(_plain_character, text))


def _plain_character(match: re.Match[str]) -> str:
    # Python keeps byte 0xE9 of a name that is no UTF-8 as U+DCE9.
    code = ord(match[0])
    return chr(code - 0xDC00) if 0xDCA0 <= code <= 0xDCFF else "_"
