"""Audio files and arrays in, mono float32 waveforms at one sample rate out.

Decoding is soundfile's (wav, flac, ogg, opus, mp3), resampling soxr's. Whatever is wrong with a recording ends in one
:class:`~pmam_plugin.errors.InputError` that names it, so that callers need to know one exception only.
"""

from __future__ import annotations

import io
import math
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path

AudioPath = str | os.PathLike[str]

# Recorders that do not know the length yet write a huge size into the wav header and never come back to it.
_UNKNOWN_WAV_SIZE = 0x7FFF0000
_LARGEST_OGG_PAGE = 65307
# TypeError: soundfile wants to be told the format of headerless (.raw) files. MemoryError: a header that lies.
_DECODING_ERRORS = (soundfile.LibsndfileError, OSError, TypeError, MemoryError)
# Full scale is 1, and files scaled to 16-bit integers exist; the power of anything larger leaves single precision.
_LARGEST_SAMPLE = 1e6


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says."""

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
    """Read the header of an audio file; nothing is decoded, so damage further on is not noticed.

    Raises:
        InputError: the file is missing, empty, a folder, or no audio that can be decoded.
    """
    _require_file(path)
    try:
        with soundfile.SoundFile(os.fspath(path)) as file:
            return AudioInfo(file.samplerate, file.frames, file.channels)
    except _DECODING_ERRORS as error:
        raise _not_audio(path, error) from error


def read_audio(path: AudioPath, sample_rate: int) -> Tensor:
    """Decode a file, average its channels, and resample it.

    Args:
        path: a wav, flac, ogg, opus or mp3 file of any rate, length and channel count.
        sample_rate: the rate wanted, in Hz.

    Returns:
        float32 waveform, ``(samples,)``; full scale is 1.

    Raises:
        InputError: the file is missing, empty, a folder, no audio, cut short, without samples, or holds NaN or
            infinite samples.
    """
    _require_file(path)
    try:
        with soundfile.SoundFile(os.fspath(path)) as file:
            kind, expected, rate = file.format, file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
    except _DECODING_ERRORS as error:
        raise _not_audio(path, error) from error
    if len(samples) < expected or _is_cut_short(path, kind):
        raise InputError(f"{path}: the audio ends before its header says it does; copy or download the file again")
    return _resample(_mean_of_channels(samples), rate, sample_rate, str(path))


def to_mono_resampled(samples: np.ndarray | Tensor, source_rate: int, sample_rate: int) -> Tensor:
    """Average the channels of samples already in memory, and resample them.

    Args:
        samples: ``(samples,)``, ``(samples, channels)`` or ``(channels, samples)``: of two axes the shorter one is
            taken to be the channels. Floating point at full scale 1, or integer PCM (scaled to it).
        source_rate: the rate of ``samples``, in Hz.
        sample_rate: the rate wanted, in Hz.

    Returns:
        float32 waveform on the CPU, ``(samples,)``.

    Raises:
        InputError: no samples, NaN or infinite samples, more than two axes, or not numbers.
    """
    name = "the given samples"
    return _resample(as_mono(samples, name), source_rate, sample_rate, name)


def as_mono(samples: np.ndarray | Tensor, name: str, channels_last: bool | None = None) -> np.ndarray:
    """Samples of any numeric type and one or two axes as a mono waveform at full scale 1.

    Args:
        samples: ``(samples,)``, ``(samples, channels)`` or ``(channels, samples)``.
        name: what messages call them.
        channels_last: which of two axes the channels are; None takes the shorter one.

    Returns:
        float32, ``(samples,)``.

    Raises:
        InputError: more than two axes, or not numbers.
    """
    if isinstance(samples, Tensor):
        samples = samples.detach().cpu()
        # numpy knows no bfloat16
        samples = (samples.float() if samples.is_floating_point() else samples).numpy()
    array = np.asarray(samples)
    if array.ndim not in (1, 2):
        raise InputError(f"{name} have {array.ndim} axes; give (samples,) or (samples, channels)")
    array = _as_float(array, name)
    if array.ndim == 2 and array.size:
        last = array.shape[0] >= array.shape[1] if channels_last is None else channels_last
        array = _mean_of_channels(array if last else array.T)
    return array.reshape(-1)


def fit_length(waveform: Tensor, samples: int) -> Tensor:
    """Zero-pad at the end, or cut, the last axis to ``samples`` values."""
    missing = samples - waveform.shape[-1]
    return torch.nn.functional.pad(waveform, (0, missing)) if missing > 0 else waveform[..., :samples]


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


def _require_file(path: AudioPath) -> None:
    try:
        status = Path(path).stat()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path or restore the recording") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); check the path and its permissions") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: is a folder; name an audio file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: is no regular file; save the audio to a file first")
    if status.st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); copy or download it again")


def _not_audio(path: AudioPath, error: Exception) -> InputError:
    reason = getattr(error, "error_string", None) or str(error) or type(error).__name__
    return InputError(
        f"{path}: cannot be decoded ({reason.strip().rstrip('.')}); give a whole wav, flac, ogg or mp3 file"
    )


def _as_float(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype.kind == "u":
        middle = 2 ** (8 * array.dtype.itemsize - 1)
        return ((array.astype(np.float64) - middle) / middle).astype(np.float32)
    if array.dtype.kind == "i":
        return (array / 2 ** (8 * array.dtype.itemsize - 1)).astype(np.float32)
    raise InputError(f"{name} are of type {array.dtype}; give floating point or integer samples")


def _mean_of_channels(samples: np.ndarray) -> np.ndarray:
    """``(samples, channels)`` -> ``(samples,)``; a matrix product, many times faster than a mean over a short axis."""
    channels = samples.shape[1]
    if channels == 1:
        return samples[:, 0]
    return samples @ np.full(channels, 1.0 / channels, dtype=np.float32)


def _resample(mono: np.ndarray, source_rate: int, sample_rate: int, name: str) -> Tensor:
    if source_rate <= 0 or sample_rate <= 0:
        raise InputError(f"{name}: sample rates must be positive, not {source_rate} and {sample_rate} Hz")
    if mono.size == 0:
        raise InputError(f"{name}: no samples (zero length); leave the recording out or record it again")
    peak = max(abs(float(mono.max())), abs(float(mono.min())))
    if not math.isfinite(peak):
        raise InputError(f"{name}: NaN or infinite samples; repair the recording or leave it out")
    if peak > _LARGEST_SAMPLE:
        raise InputError(f"{name}: samples up to {peak:.0e}, where full scale is 1; scale the recording down")
    if source_rate != sample_rate:
        mono = soxr.resample(mono, source_rate, sample_rate)
        if mono.size == 0:
            raise InputError(f"{name}: too short, nothing is left at {sample_rate} Hz; leave the recording out")
    # A copy where numpy only lent a view or read-only memory: tensors are written to.
    return torch.from_numpy(np.require(mono, dtype=np.float32, requirements=["C", "W"]))


def _is_cut_short(path: AudioPath, kind: str) -> bool:
    """Whether a container promises more bytes than the file has; libsndfile reads such wav and ogg files silently."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if kind in ("WAV", "WAVEX"):
            return _wav_is_cut(file, size)
        if kind == "OGG":
            return _ogg_is_cut(file, size)
    return False


def _wav_is_cut(file: io.BufferedReader, size: int) -> bool:
    position = 12  # after "RIFF", the length, and "WAVE"
    while position + 8 <= size:
        file.seek(position)
        header = file.read(8)
        length = struct.unpack("<I", header[4:])[0]
        if header[:4] == b"data":
            return position + 8 + length > size and length < _UNKNOWN_WAV_SIZE
        position += 8 + length + length % 2
    return False


def _ogg_is_cut(file: io.BufferedReader, size: int) -> bool:
    start = max(0, size - _LARGEST_OGG_PAGE)
    file.seek(start)
    tail = file.read()
    page = tail.rfind(b"OggS")
    if page < 0:
        return False
    header = tail[page : page + 27]
    segments = tail[page + 27 : page + 27 + header[26]] if len(header) == 27 else b""
    if len(header) < 27 or len(segments) < header[26]:
        return True
    return start + page + 27 + len(segments) + sum(segments) > size
