"""Sound events out of recordings, with a trained model: files of any length, batches, arrays and streams."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pmam_plugin.audio import audio_blocks, audio_info, to_mono_resampled
from pmam_plugin.checkpoints.folder import load_model, save_model
from pmam_plugin.checkpoints.hub_folder import BUILTIN, Fetching
from pmam_plugin.config import rebuilt
from pmam_plugin.errors import InputError, Progress
from pmam_plugin.hub import push_model
from pmam_plugin.inference.long_audio import Grid
from pmam_plugin.inference.scoring import Scorer, table_of
from pmam_plugin.models.base import SoundEventModel
from pmam_plugin.nn.precision import choose_precision
from pmam_plugin.postprocessing import EventRows, PostProcessing, ScoreRows, Scoring

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Unpack

    from pmam_plugin.inference.streaming import SoundEventStream

logger = logging.getLogger(__name__)

Audio = str | os.PathLike[str] | np.ndarray | Tensor


@dataclass
class Result:
    """What became of one recording.

    Attributes:
        source: as it was given.
        name: the file's name, or ``recording_<n>`` for an array.
        seconds: its length.
        rows: its scores as arrays; None after an error.
        found: its events as arrays; None after an error, and where nobody asked for them.
        error: why there is no result, or None.
    """

    source: Audio
    name: str
    seconds: float = 0.0
    rows: ScoreRows | None = None
    found: EventRows | None = None
    error: InputError | None = None

    @cached_property
    def scores(self) -> pd.DataFrame:
        """The scores table; empty after an error."""
        return table_of(self.rows)

    @cached_property
    def events(self) -> pd.DataFrame:
        """The events table; empty after an error."""
        if self.found is None:
            return table_of(None)
        return self.found.table(self.name)


class SoundEventDetector:
    """A trained model, ready to use.

    >>> detector = SoundEventDetector.from_pretrained("folder-or-hub-id")  # doctest: +SKIP
    >>> detector.detect("kitchen.wav")  # doctest: +SKIP

    A recording up to the model's clip length (plus less than a frame) is scored in one piece, zero-padded to the clip,
    as in training and evaluation. A longer one is cut into clips that overlap by half; their scores fade into each
    other, and clip-level masks of the post-processing apply clip by clip. No more than a clip and a block of audio are
    in memory.

    Args:
        model: a full model.
        scoring: how its output becomes the scores and events to report; None means no filter, threshold 0.5.
        device: None takes the GPU if there is one.
        precision: of the network; the front end always works in float32. The default gives the same scores on every
            machine; ``"auto"`` is bfloat16 where the device multiplies it fast, else float32.
        batch_size: clips scored at a time.
        compiled: by ``torch.compile``: the first recording waits for it (minutes on a CPU, which needs a C++
            compiler), many hours of sound are scored faster on a GPU.

    Raises:
        InputError: the device or its precision is not there, or the batch size is not positive.
    """

    def __init__(
        self,
        model: SoundEventModel,
        scoring: Scoring | None = None,
        device: str | torch.device | None = None,
        precision: str = "float32",
        batch_size: int = 8,
        compiled: bool = False,
    ) -> None:
        self.device = _device(device)
        self.model = model.to(self.device).eval()
        if compiled:
            self.model.compile()
        self.scoring = Scoring() if scoring is None else scoring
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size}: must be at least 1")
        self.batch_size = batch_size
        self.config: dict[str, Any] = {}
        self.precision = choose_precision(precision, self.device)
        if self.precision.warning:
            logger.warning(self.precision.warning)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] = BUILTIN,
        revision: str | None = None,
        device: str | torch.device | None = None,
        precision: str = "float32",
        batch_size: int = 8,
        compiled: bool = False,
        **fetching: Unpack[Fetching],
    ) -> SoundEventDetector:
        """Load a model folder, or fetch one from the Hugging Face Hub (once; later uses work offline).

        Args:
            source: folder, Hub id (``org/name``), or ``"builtin"``, the small model of the package, which knows ten
                household sounds.
            revision: branch, tag or commit of a Hub repository.
            device: see the class, as for the next three.
            precision: of the network.
            batch_size: clips scored at a time.
            compiled: by ``torch.compile``.
            fetching: ``token`` for a private repository (by default the one ``hf auth login`` stored), ``cache_dir``
                (None is the Hub's own cache), ``local_files_only`` (use what was fetched before, and nothing else),
                ``force_download`` (fetch what is in the cache again).

        Raises:
            InputError: there is no such model, or its files are not whole or do not fit this version.
        """
        loaded = load_model(source, revision, **fetching)
        detector = cls(loaded.model, loaded.scoring, device, precision, batch_size, compiled)
        detector.config = loaded.config
        return detector

    def save_pretrained(self, folder: str | os.PathLike[str], half: bool = False) -> Path:
        """Write the model folder that :meth:`from_pretrained` reads; returns it.

        Args:
            folder: made if missing; files of the same names are replaced.
            half: store the weights as float16.

        Raises:
            InputError: the folder cannot be written.
        """
        return save_model(folder, self.model, self.scoring, self.config.get("provenance"), half=half)

    def push_to_hub(self, repository: str, half: bool = False, **publishing: Any) -> str:
        """Publish the model, with its card, on the Hugging Face Hub; returns the commit.

        Args:
            repository: Hub id, ``org/name``; made if there is none.
            half: store the weights as float16.
            publishing: ``private``, ``revision``, ``message``, ``license``, ``dataset``, ``datasets`` and ``token`` of
                :func:`pmam_plugin.hub.push`.

        Raises:
            InputError: the Hub refuses or cannot be reached.
        """
        return push_model(self.model, repository, self.scoring, self.config.get("provenance"), half=half, **publishing)

    @property
    def postprocessing(self) -> PostProcessing:
        """Weak mask, filters or boxes, and thresholds of its scoring."""
        return self.scoring.postprocessing

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the score columns."""
        return self.model.labels

    @property
    def sample_rate(self) -> int:
        """Sample rate the model works at, Hz; other rates are resampled."""
        return self.model.sample_rate

    @property
    def frame_rate(self) -> float:
        """Scores per second."""
        return self.model.frame_rate

    def scores(
        self,
        audio: Audio,
        sample_rate: int | None = None,
        postprocess: bool = True,
        temperature: float | None = None,
    ) -> pd.DataFrame:
        """Scores table of a recording.

        Args:
            audio: a file, or samples ``(samples,)`` or with a channel axis.
            sample_rate: of samples, Hz; needed for them, not for a file.
            postprocess: as the model's configuration says. False gives the model's plain forward: no sliding windows,
                filters or masks.
            temperature: divides the logits; None leaves it to the model.

        Returns:
            ``onset, offset, <label>...``, times in seconds.

        Raises:
            InputError: the recording cannot be read.
        """
        result = next(self._results([audio], sample_rate, postprocess, temperature, None))
        if result.error is not None:
            raise result.error
        return result.scores

    def detect(
        self, audio: Audio, sample_rate: int | None = None, threshold: float | Mapping[str, float] | None = None
    ) -> pd.DataFrame:
        """Events of a recording.

        Args:
            audio: a file, or samples ``(samples,)`` or with a channel axis.
            sample_rate: of samples, Hz; needed for them, not for a file.
            threshold: scores above it are events, for all classes or per class; None leaves it to the model.

        Returns:
            ``filename, onset, offset, event_label, score``, times in seconds.

        Raises:
            InputError: the recording cannot be read.
        """
        return self.detect_batch([audio], sample_rate, threshold)

    def detect_batch(
        self,
        recordings: Sequence[Audio],
        sample_rate: int | None = None,
        threshold: float | Mapping[str, float] | None = None,
    ) -> pd.DataFrame:
        """Events of many recordings in one table; arguments as in :meth:`detect`.

        Raises:
            InputError: a recording cannot be read (:meth:`detect_each` goes on with the others), or there is no list.
        """
        if isinstance(recordings, str | os.PathLike):
            raise InputError(f"{recordings}: is one recording; call detect, or give a list of them")
        import pandas as pd

        tables = []
        for result in self.detect_each(recordings, sample_rate, threshold):
            if result.error is not None:
                raise result.error
            tables.append(result.events)
        return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)

    def detect_each(
        self,
        recordings: Iterable[Audio],
        sample_rate: int | None = None,
        threshold: float | Mapping[str, float] | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Result]:
        """Scores and events of recordings one after the other; one that fails does not stop the rest.

        Args:
            recordings: files or samples.
            sample_rate: of samples, Hz.
            threshold: see :meth:`detect`.
            progress: called while a recording is being read, with its name and seconds.

        Yields:
            One result per recording, in order.
        """
        rule = self.postprocessing if threshold is None else rebuilt(self.postprocessing, threshold=threshold)
        for result in self._results(recordings, sample_rate, True, None, progress):
            if result.rows is not None:
                result.found = rule.event_rows(result.rows)
            yield result

    def stream(self, sample_rate: int | None = None, latency: float | None = None) -> SoundEventStream:
        """A stream to feed audio to as it is recorded.

        Args:
            sample_rate: of the audio that will be fed, Hz; None means the model's.
            latency: seconds after which a score is final, at most the model's clip length (the default, which gives the
                scores of the whole file). Smaller values cost more computing: two clips are scored per ``latency``.
        """
        from pmam_plugin.inference.streaming import SoundEventStream

        rate = self.sample_rate if sample_rate is None else sample_rate
        return SoundEventStream(self._scorer(self.scoring), rate, latency)

    def grid(self, reach_seconds: float | None = None) -> Grid:
        """The windows this model hears; ``reach_seconds`` as in :class:`~pmam_plugin.inference.long_audio.Grid`."""
        return self._scorer(self.scoring).grid(reach_seconds)

    def _results(
        self,
        recordings: Iterable[Audio],
        sample_rate: int | None,
        postprocess: bool,
        temperature: float | None,
        progress: Progress | None,
    ) -> Iterator[Result]:
        scoring = self.scoring if postprocess else Scoring()
        if temperature is not None:
            scoring = rebuilt(scoring, temperature=temperature)
        sources: list[_Source] = []

        def blocks() -> Iterator[Iterator[Tensor]]:
            for number, audio in enumerate(recordings):
                sources.append(_Source(audio, number))
                yield sources[-1].blocks(self.sample_rate, sample_rate, progress)

        for scored in self._scorer(scoring).run(blocks()):
            source = sources.pop(0)
            if scored.rows is None:
                yield Result(source.audio, source.name, error=scored.error)
            else:
                rows = scoring.postprocessing.filtered_rows(scored.rows) if postprocess else scored.rows
                yield Result(source.audio, source.name, source.samples / self.sample_rate, rows)

    def _scorer(self, scoring: Scoring) -> Scorer:
        return Scorer(self.model, scoring, self.batch_size, self.precision.autocast(self.device), tags=False)


