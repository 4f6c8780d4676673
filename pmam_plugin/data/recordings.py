"""Look at every recording once: how long it is, and whether it can be read at all."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pmam_plugin.audio import audio_info, read_audio
from pmam_plugin.errors import InputError

logger = logging.getLogger(__name__)

# Decoding hours of sound at once would fill the memory; the header has to do for such recordings.
_LONGEST_DECODED_SECONDS = 600.0
_SECONDS_BETWEEN_REPORTS = 10.0


@dataclass(frozen=True)
class Recording:
    """One audio file.

    Attributes:
        path: of the file.
        size: in bytes.
        seconds: length; 0 when it cannot be read.
        sample_rate: in Hz.
        problem: why it cannot be used, None when it can.
    """

    path: Path
    size: int
    seconds: float
    sample_rate: int
    problem: str | None = None


def examine(files: Iterable[tuple[Path, int]], decode: bool = True) -> dict[Path, Recording]:
    """Read headers, and the samples too, of many files at a time.

    Args:
        files: path and size of each.
        decode: also decode recordings of up to ten minutes, which finds what a header hides (cut files, NaN).

    Returns:
        A recording per path, problems included.
    """
    listed = list(files)
    workers = min(8, os.cpu_count() or 1)
    found: dict[Path, Recording] = {}
    reported = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        for recording in pool.map(lambda item: _examine(item[0], item[1], decode), listed):
            found[recording.path] = recording
            if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
                reported = time.monotonic()
                logger.info("checked %d of %d recordings", len(found), len(listed))
    return found


def _examine(path: Path, size: int, decode: bool) -> Recording:
    try:
        info = audio_info(path)
        if info.frames <= 0:
            raise InputError(f"{path}: no samples (zero length); leave the recording out or record it again")
        if decode and info.duration <= _LONGEST_DECODED_SECONDS:
            read_audio(path, info.sample_rate)
        return Recording(path, size, info.duration, info.sample_rate)
    except InputError as error:
        return Recording(path, size, 0.0, 0, str(error))
