"""What s3prl 0.4.18 needs of torchaudio and torchaudio 2.9 took away (s3prl issue 575).

Nothing here runs by itself: ``register(shim=True)`` and ``python -m pmam_plugin.upstream`` ask for it. Only names that
are missing are added; ``load`` and ``save`` still exist but want torchcodec and ffmpeg, and are replaced from 2.9 on.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}


@dataclass
class AudioInformation:
    """What ``torchaudio.info`` used to return."""

    sample_rate: int
    num_frames: int
    num_channels: int
    bits_per_sample: int
    encoding: str


def needs_shim() -> bool:
    """Whether the installed torchaudio is one that s3prl 0.4.18 cannot work with."""
    import torchaudio

    major, minor = (int(part) for part in torchaudio.__version__.split(".")[:2])
    return (major, minor) >= (2, 9)


def restore_torchaudio() -> None:
    """Add the missing names to the torchaudio of this process, once; call it before s3prl is imported."""
    import torchaudio

    nothing = {
        "set_audio_backend": lambda backend=None: None,
        "get_audio_backend": lambda: "soundfile",
        "list_audio_backends": lambda: ["soundfile"],
        "info": info,
    }
    for name, function in nothing.items():
        if not hasattr(torchaudio, name):
            setattr(torchaudio, name, function)
    if not hasattr(torchaudio, "sox_effects"):
        module = ModuleType("torchaudio.sox_effects")
        module.apply_effects_tensor = _no_effects  # type: ignore[attr-defined]
        module.apply_effects_file = _no_effects  # type: ignore[attr-defined]
        sys.modules[module.__name__] = torchaudio.sox_effects = module
    if needs_shim():
        torchaudio.load, torchaudio.save = load, save


@contextlib.contextmanager
def resampling_in_threads() -> Iterator[None]:
    """Let joblib work in threads: s3prl's six resampling processes would start without the shim, and start slowly."""
    import joblib

    with joblib.parallel_config(backend="threading"):
        yield


def info(path: str | os.PathLike[str], **others: Any) -> AudioInformation:
    """Properties of an audio file."""
    from pmam_plugin.audio.reader import AudioReader

    with AudioReader(path) as reader:
        frames = reader.frames or sum(len(block) for block in reader.blocks())
        bits, encoding = _BITS.get(reader.subtype, 0), reader.subtype.partition("_")[0]
        return AudioInformation(reader.sample_rate, frames, reader.channels, bits, encoding)


def load(
    path: str | os.PathLike[str],
    frame_offset: int = 0,
    num_frames: int = -1,
    normalize: bool = True,
    channels_first: bool = True,
    **others: Any,
) -> tuple[Tensor, int]:
    """Read an audio file: ``(channels, samples)`` float32 in [-1, 1], and its sample rate."""
    from pmam_plugin.audio.reader import AudioReader

    with AudioReader(path) as reader:
        blocks = list(reader.blocks(frame_offset, None if num_frames < 0 else num_frames))
        samples = np.concatenate(blocks) if blocks else np.zeros((0, reader.channels), np.float32)
        return torch.from_numpy(np.ascontiguousarray(samples.T if channels_first else samples)), reader.sample_rate


def save(
    path: str | os.PathLike[str], src: Tensor, sample_rate: int, channels_first: bool = True, **others: Any
) -> None:
    """Write ``(channels, samples)`` through soundfile, as 16-bit PCM where the format allows."""
    import soundfile

    samples = src.detach().cpu().numpy()
    soundfile.write(os.fspath(path), samples.T if channels_first and samples.ndim == 2 else samples, sample_rate)


def _no_effects(*arguments: Any, **named: Any) -> None:
    raise RuntimeError("torchaudio has no sox effects any more; this s3prl upstream needs torchaudio before 2.9")