class _Source:
    """A recording as it was given."""

    def __init__(self, audio: Audio, number: int) -> None:
        self.audio, self.samples = audio, 0
        self.path = audio if isinstance(audio, str | os.PathLike) else None
        self.name = f"recording_{number + 1}" if self.path is None else Path(self.path).name

    def blocks(self, rate: int, sample_rate: int | None, progress: Progress | None) -> Iterator[Tensor]:
        """Mono blocks at ``rate``; counts the samples and tells ``progress``."""
        total = audio_info(self.path).duration if progress and self.path is not None else 0.0
        for block in self._read(rate, sample_rate):
            self.samples += len(block)
            yield block
            if progress:
                progress(self.name, self.samples / rate, max(total, self.samples / rate))

    def _read(self, rate: int, sample_rate: int | None) -> Iterator[Tensor]:
        if self.path is not None:
            yield from audio_blocks(self.path, rate)
        elif not isinstance(self.audio, np.ndarray | Tensor | Sequence) or isinstance(self.audio, bytes):
            kind = type(self.audio).__name__
            raise InputError(
                f"{self.name}: {kind} is no audio; give the path of a file, or samples as an array or tensor"
            )
        elif sample_rate is None:
            raise InputError(f"{self.name}: samples were given without their sample_rate; pass sample_rate=...")
        else:
            yield to_mono_resampled(self.audio, sample_rate, rate)  # type: ignore[arg-type]


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"device {device}: not usable here ({reason}); use device='cpu'") from error
    return chosen
