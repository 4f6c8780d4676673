"""Clips of several subsets as one torch dataset."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from os import PathLike
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pmam_plugin.audio import fit_length, read_audio
from pmam_plugin.data.batch import Item
from pmam_plugin.data.cache import DEFAULT_GIGABYTES, WaveformCache
from pmam_plugin.data.manifest import SUBSETS, Clip, Manifest
from pmam_plugin.errors import InputError
from pmam_plugin.labels import LabelEncoder

logger = logging.getLogger(__name__)

# Encoded labels that are kept to be used again, whatever the size of the corpus.
_KEPT_TARGET_BYTES = 1 << 26


class Stored(Protocol):
    """Arrays by clip, such as :class:`~pmam_plugin.prototypes.ArrayStore`."""

    def __getitem__(self, clip: str) -> np.ndarray:
        """Float32 ``(frames, dim)``."""

    def __contains__(self, clip: str) -> bool:
        """Whether the clip has been stored."""


class ClipDataset(Dataset[Item]):
    """Waveforms with whatever labels are known.

    Nothing here is random: the same index gives the same item in every epoch, process and worker. Each item is
    ``clip_seconds`` long, zero-padded or cut at its end; with ``whole`` a longer recording comes in full, for scoring.

    Args:
        manifests: subsets by name, in the order their clips are numbered.
        encoder: puts labels on the grid of a model; None for items without labels (no frames, no classes).
        sample_rate: of the waveforms, in Hz.
        clip_seconds: length of an item.
        cache: folder for decoded waveforms (int16, 32 KB per second at 16 kHz); None decodes every time.
        cache_gigabytes: what that folder may grow to.
        embeddings: ``(frames, dim)`` of every clip, read in place of its sound.
        copies: embeddings of altered copies of some subsets' clips, a copy each: further items, numbered behind the
            clips of their subset, with id and labels of the clip.
        whole: do not cut recordings that are longer; labels still end where the encoder's grid does.
        annotated: of several corpora, the classes that each annotates (:attr:`~pmam_plugin.data.Prepared.annotated`).

    Attributes:
        indices: subset name -> the numbers of its clips.
    """

    def __init__(
        self,
        manifests: Mapping[str, Manifest],
        encoder: LabelEncoder | None,
        sample_rate: int,
        clip_seconds: float = 10.0,
        cache: str | PathLike[str] | None = None,
        whole: bool = False,
        cache_gigabytes: float = DEFAULT_GIGABYTES,
        embeddings: Stored | None = None,
        copies: Sequence[Stored] = (),
        annotated: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        unknown = [name for name in manifests if name not in SUBSETS]
        if unknown:
            raise InputError(f"unknown subset {unknown[0]!r}; the subsets are {', '.join(SUBSETS)}")
        self.encoder, self.sample_rate, self.whole = encoder, sample_rate, whole
        self.clip_seconds, self.samples = clip_seconds, round(clip_seconds * sample_rate)
        self._manifests = dict(manifests)
        self._cache: WaveformCache | None = None
        self._targets: dict[int, tuple[np.ndarray, tuple[int, int]]] = {}
        self._target_bytes = 0
        self.indices: dict[str, range] = {}
        self._clips = 0
        self._copies: dict[str, list[Stored]] = {}
        for name, manifest in manifests.items():
            self._copies[name] = [store for store in copies if len(manifest) and manifest.clips[0].id in store]
            items = len(manifest) * (1 + len(self._copies[name]))
            self.indices[name] = range(self._clips, self._clips + items)
            self._clips += items
        if cache is not None:
            self._cache = WaveformCache(cache, sample_rate, self.samples, cache_gigabytes)
        self._embeddings = embeddings
        labels = () if encoder is None else encoder.labels
        self._annotated = {
            corpus: torch.tensor([label in classes for label in labels], dtype=torch.bool)
            for corpus, classes in (annotated or {}).items()
        }
        self._warn_of_low_rates()

    def __len__(self) -> int:
        return self._clips

    def __getitem__(self, index: int) -> Item:
        """The clip with a number.

        Raises:
            InputError: its audio is missing or broken, or it bears a label the encoder does not know.
        """
        subset = next(name for name, numbers in self.indices.items() if index in numbers)
        clips, first = self.clips(subset), self.indices[subset].start
        copy, number = divmod(index - first, len(clips))
        clip = clips[number]
        stored = self._copies[subset][copy - 1] if copy else self._embeddings
        wave = self._wave(clip) if stored is None else torch.zeros(self.samples)
        strong, weak = self._labels(first + number, clip)
        return Item(
            id=clip.id,
            wave=fit_length(wave, max(self.samples, wave.shape[0]) if self.whole else self.samples),
            seconds=min(clip.seconds, wave.shape[0] / self.sample_rate if self.whole else self.clip_seconds),
            strong=strong,
            weak=weak,
            has_strong=clip.events is not None,
            has_weak=clip.labels is not None,
            group=SUBSETS.index(subset),
            sample_rate=self.sample_rate,
            embeddings=None if stored is None else torch.from_numpy(stored[clip.id]).T,
            annotated=self._annotated[clip.id.partition("/")[0]] if self._annotated else None,
        )

    def clips(self, subset: str) -> Sequence[Clip]:
        """The clips of a subset in the order of :attr:`indices`, without copies."""
        return self._manifests[subset].clips

    def _wave(self, clip: Clip) -> Tensor:
        seconds = clip.seconds if self.whole else min(clip.seconds, self.clip_seconds)
        if self._cache is None or seconds > self.clip_seconds:
            return read_clip(clip, self.sample_rate, seconds)
        wave = self._cache.get(clip)
        return wave if wave is not None else self._cache.put(clip, read_clip(clip, self.sample_rate, seconds))

    def _labels(self, index: int, clip: Clip) -> tuple[Tensor, Tensor]:
        if self.encoder is None:
            return torch.zeros(0, 0), torch.zeros(0)
        frames, classes = self.encoder.frames, len(self.encoder.labels)
        if clip.events is None:
            weak = _encoded(clip, self.encoder.encode_weak, clip.labels or ())
            return torch.zeros(frames, classes), torch.from_numpy(weak)
        known = self._targets.get(index)
        if known is None:
            strong = _encoded(clip, self.encoder.encode_strong, clip.events)
            if any(event.soft < 1 for event in clip.events):  # bits would not hold it
                return torch.from_numpy(strong), torch.from_numpy(strong.max(axis=0))
            known = np.packbits(strong > 0), strong.shape
            if self._target_bytes < _KEPT_TARGET_BYTES:
                self._targets[index] = known
                self._target_bytes += known[0].nbytes
        packed, shape = known
        strong = np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(np.float32)
        return torch.from_numpy(strong), torch.from_numpy(strong.max(axis=0))

    def _warn_of_low_rates(self) -> None:
        rates = sum((manifest.sample_rates for manifest in self._manifests.values()), Counter[int]())
        low = {rate: count for rate, count in rates.items() if 0 < rate < self.sample_rate}
        if low:
            logger.warning(
                "%d of %d recordings have a lower sample rate (such as %d Hz) than the model's %d Hz: "
                "they are resampled, but the band above %d Hz stays empty",
                sum(low.values()),
                sum(rates.values()),
                next(iter(low)),
                self.sample_rate,
                next(iter(low)) // 2,
            )


def read_clip(clip: Clip, sample_rate: int, seconds: float) -> Tensor:
    """Decode a clip; of a long recording only the part that is the clip.

    Args:
        clip: which.
        sample_rate: wanted, in Hz.
        seconds: how much of it, from its start.

    Returns:
        ``(samples,)`` float32, at most ``seconds`` long.

    Raises:
        InputError: the file is missing or broken.
    """
    return read_audio(clip.source, sample_rate, clip.start, seconds, notes=logger.debug)  # preparation has told them


def _encoded(clip: Clip, encode: Callable[[Any], np.ndarray], labels: Any) -> np.ndarray:
    try:
        return encode(labels)
    except InputError as error:
        raise InputError(f"clip {clip.id}: {error}") from error
