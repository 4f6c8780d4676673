"""Corpora as they are shipped at scale, small: by the field's own writers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from webdataset import TarWriter


def pack(shard: Path, samples: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write a WebDataset shard: the files of every sample by its key and their endings; what is no bytes is JSON."""
    shard.parent.mkdir(parents=True, exist_ok=True)
    with TarWriter(str(shard), encoder=False) as writer:
        for key, files in samples.items():
            content = {
                ending: value if isinstance(value, bytes) else json.dumps(value).encode()
                for ending, value in files.items()
            }
            writer.write({"__key__": key, **content})
    return shard


def packed_folder(folder: Path, shards: Path, per_shard: int = 2) -> Path:
    """The recordings of a folder in shards of so many."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for begin in range(0, len(files), per_shard):
        samples = {path.stem: {path.suffix[1:]: path.read_bytes()} for path in files[begin : begin + per_shard]}
        pack(shards / f"shard-{begin // per_shard:06d}.tar", samples)
    return shards
