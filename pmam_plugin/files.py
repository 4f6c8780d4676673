"""Files: written whole or not at all, and what one is by its first bytes."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pmam_plugin.errors import InputError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success it is flushed and renamed, on failure removed.

    Raises:
        InputError: the disk is full, the folder cannot be written, or ``path`` is a folder or a device.
    """
    target = _file_to_write(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name[:32]}.", suffix=target.suffix[:16]
        )
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); choose another folder") from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is None:
            raise
        raise InputError(
            f"{target}: cannot be written ({error.strerror}); free some space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """See before long work that a file can be written at its end; makes its folder.

    Raises:
        InputError: the folder cannot be made or written, or ``path`` is a folder or a device.
    """
    target = _file_to_write(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); choose another folder") from error


def _file_to_write(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    if os.path.exists(target) and not target.is_file():  # which renaming would replace: /dev/null, say
        raise InputError(f"{target}: is {'a folder' if target.is_dir() else 'no file'}; give the name of a file")
    return target


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text``, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # file names whose bytes are no UTF-8
        text = json.dumps(value, indent=2).encode()
    with atomic_path(path) as temporary:
        temporary.write_bytes(text + b"\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check that it is a file you may read") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); correct it, or copy it again") from error


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


RECORDINGS = {b"RIFF": "wav", b"fLaC": "flac", b"OggS": "ogg", b"ID3": "mp3"}
"""How recordings begin that are read as they are, and how their names end."""

ZIP = b"PK\x03\x04"

# First bytes, what they mean, and the cure, where it is the same whatever was wanted.
_KINDS: tuple[tuple[tuple[bytes, ...], str, str], ...] = (
    ((b"version https://git-lfs",), "a pointer of Git LFS", "fetch the file itself with git lfs pull"),
    ((b"/annex/objects/",), "a pointer of git-annex", "fetch the file itself with git annex get"),
    ((b"\x00\x05\x16\x07",), "a Mac's side file (AppleDouble)", "read the file without ._"),
    ((ZIP,), "a zip archive or a spreadsheet", "unpack it, or save the sheet as CSV or TSV in UTF-8"),
    ((b"\xd0\xcf\x11\xe0",), "a spreadsheet", "save it as CSV or TSV in UTF-8"),
    ((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!"), "an archive", "unpack it"),
    ((b"SQLite format 3",), "a database, such as a project of Audacity", "export what it holds from there"),
    ((b"ooBinaryFile",), "a binary file of Praat", "save it from Praat as a text file"),
    ((b"\x89PNG", b"\xff\xd8\xff"), "an image", ""),
    ((b"%PDF",), "a PDF document", ""),
    ((b"\x93NUMPY",), "an array of NumPy", ""),
    (tuple(RECORDINGS), "a recording", ""),
)


def other_kind(head: bytes, wanted: str, cure: str) -> str | None:
    """``a recording, not a table; name the file of its labels``, say; None where the first bytes tell nothing.

    Args:
        head: of the file, 32 bytes or more.
        wanted: what it should be.
        cure: where the kind has none of its own.
    """
    found = next(((what, own) for starts, what, own in _KINDS if head.startswith(starts)), None)
    return None if found is None else f"{found[0]}, not {wanted}; {found[1] or cure}"
