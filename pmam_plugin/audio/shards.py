"""Shards: tar files of recordings, as WebDataset ships corpora, read where they lie.

A shard is read as if it were a folder of its name: ``audioset-000012.tar/Yabc_30.000_40.000.flac`` is a recording in
it. A tar is not packed, so a recording is a stretch of the shard's bytes, found once (Python's tarfile), noted in the
manifest, and read at random like any file. WebDataset's own readers go through shards from the first byte to the last,
which leaves batches to a shuffling buffer and a resumed run to start the shard again; here the same sampler, resume and
shares of processes hold as for files.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pmam_plugin.audio.names import is_hidden, is_shard, relative_path
from pmam_plugin.errors import InputError


@dataclass(frozen=True)
class Member(os.PathLike[str]):
    """A file in a shard; as a path it lies below the shard.

    Attributes:
        shard: the tar file.
        name: in the shard, with forward slashes.
        offset: where it begins in the shard, in bytes.
        size: in bytes.
    """

    shard: Path
    name: str
    offset: int
    size: int

    @classmethod
    def at(cls, path: Path, offset: int, size: int) -> Member:
        """The member that a path through a shard means.

        Raises:
            InputError: no part of the path is a shard that is there.
        """
        for parent in reversed(path.parents):
            if is_shard(parent.name) and parent.is_file():
                return cls(parent, path.relative_to(parent).as_posix(), offset, size)
        shard = next((parent for parent in reversed(path.parents) if is_shard(parent.name)), path)
        raise InputError(f"{shard}: no such shard; restore it, or prepare the data again without it")

    def __fspath__(self) -> str:
        return os.path.join(self.shard, self.name)

    def __str__(self) -> str:
        return self.__fspath__()


AudioFile = Path | Member
"""A file of its own, or one in a shard."""


def members(shard: Path) -> Iterator[Member]:
    """The files in a shard, in their order; hidden ones are left out. Only their headers are read.

    Raises:
        InputError: the shard is missing, no tar, packed, cut short, or holds a path that leaves it, a name twice, a
            link or a file with holes.
    """
    seen: set[str] = set()
    try:
        with tarfile.open(shard, "r:") as tar:
            for entry in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all that were read
                if entry.isdir():
                    continue
                name = relative_path(entry.name, str(shard))
                if is_hidden(name):
                    continue
                if not entry.isreg() or entry.issparse():
                    raise InputError(f"{shard}: {name!r} is a link, or stored with holes; pack the file itself")
                if name in seen:
                    raise InputError(f"{shard}: holds {name!r} twice; pack it again with names of their own")
                seen.add(name)
                yield Member(shard, name, entry.offset_data, entry.size)
            # Without its last block of zeros a tar looks whole where it broke off between two files.
            tar.fileobj.seek(tar.offset)  # type: ignore[union-attr]
            whole = tar.fileobj.read(tarfile.BLOCKSIZE) == tarfile.NUL * tarfile.BLOCKSIZE  # type: ignore[union-attr]
    except (tarfile.TarError, EOFError) as error:
        raise InputError(
            f"{shard}: cannot be read as a tar file ({error}); fetch it again, and unpack it if it is packed"
        ) from error
    except OSError as error:
        raise InputError(f"{shard}: cannot be read ({error.strerror}); restore the shard") from error
    if not whole:
        raise InputError(f"{shard}: the tar file breaks off; fetch it again")
