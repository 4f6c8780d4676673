"""Pseudo-labels on disk: the posteriors of every clip, small enough to keep and quick to open."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes.array_store import ArrayStore, read_header


class PosteriorStore:
    """Posteriors ``(frames, K)`` per clip in one memory-mapped file.

    Every posterior comes back within 1/512 of what was written. ``float16`` keeps zero and one exactly and takes
    58.6 KiB for 10 s at 100 frames/s and K = 30; ``uint8`` takes half of it and returns the midpoints
    ``(q + 0.5) / 256`` of 256 equal cells.

    Args:
        folder: where the store lies; created when absent.
        frames: most frames per clip.
        components: K.
        dtype: ``"float16"`` or ``"uint8"``.
        description: what the posteriors depend on (the prototypes' fingerprint, say); a store with another description
            is refused.

    Raises:
        InputError: the folder holds other posteriors.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        frames: int,
        components: int,
        *,
        dtype: str = "float16",
        description: Mapping[str, Any] | None = None,
    ):
        if dtype not in ("float16", "uint8"):
            raise InputError(f"posteriors are stored as float16 or uint8, not {dtype!r}")
        self.frames = frames
        self.components = components
        self._store = ArrayStore(folder, (frames, components), dtype, {"kind": "posteriors", **(description or {})})

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> PosteriorStore:
        """Open a store that exists, as it describes itself.

        Raises:
            InputError: there is no store of posteriors.
        """
        header = read_header(folder)
        description = dict(header["description"])
        if description.pop("kind", None) != "posteriors":
            raise InputError(f"{folder}: holds no posteriors")
        frames, components = header["row_shape"]
        return cls(folder, frames, components, dtype=header["dtype"], description=description)

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, clip: str) -> bool:
        return clip in self._store

    def __getitem__(self, clip: str) -> NDArray[np.float32]:
        """Posteriors of one clip, float32 ``(frames, K)``.

        Raises:
            InputError: the clip has not been written.
        """
        values = self._store.read(clip)
        if values.dtype == np.uint8:
            return (values.astype(np.float32) + np.float32(0.5)) / np.float32(256)
        return values.astype(np.float32)

    def ids(self) -> list[str]:
        """Clips in the store, sorted."""
        return self._store.ids()

    def missing(self, clips: Iterable[str]) -> list[str]:
        """Those of ``clips`` not in the store yet, in the order given; asks the disk."""
        return self._store.missing(clips)

    def refresh(self) -> None:
        """See what other processes have written since."""
        self._store.refresh()

    def append(self, clip: str, posteriors: Tensor | NDArray[Any]) -> None:
        """Write one clip's posteriors ``(frames, K)`` (see :meth:`extend`)."""
        self.extend([(clip, posteriors)])

    def extend(self, items: Iterable[tuple[str, Tensor | NDArray[Any]]]) -> None:
        """Write several clips at once: one flush to the disk for all of them.

        Raises:
            InputError: a wrong shape, values outside [0, 1], or a full disk.
        """
        self._store.write([(clip, self._encode(clip, values)) for clip, values in items])

    def _encode(self, clip: str, posteriors: Tensor | NDArray[Any]) -> NDArray[Any]:
        values = torch.as_tensor(posteriors).detach().cpu().numpy().astype(np.float32, copy=False)
        # Sums in float32 may exceed one by their rounding.
        if not (np.isfinite(values).all() and values.min(initial=0) >= -1e-4 and values.max(initial=0) <= 1 + 1e-4):
            raise InputError(f"the posteriors of {clip!r} are not all between 0 and 1")
        values = values.clip(0, 1)
        if self._store.dtype == np.uint8:
            return np.minimum(np.floor(values * 256), 255).astype(np.uint8)
        return values.astype(np.float16)
