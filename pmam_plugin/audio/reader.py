"""The one reader: a recording as blocks of samples, counted and checked until its decoder gives nothing more.

Decoding is soundfile's (libsndfile). No header is believed: :mod:`~pmam_plugin.audio.layout` says which bytes are sound
and how much must come of them. Whatever is wrong with a recording ends in one
:class:`~pmam_plugin.errors.InputError` that names it, so that callers need to know one exception only.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from pmam_plugin.audio.containers import au_layout, caf_layout, iff_layout, riff_layout, w64_layout
from pmam_plugin.audio.flac import flac_layout
from pmam_plugin.audio.foreign import appears_as, known_as
from pmam_plugin.audio.layout import Layout, Part, View, bytes_at, cut_short
from pmam_plugin.audio.mpeg import after_id3, is_mpeg, mpeg_layout
from pmam_plugin.audio.ogg import ogg_layout
from pmam_plugin.audio.others import check_promise
from pmam_plugin.audio.resampling import RATES, check_samples
from pmam_plugin.audio.shards import Member
from pmam_plugin.errors import InputError

AudioPath = str | os.PathLike[str]

BLOCK_SECONDS = 30.0
"""Recordings are read and resampled in blocks of at most this length."""
_BLOCK_VALUES = 1 << 22
_PROBE = 1 << 12
# ValueError: what soundfile makes of a format it has no name for. MemoryError: a header that lies.
_DECODING_ERRORS = (soundfile.SoundFileError, OSError, TypeError, ValueError, MemoryError)
_UNKNOWN_FRAMES = 1 << 53
# A byte of the densest codec (FLAC's silence) stands for fewer values: more come from a decoder that never ends.
_VALUES_PER_BYTE = 10_000
# Floats at the scale of integers; recordings that merely clip stay far below.
_INTEGER_SCALE = 32.0
_CANCELLED = 0.02
# Of files that it does not know at once libsndfile, which is told no names, takes these for the other halves on a
# Mac, and refuses every MP3.
_FORKS = (".AppleDouble", "._")
_REASONS = {
    "Format not recognised.": "no format that is known",
    "Internal error : SF_INFO struct incomplete": "its header states no possible sample rate or channel count",
    "File contains data in an unimplemented format.": "samples of a form that is not supported",
}


class _Decoder(soundfile.SoundFile):
    """Reads on until nothing comes. Soundfile's own stops at the header's count, and seeks after every block, which
    makes decoders repeat the last one at an end they did not expect."""

    def seekable(self) -> bool:
        return False


class AudioReader:
    """One recording, block by block; a context manager.

    Args:
        path: a file of any format libsndfile reads, of any rate, length and channel count; also one in a shard.

    Attributes:
        sample_rate: in Hz.
        channels: how many.
        subtype: libsndfile's name of the codec, such as ``PCM_16``.
        frames: samples per channel that must come; 0 when nobody knows before they have been read.
        notes: what is odd about the recording, each a sentence with its cure; complete once it has been read.

    Raises:
        InputError: the file is missing, empty, a folder, cut short, or no audio that can be decoded.
    """

    def __init__(self, path: AudioPath) -> None:
        self.name = shown_path(path)
        size = _require_file(path)
        try:
            file = path.shard if isinstance(path, Member) else path
            self._file: BinaryIO = open(file, "rb", buffering=1 << 16)  # noqa: SIM115 - closed by close()
            self._original = self._file
            if isinstance(path, Member):
                self._narrow(path.offset, path.offset + size)
            tag = after_id3(self._file, 0, size) if bytes_at(self._file, 0, 3) == b"ID3" else 0
            self._tagged = 0 < tag < size  # which some programs write in front of other formats than MP3 too
            if self._tagged:
                self._narrow(tag, size)
                size -= tag
        except OSError as error:
            raise InputError(
                f"{path}: cannot be opened ({error.strerror}); check the path and its permissions"
            ) from error
        try:
            self._size, self._limit = size, _VALUES_PER_BYTE * size + _BLOCK_VALUES
            self._layout = self._examine(size) or Layout((((0, size),),))
            self.notes = list(self._layout.notes)
            heads = [self._head(parts) for parts in self._layout.streams]
        except BaseException:
            self.close()
            raise
        self.sample_rate, self.channels, _, self.subtype = heads[0]
        if any((rate, channels) != (self.sample_rate, self.channels) for rate, channels, *_ in heads):
            self.close()
            raise InputError(
                f"{self.name}: changes its sample rate or its channels on the way; convert it to wav with one of each"
            )
        announced = sum(frames for _, _, frames, _ in heads)
        self.frames = self._layout.frames if self._layout.frames is not None else announced
        if self.frames >= _UNKNOWN_FRAMES:
            self.frames = 0

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._original.close()

    def blocks(self, start: int = 0, count: int | None = None) -> Iterator[np.ndarray]:
        """Samples as float32 ``(samples, channels)``, in blocks of at most 30 s.

        Args:
            start: samples per channel to leave out.
            count: how many are wanted; None means all, and only then the length is checked and notes are complete.

        Raises:
            InputError: what comes is no sound, is not sane, or less than must come.
        """
        sanity, heard = _Sanity(self.name, self.subtype), 0
        end = None if count is None else start + count
        longest = min(round(BLOCK_SECONDS * self.sample_rate), _BLOCK_VALUES // self.channels)
        block = max(1, longest if count is None else min(longest, count))
        for parts in self._layout.streams:
            skipped = start if len(self._layout.streams) == 1 else 0
            heard += skipped
            for samples in self._decode(parts, block, skipped):
                first, heard = heard, heard + len(samples)
                if heard * self.channels > self._limit:
                    raise InputError(f"{self.name}: its decoder does not come to an end; convert the file again")
                wanted = samples[max(0, start - first) : None if end is None else end - first]
                if len(wanted):
                    sanity.look_at(wanted)
                    yield wanted
                if end is not None and heard >= end:
                    return
        self._check_length(heard)
        self.notes += sanity.notes()

    def _narrow(self, begin: int, end: int) -> None:
        """Read a stretch of the file as if it were all of it."""
        self._file = io.BufferedReader(View(self._file, ((begin, end),)), 1 << 16)  # type: ignore[assignment]

    def _check_length(self, heard: int) -> None:
        if heard + self._layout.slack < self.frames:
            raise cut_short(self.name)
        if heard > self.frames + self._layout.slack and self.frames:
            self.notes.append(
                f"{self.name}: its header says {self.frames / self.sample_rate:.2f} s and "
                f"{heard / self.sample_rate:.2f} s are there; all of them are read"
            )

    def _decode(self, parts: tuple[Part, ...], block: int, skip: int) -> Iterator[np.ndarray]:
        view = View(self._file, parts)
        try:
            with _Decoder(view) as decoder:
                sought = _seek(decoder, skip)
                if sought:
                    yield from self._rest(decoder, block, skip)
            if not sought:  # a codec that only runs forward
                with _Decoder(View(self._file, parts)) as decoder:
                    for samples in self._rest(decoder, block):
                        left_out, skip = min(skip, len(samples)), max(0, skip - len(samples))
                        if left_out < len(samples):
                            yield samples[left_out:]
        except _DECODING_ERRORS as error:
            raise self._refusal(error) from error
        if view.failure is not None:
            raise self._refusal(view.failure) from view.failure

    def _rest(self, decoder: soundfile.SoundFile, block: int, done: int = 0) -> Iterator[np.ndarray]:
        while True:
            # Beyond the end libsndfile fills what was asked for with zeros: ask for little there.
            size = min(block, max(self.frames - done, _PROBE)) if self.frames else block
            samples = decoder.read(size, dtype="float32", always_2d=True)
            if not len(samples):
                return
            done += len(samples)
            yield samples

    def _head(self, parts: tuple[Part, ...]) -> tuple[int, int, int, str]:
        view = View(self._file, parts)
        try:
            with _Decoder(view) as decoder:
                head = decoder.samplerate, decoder.channels, decoder.frames, decoder.subtype
        except _DECODING_ERRORS as error:
            raise self._refusal(view.failure or error) from error
        if not RATES[0] <= head[0] <= RATES[1]:
            raise InputError(f"{self.name}: a sample rate of {head[0]} Hz is none of sound; convert the file again")
        return head

    def _examine(self, size: int) -> Layout | None:
        magic = bytes_at(self._file, 0, 16)
        if foreign := known_as(self._file):
            raise InputError(f"{self.name}: is {foreign}")
        try:
            examine = _layout_of(magic)
            if examine is not None:
                return examine(self._file, size, self.name)
            looks_mpeg = magic[0] == 0xFF or self.name.lower().endswith((".mp3", ".mp2", ".mpga"))
            if (looks_mpeg or self._tagged) and is_mpeg(self._file, 0, size):
                return mpeg_layout(self._file, 0, size, self.name)
            with _Decoder(View(self._file, ((0, size),))) as decoder:
                kind = decoder.format
            check_promise(self._file, size, self.name, kind)
            return None
        except InputError:
            raise
        except (*_DECODING_ERRORS, IndexError, ArithmeticError, struct.error) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: BaseException) -> InputError:
        if not isinstance(error, OSError) and (foreign := appears_as(self._file, self._size)):
            return InputError(f"{self.name}: is {foreign}")
        reason = getattr(error, "error_string", None) or str(error) or type(error).__name__
        reason = _REASONS.get(reason, reason)
        if fork := next((name for name in _FORKS if os.path.lexists(name)), None):
            reason = f"{reason.strip().rstrip('.')}, perhaps for the {fork} in the current folder: run from another one"
        return InputError(
            f"{self.name}: cannot be decoded ({reason.strip().rstrip('.')}); give a whole wav, flac, ogg or mp3 file"
        )


class _Sanity:
    """Looks at all samples of a recording: refuses what is no sound, notes what is scaled or cancels."""

    def __init__(self, name: str, subtype: str) -> None:
        self.name, self._floats = name, subtype in ("FLOAT", "DOUBLE")
        self._peak = self._mono_energy = self._energy = 0.0
        self._channels = 1

    def look_at(self, samples: np.ndarray) -> None:
        self._peak = max(self._peak, check_samples(samples, self.name))
        self._channels = samples.shape[1]
        if self._channels > 1:
            products = samples.T @ samples  # of every channel with every other
            self._mono_energy += float(products.sum()) / self._channels**2
            self._energy += float(np.trace(products)) / self._channels

    def notes(self) -> list[str]:
        found = []
        if self._floats and self._peak > _INTEGER_SCALE:
            found.append(
                f"{self.name}: floating-point samples up to {self._peak:.0f}, where full scale is 1, seem to be scaled "
                "as integers; divide them by their full scale (such as 32768)"
            )
        if self._energy > 0 and self._mono_energy < _CANCELLED / self._channels * self._energy:
            found.append(
                f"{self.name}: its {self._channels} channels cancel each other in their average (opposite polarity); "
                "turn one of them over, or save one channel only"
            )
        return found


def shown_path(path: AudioPath) -> str:
    """A path as messages can hold it: also one whose bytes are no UTF-8, or that holds line breaks."""
    text = str(path)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _require_file(path: AudioPath) -> int:
    """The bytes of a file that can be read."""
    name = shown_path(path)
    try:
        status = Path(path.shard if isinstance(path, Member) else path).stat()
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file; check the path or restore the recording") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: cannot be opened ({reason}); check the path and its permissions") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{name}: is a folder; name an audio file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name}: is no regular file; save the audio to a file first")
    size = status.st_size
    if isinstance(path, Member):
        if size < path.offset + path.size:
            raise InputError(f"{name}: lies beyond the end of its shard; fetch that again, and prepare the data again")
        size = path.size
    if size == 0:
        raise InputError(f"{name}: the file is empty (0 bytes); copy or download it again")
    return size


def _layout_of(magic: bytes) -> Callable[[BinaryIO, int, str], Layout | None] | None:
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and magic[8:12] == b"WAVE":
        return riff_layout
    if magic[:4] == b"FORM" and magic[8:12] in (b"AIFF", b"AIFC", b"8SVX", b"16SV"):
        return iff_layout
    by_start = {b"riff": w64_layout, b"caff": caf_layout, b".snd": au_layout, b"dns.": au_layout, b"OggS": ogg_layout}
    by_start[b"fLaC"] = flac_layout
    return by_start.get(magic[:4])


def _seek(decoder: soundfile.SoundFile, frames: int) -> bool:
    try:
        return frames == 0 or decoder.seek(frames) == frames
    except soundfile.SoundFileError:
        return False
