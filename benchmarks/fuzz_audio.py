"""Recordings with broken headers: does each end in samples or in a sentence, soon, and in little memory?

For every format and codec that libsndfile writes, and for tagged and chained ones, bytes of the first 512 and the last
64 of a short recording are changed, cut out, put in twice or cut off. Every mutation is read by a worker process, which
may neither raise anything but InputError, nor die, nor take longer than 5 s::

    python benchmarks/fuzz_audio.py --mutations 10000
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import soundfile

from pmam_plugin.audio import audio_blocks, audio_info
from pmam_plugin.errors import InputError

RATE = 16000
LIMIT_SECONDS = 5.0
_HEADER_BYTES, _TAIL_BYTES = 512, 64
_EXTREMES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\x01")


@dataclass
class Figures:
    """What became of the mutations."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    slowest_of: str = ""
    peak_megabytes: float = 0.0
    start_megabytes: float = 0.0


@lru_cache
def recordings() -> dict[str, bytes]:
    """A short recording in every format and codec that libsndfile writes, and some with tags."""
    noise = 0.2 * np.random.default_rng(0).standard_normal((RATE // 4, 2)).astype(np.float32)
    found: dict[str, bytes] = {}
    for kind in sorted(soundfile.available_formats()):
        if kind in ("RAW", "SD2"):  # without a header
            continue
        for subtype in soundfile.available_subtypes(kind):
            for channels, rate in ((2, RATE), (1, RATE), (1, 8000)):
                buffer = io.BytesIO()
                try:
                    soundfile.write(buffer, noise[:, :channels], rate, format=kind, subtype=subtype)
                except (soundfile.LibsndfileError, ValueError):
                    continue
                found[f"{kind}/{subtype}"] = buffer.getvalue()
                break
    return found | tagged(found)


def tagged(plain: dict[str, bytes]) -> dict[str, bytes]:
    """Recordings between the tags that players write, and a chain of two."""
    facts = struct.pack("<IIII8x", 2000, 32 + 16, 1, 0xA0000000)
    ape = b"APETAGEX" + facts + bytes(16) + b"APETAGEX" + facts[:12] + b"\0\0\0\x80" + bytes(8)
    id3, end = b"ID3\x04\0\0\0\0\0\x10" + bytes(16), b"LYRICSBEGINLYRICS200" + ape + b"TAG" + bytes(9)
    mp3, flac, opus = (plain[name] for name in ("MP3/MPEG_LAYER_III", "FLAC/PCM_16", "OGG/OPUS"))
    return {
        "MP3/tags": id3 + ape + mp3 + end,
        "MP3/no count": id3 + mp3[mp3.index(mp3[:2], 4) :] + end,
        "FLAC/tags": id3 + flac + end,
        "OGG/chain": opus + opus,
    }


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The recording with one to four changes near its ends."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 4))):
        if not data:
            break
        place = chance.randrange(min(len(data), _HEADER_BYTES))
        if chance.random() < 0.1:
            place = max(0, len(data) - 1 - chance.randrange(_TAIL_BYTES))
        width = chance.choice((1, 1, 2, 4, 4, 8))
        kind = chance.random()
        if kind < 0.45:
            data[place : place + width] = chance.randbytes(width)[: len(data) - place]
        elif kind < 0.75:
            data[place : place + width] = (chance.choice(_EXTREMES) * width)[: len(data) - place]
        elif kind < 0.85:
            del data[place : place + chance.choice((1, 2, 4, 16, 100))]
        elif kind < 0.95:
            data[place:place] = data[place : place + chance.choice((1, 2, 4, 16, 100))]
        else:
            del data[chance.randrange(len(data)) :]
    return bytes(data)


def mutations(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many mutations, the same for every format in turn."""
    chance, sources = random.Random(seed), list(recordings().items())
    for number in range(count):
        name, content = sources[number % len(sources)]
        yield f"{name} #{number}", mutated(content, chance)


def run(count: int, seed: int = 0, folder: Path | None = None) -> Figures:
    """Read so many mutations.

    Args:
        count: how many.
        seed: of the mutations.
        folder: where those that failed are kept; None keeps none.
    """
    figures, worker = Figures(), _Worker()
    try:
        for name, content in mutations(count, seed):
            outcome, seconds, megabytes = worker.read(content)
            figures.outcomes[outcome.partition(":")[0]] += 1
            if seconds > figures.slowest:
                figures.slowest, figures.slowest_of = seconds, name
            figures.peak_megabytes = max(figures.peak_megabytes, megabytes)
            if outcome not in ("heard", "refused"):
                figures.failures.append(f"{name}: {outcome}")
                if folder is not None:
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / name.replace("/", "_").replace(" #", "_")).write_bytes(content)
        figures.start_megabytes = worker.start_megabytes
    finally:
        worker.stop()
    return figures


class _Worker:
    """A process that reads, replaced when it dies or takes too long."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name, "a.wav")
        self._start()

    def read(self, content: bytes) -> tuple[str, float, float]:
        """Outcome, seconds and the highest memory of the process so far in MB."""
        self._path.write_bytes(content)
        begin = time.monotonic()
        self._pipe.send(True)
        try:
            if self._pipe.poll(LIMIT_SECONDS):
                outcome, megabytes = self._pipe.recv()
                return outcome, time.monotonic() - begin, megabytes
            outcome = "slow: more than 5 s"
        except EOFError:
            outcome = "died"
        seconds = time.monotonic() - begin
        self._end()
        self._start()
        return outcome, seconds, 0.0

    def stop(self) -> None:
        """End the process."""
        self._end()
        self._folder.cleanup()

    def _start(self) -> None:
        self._pipe, other = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(target=_serve, args=(other, str(self._path)))
        self._process.start()
        other.close()
        self.start_megabytes = self._pipe.recv()

    def _end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, path: str) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)  # decoders print their troubles
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    pipe.send(_megabytes())
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        try:
            frames = audio_info(path).frames
            heard = sum(len(block) for block in audio_blocks(path, RATE, notes=lambda _: None))
            outcome = "heard" if frames and heard else "empty"
        except InputError as error:
            message = str(error)
            outcome = "refused" if message.startswith(path) and "\n" not in message else f"unclear: {message}"
        except BaseException as error:
            outcome = f"raised: {error!r}"
        pipe.send((outcome, _megabytes()))


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(arguments: list[str]) -> int:
    """Print the figures; 1 if any mutation failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=None, metavar="DIR", help="keep the recordings that failed here")
    options = parser.parse_args(arguments)
    begin = time.monotonic()
    figures = run(options.mutations, options.seed, options.keep)
    print(f"{options.mutations} mutations of {len(recordings())} formats in {time.monotonic() - begin:.0f} s")
    print(", ".join(f"{outcome} {count}" for outcome, count in sorted(figures.outcomes.items())))
    print(f"slowest {figures.slowest:.2f} s ({figures.slowest_of})")
    print(f"memory {figures.start_megabytes:.0f} MB at the start, {figures.peak_megabytes:.0f} MB at most")
    for failure in figures.failures[:50]:
        print(f"FAILED {failure}")
    return int(bool(figures.failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
