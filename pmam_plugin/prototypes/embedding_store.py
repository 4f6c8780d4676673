"""Frame embeddings on disk, streamed to the estimators without ever being in memory as a whole."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes.array_store import ArrayStore, read_header


class EmbeddingStore:
    """Embeddings ``(frames, dim)`` per clip, float16, in one memory-mapped file.

    Args:
        folder: where the store lies; created when absent.
        frames: most frames per clip.
        dim: dimensions of an embedding.
        description: what the embeddings depend on (checkpoint, layer); a store with another description is refused.

    Raises:
        InputError: the folder holds other embeddings.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        frames: int,
        dim: int,
        *,
        description: Mapping[str, Any] | None = None,
    ):
        self.frames = frames
        self.dim = dim
        self._store = ArrayStore(folder, (frames, dim), "float16", {"kind": "embeddings", **(description or {})})

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> EmbeddingStore:
        """Open a store that exists, as it describes itself.

        Raises:
            InputError: there is no store of embeddings.
        """
        header = read_header(folder)
        description = dict(header["description"])
        if description.pop("kind", None) != "embeddings":
            raise InputError(f"{folder}: holds no embeddings")
        frames, dim = header["row_shape"]
        return cls(folder, frames, dim, description=description)

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, clip: str) -> bool:
        return clip in self._store

    def __getitem__(self, clip: str) -> NDArray[np.float32]:
        """Embeddings of one clip, float32 ``(frames, dim)``.

        Raises:
            InputError: the clip has not been written.
        """
        return self._store.read(clip).astype(np.float32)

    def ids(self) -> list[str]:
        """Clips in the store, sorted."""
        return self._store.ids()

    def missing(self, clips: Iterable[str]) -> list[str]:
        """Those of ``clips`` not in the store yet, in the order given; asks the disk."""
        return self._store.missing(clips)

    def refresh(self) -> None:
        """See what other processes have written since."""
        self._store.refresh()

    def append(self, clip: str, embeddings: Tensor | NDArray[Any]) -> None:
        """Write one clip's embeddings ``(frames, dim)`` (see :meth:`extend`)."""
        self.extend([(clip, embeddings)])

    def extend(self, items: Iterable[tuple[str, Tensor | NDArray[Any]]]) -> None:
        """Write several clips at once: one flush to the disk for all of them.

        Raises:
            InputError: a wrong shape, NaN or values beyond float16's range, or a full disk.
        """
        self._store.write([(clip, _half(clip, values)) for clip, values in items])

    def batches(
        self,
        frames_per_batch: int = 8192,
        *,
        subsample: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        clips: Iterable[str] | None = None,
    ) -> EmbeddingBatches:
        """Frames to fit on, as batches that can be iterated again and again with the same result.

        Args:
            frames_per_batch: frames in every batch but the last.
            subsample: keep one frame, drawn uniformly, of every run of so many frames of a clip; a shorter run at the
                end of a clip gives one too, drawn from the frames it has.
            seed: of the draws; they depend on the seed and the clip, not on batches or processes.
            rank: this process's number; it gets the clips ``rank, rank + world, ...`` of the sorted ids.
            world: number of processes.
            clips: only these clips (all by default).

        Raises:
            InputError: ``subsample`` or ``frames_per_batch`` below one, or a clip that is not in the store.
        """
        if subsample < 1 or frames_per_batch < 1:
            raise InputError("subsample and frames_per_batch must be at least 1")
        chosen = self.ids() if clips is None else sorted(set(clips))
        missing = self.missing(chosen)
        if missing:
            raise InputError(f"{self._store.folder}: has no embeddings of {missing[0]!r}; extract them first")
        return EmbeddingBatches(self._store, chosen[rank::world], frames_per_batch, subsample, seed)


class EmbeddingBatches:
    """The re-iterable that :meth:`EmbeddingStore.batches` returns; yields float32 ``(n, dim)`` tensors."""

    def __init__(self, store: ArrayStore, clips: list[str], frames_per_batch: int, subsample: int, seed: int):
        self._store = store
        self._clips = clips
        self._frames_per_batch = frames_per_batch
        self._subsample = subsample
        self._seed = seed

    def __iter__(self) -> Iterator[Tensor]:
        buffer = np.empty((self._frames_per_batch, self._store.row_shape[1]), dtype=np.float32)
        filled = 0
        for clip in self._clips:
            frames = self._frames(clip)
            while len(frames):
                taken = min(len(frames), len(buffer) - filled)
                buffer[filled : filled + taken] = frames[:taken]
                filled += taken
                frames = frames[taken:]
                if filled == len(buffer):
                    yield torch.from_numpy(buffer)
                    buffer, filled = np.empty_like(buffer), 0
        if filled:
            yield torch.from_numpy(buffer[:filled])

    def _frames(self, clip: str) -> NDArray[Any]:
        if self._subsample == 1:
            return self._store.read(clip)
        random = np.random.default_rng([self._seed, zlib.crc32(clip.encode())])
        return self._store.read(clip, one_of_every_run(self._store.length(clip), self._subsample, random))


def one_of_every_run(frames: int, run: int, random: np.random.Generator) -> NDArray[np.int64]:
    """One uniformly drawn frame of every run of ``run`` consecutive frames; the last run may be shorter.

    Returns:
        Frame numbers below ``frames``, ascending, ``(ceil(frames / run),)``.
    """
    starts = np.arange(0, frames, run)
    lengths = np.minimum(run, frames - starts)
    return starts + np.floor(random.random(len(starts)) * lengths).astype(np.int64)


def _half(clip: str, embeddings: Tensor | NDArray[Any]) -> NDArray[np.float16]:
    values = torch.as_tensor(embeddings).detach().float().cpu().numpy()
    if not np.isfinite(values).all():
        raise InputError(f"the embeddings of {clip!r} contain NaN or infinite values")
    if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise InputError(f"the embeddings of {clip!r} exceed float16's range; choose a layer after a normalisation")
    return values.astype(np.float16)
