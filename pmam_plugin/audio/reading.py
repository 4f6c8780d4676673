"""Recordings as mono waveforms at the rate a model wants, whole, in parts, or block by block.

Reading is :class:`~pmam_plugin.audio.reader.AudioReader`'s, resampling soxr's. A recording is heard whole or refused.
"""

from __future__ import annotations

import io
import itertools
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import soundfile
import torch
from torch import Tensor

from pmam_plugin.audio.reader import AudioPath, AudioReader
from pmam_plugin.audio.resampling import MonoResampler, mean_of_channels, to_mono_resampled
from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path

logger = logging.getLogger(__name__)

_EXCERPT_MARGIN_SECONDS = 0.02


@dataclass(frozen=True)
class AudioInfo:
    """What a recording is."""

    sample_rate: int
    """Samples per second (Hz)."""
    frames: int
    """Samples per channel."""
    channels: int

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


def audio_info(path: AudioPath) -> AudioInfo:
    """Rate, length and channels of a recording. Nothing is decoded where its bytes tell the length, so that damage
    further on is not noticed.

    Raises:
        InputError: the file is missing, empty, a folder, cut short, or no audio that can be decoded.
    """
    with AudioReader(path) as reader:
        frames = reader.frames or sum(len(block) for block in reader.blocks())
        return AudioInfo(reader.sample_rate, frames, reader.channels)


def audio_blocks(
    path: AudioPath,
    sample_rate: int,
    start: float = 0.0,
    seconds: float | None = None,
    notes: Callable[[str], None] = logger.warning,
) -> Iterator[Tensor]:
    """A recording, or a part of it, as mono blocks; no more than two blocks are in memory, and of a part nothing else
    is read.

    Args:
        path: a file of any format libsndfile reads, of any rate, length and channel count.
        sample_rate: the rate wanted, in Hz.
        start: where the part begins, s.
        seconds: how long the part is; None: to the end of the recording, whose length is then checked.
        notes: is told what is odd about the recording and was made good, once for each.

    Yields:
        float32 waveforms, ``(samples,)``; full scale is 1. Together they are what :func:`read_audio` returns.

    Raises:
        InputError: the file is missing, empty, a folder, no audio, cut short, without samples, or holds NaN,
            infinite or absurd samples.
    """
    with AudioReader(path) as reader:
        # A part is resampled with a little of what surrounds it, so that it does not begin and end with a click.
        common = int(np.gcd(reader.sample_rate, sample_rate)) if sample_rate > 0 else 1
        steps, given_steps = reader.sample_rate // common, sample_rate // common
        margin = 0 if steps == given_steps else -(-round(_EXCERPT_MARGIN_SECONDS * reader.sample_rate) // steps)
        first = round(start * reader.sample_rate)
        before = min(margin, first // steps)
        count = None if seconds is None else round(seconds * reader.sample_rate) + (before + margin) * steps
        resampler = MonoResampler(reader.sample_rate, sample_rate, reader.name)
        unwanted, left, given = before * given_steps, math.inf if seconds is None else round(seconds * sample_rate), 0
        waiting: Tensor | None = None
        for block in itertools.chain(reader.blocks(first - before * steps, count), [None]):
            piece = resampler.finish() if block is None else resampler.feed(mean_of_channels(block))
            piece, unwanted = piece[unwanted:], max(0, unwanted - len(piece))
            piece = piece[: int(min(left - given, len(piece)))]
            given += len(piece)
            if waiting is not None and len(waiting) and block is not None:
                yield waiting
                waiting = None
            waiting = piece if waiting is None else torch.cat((waiting, piece))
        if not resampler.received:
            raise InputError(f"{reader.name}: no samples (zero length); leave the recording out or record it again")
        if not given and left:
            raise InputError(f"{reader.name}: too short, nothing is left at {sample_rate} Hz; leave the recording out")
        for note in reader.notes:
            notes(note)
        assert waiting is not None
        yield waiting


def read_audio(
    path: AudioPath,
    sample_rate: int,
    start: float = 0.0,
    seconds: float | None = None,
    notes: Callable[[str], None] = logger.warning,
) -> Tensor:
    """Decode a recording or a part of it, average its channels, and resample it; arguments as in :func:`audio_blocks`.

    Returns:
        float32 waveform, ``(samples,)``; full scale is 1.

    Raises:
        InputError: see :func:`audio_blocks`.
    """
    blocks = list(audio_blocks(path, sample_rate, start, seconds, notes))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def write_wav(path: AudioPath, waveform: np.ndarray | Tensor, sample_rate: int) -> None:
    """Write a mono waveform as 16-bit wav, whole or not at all; values beyond full scale 1 are clipped.

    Args:
        path: the file; its folder is made when absent.
        waveform: floating point, ``(samples,)``.
        sample_rate: in Hz.

    Raises:
        InputError: the waveform is empty or not finite, or the file cannot be written.
    """
    array = to_mono_resampled(waveform, sample_rate, sample_rate).numpy()
    encoded = io.BytesIO()
    soundfile.write(encoded, np.clip(array, -1.0, 1.0), sample_rate, format="WAV", subtype="PCM_16")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())
