"""Sound events out of recordings, with a trained model: files of any length, batches, arrays and streams."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pmam_plugin.audio import audio_blocks, audio_info, to_mono_resampled
from pmam_plugin.checkpoints.folder import model_config, save_model
from pmam_plugin.checkpoints.hub_folder import BUILTIN
from pmam_plugin.config import from_config, to_config
from pmam_plugin.errors import InputError
from pmam_plugin.hub import load_model, model_card, push_model
from pmam_plugin.inference.long_audio import Cutter, Grid, Joiner, Window
from pmam_plugin.models.base import Detection, SoundEventModel, frame_table
from pmam_plugin.nn.precision import choose_precision
from pmam_plugin.postprocessing.filters import PostProcessing

if TYPE_CHECKING:
    from pmam_plugin.inference.streaming import SoundEventStream

logger = logging.getLogger(__name__)

Audio = str | os.PathLike[str] | np.ndarray | Tensor
Progress = Callable[[str, float, float], None]
"""Called with a recording's name, the seconds done and the seconds in all."""


@dataclass
class Result:
    """What became of one recording.

    Attributes:
        source: as it was given.
        name: the file's name, or ``recording_<n>`` for an array.
        seconds: its length.
        scores: scores table; empty after an error.
        events: events table; empty after an error.
        error: why there is no result, or None.
    """

    source: Audio
    name: str
    seconds: float = 0.0
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    events: pd.DataFrame = field(default_factory=pd.DataFrame)
    error: InputError | None = None


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
        postprocessing: turns raw scores into the scores and events to report; None means no filter, threshold 0.5.
        options: keyword arguments of the model's forward (``windows``, ``temperature``) for post-processed scores.
        device: None takes the GPU if there is one.
        precision: of the network; the front end always works in float32. The default gives the same scores on every
            machine; ``"auto"`` is bfloat16 where the device multiplies it fast, else float32.
        batch_size: clips scored at a time.

    Raises:
        InputError: the device or its precision is not there, or the batch size is not positive.
    """

    def __init__(
        self,
        model: SoundEventModel,
        postprocessing: PostProcessing | None = None,
        options: Mapping[str, Any] | None = None,
        device: str | torch.device | None = None,
        precision: str = "float32",
        batch_size: int = 8,
    ) -> None:
        self.device = _device(device)
        self.model = model.to(self.device).eval()
        self.postprocessing = PostProcessing() if postprocessing is None else postprocessing
        self.options = dict(options or {})
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size}: must be at least 1")
        self.batch_size = batch_size
        self.config: dict[str, Any] = {}
        self.precision = choose_precision(precision, self.device)
        if self.precision.warning:
            logger.warning(self.precision.warning)
        self._autocast = self.precision.autocast(self.device)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] = BUILTIN,
        revision: str | None = None,
        device: str | torch.device | None = None,
        token: str | None = None,
        **settings: Any,
    ) -> SoundEventDetector:
        """Load a model folder, or fetch one from the Hugging Face Hub (once; later uses work offline).

        Args:
            source: folder, Hub id (``org/name``), or ``"builtin"``, the small demonstration model of the package, which
                knows ten synthetic sounds.
            revision: branch, tag or commit of a Hub repository.
            device: see the class.
            token: for a private repository; by default the one ``hf auth login`` stored.
            settings: ``precision``, ``batch_size``.

        Raises:
            InputError: there is no such model, or its files are not whole or do not fit this version.
        """
        loaded = load_model(source, revision, token=token)
        detector = cls(loaded.model, loaded.postprocessing, loaded.options, device, **settings)
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
        provenance = self.config.get("provenance")
        card = model_card(model_config(self.model, self.postprocessing, provenance, self.options))
        return save_model(folder, self.model, self.postprocessing, provenance, card, half, self.options)

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
        provenance = self.config.get("provenance")
        return push_model(
            self.model, repository, self.postprocessing, provenance, half=half, options=self.options, **publishing
        )

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
            progress: called while a recording is being read.

        Yields:
            One result per recording, in order.
        """
        rule = self.postprocessing if threshold is None else _changed(self.postprocessing, threshold=threshold)
        for result in self._results(recordings, sample_rate, True, None, progress):
            if result.error is None:
                result.events = rule.events(result.scores, result.name)
            yield result

    def stream(self, sample_rate: int | None = None, latency: float | None = None) -> SoundEventStream:
        """A stream to feed audio to as it is recorded.

        Args:
            sample_rate: of the audio that will be fed, Hz; None means the model's.
            latency: seconds after which a score is final, at most the model's clip length (the default, which gives the
                scores of the whole file). Smaller values cost more computing: two clips are scored per ``latency``.
        """
        from pmam_plugin.inference.streaming import SoundEventStream

        return SoundEventStream(self, self.sample_rate if sample_rate is None else sample_rate, latency)

    def grid(self, reach_seconds: float | None = None) -> Grid:
        """The windows this model hears; ``reach_seconds`` as in :class:`~pmam_plugin.inference.long_audio.Grid`."""
        samples = round(self.model.clip_seconds * self.sample_rate)
        frames = self.model.output_frames(samples)
        reach = frames if reach_seconds is None else round(reach_seconds * self.frame_rate)
        return Grid(samples, frames, self.sample_rate / self.frame_rate, min(max(reach, 2), frames))

    @torch.inference_mode()
    def forward(self, windows: Sequence[Window], options: Mapping[str, Any]) -> Detection:
        """The model's output for windows, padded to its clip length."""
        grid = self.grid()
        waves = torch.zeros(len(windows), grid.clip_samples)
        padding = torch.zeros(len(windows), grid.clip_frames, dtype=torch.bool)
        for row, window in enumerate(windows):
            waves[row, : len(window.samples)] = window.samples
            padding[row, window.frames :] = True
        features = self.model.frontend(waves.to(self.device))
        with self._autocast():
            # None where nothing is padded: a mask of zeros may take another, slightly different route.
            return self.model(features, padding=padding.to(self.device) if padding.any() else None, **options)

    def masked_frames(self, detection: Detection, windows: Sequence[Window], mask: bool) -> list[np.ndarray]:
        """Frame scores of every window, ``(window.frames, classes)``, times the clip-level mask if asked for."""
        frames = detection.frames.float().cpu().numpy()
        scores = [frames[row, : window.frames] for row, window in enumerate(windows)]
        if not mask or self.postprocessing.weak_mask == "none":
            return scores
        masking = PostProcessing(weak_mask=self.postprocessing.weak_mask)
        ones = pd.DataFrame([[0.0, 1.0, *np.ones(len(self.labels))]], columns=["onset", "offset", *self.labels])
        clips = self.model.clip_scores(detection).float().cpu().tolist()
        factors = [masking(ones, clip)[list(self.labels)].to_numpy(np.float32) for clip in clips]
        return [values * factor for values, factor in zip(scores, factors, strict=True)]

    def _results(
        self,
        recordings: Iterable[Audio],
        sample_rate: int | None,
        postprocess: bool,
        temperature: float | None,
        progress: Progress | None,
    ) -> Iterator[Result]:
        options = dict(self.options) if postprocess else {}
        if temperature is not None and not temperature > 0:
            raise InputError(f"temperature {temperature}: must be more than 0; it divides the logits")
        if temperature is not None:
            options["temperature"] = temperature
        waiting: list[_Recording] = []
        queue: list[tuple[_Recording, Window]] = []
        for number, audio in enumerate(recordings):
            recording = _Recording(audio, number, self.grid())
            waiting.append(recording)
            for window in recording.windows(self.sample_rate, sample_rate, progress):
                queue.append((recording, window))
                if len(queue) == self.batch_size:
                    self._score(queue, options, postprocess)
                    queue = []
            while waiting and waiting[0].done:
                yield waiting.pop(0).result(self, postprocess)
        if queue:
            self._score(queue, options, postprocess)
        for recording in waiting:
            yield recording.result(self, postprocess)

    def _score(self, queue: list[tuple[_Recording, Window]], options: Mapping[str, Any], postprocess: bool) -> None:
        windows = [window for _, window in queue]
        detection = self.forward(windows, options)
        if any(recording.whole for recording, _ in queue):
            seconds = [recording.cutter.received / self.sample_rate for recording, _ in queue]
            tables = self.model.score_tables(detection, seconds)
            clips = self.model.clip_scores(detection).float().cpu().tolist()
        joined = self.masked_frames(detection, windows, postprocess)
        for row, (recording, window) in enumerate(queue):
            recording.scored += 1
            if recording.whole:
                recording.table = self.postprocessing(tables[row], clips[row]) if postprocess else tables[row]
            else:
                recording.rows.append(recording.joiner.add(window, joined[row]))


class _Recording:
    """A recording on its way through the detector."""

    def __init__(self, source: Audio, number: int, grid: Grid) -> None:
        self.source = source
        self.is_file = isinstance(source, str | os.PathLike)
        self.name = Path(os.fspath(source)).name if self.is_file else f"recording_{number + 1}"  # type: ignore[arg-type]
        self.cutter, self.joiner = Cutter(grid), Joiner(grid)
        self.cut = self.scored = 0
        self.whole = self.ended = False  # whole: one window holds it all
        self.rows: list[np.ndarray] = []
        self.table: pd.DataFrame | None = None
        self.error: InputError | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or (self.ended and self.scored == self.cut)

    def windows(self, rate: int, sample_rate: int | None, progress: Progress | None) -> Iterator[Window]:
        """Windows at ``rate``; an unreadable recording ends them and sets ``error``."""
        try:
            total = audio_info(self.source).duration if progress and self.is_file else 0.0  # type: ignore[arg-type]
            for block in self._blocks(rate, sample_rate):
                for window in self.cutter.feed(block):
                    self.cut += 1
                    yield window
                    if progress:
                        progress(self.name, window.end_frame * self.cutter.grid.samples_per_frame / rate, total)
            last = self.cutter.finish()
            self.whole, self.ended = self.cut == 0, True
            self.cut += len(last)
            yield from last
            if progress:
                progress(self.name, self.cutter.received / rate, self.cutter.received / rate)
        except InputError as error:
            self.error = error

    def _blocks(self, rate: int, sample_rate: int | None) -> Iterator[Tensor]:
        if self.is_file:
            yield from audio_blocks(self.source, rate)  # type: ignore[arg-type]
        elif not isinstance(self.source, np.ndarray | Tensor | Sequence) or isinstance(self.source, bytes):
            kind = type(self.source).__name__
            raise InputError(
                f"{self.name}: {kind} is no audio; give the path of a file, or samples as an array or tensor"
            )
        elif sample_rate is None:
            raise InputError(f"{self.name}: samples were given without their sample_rate; pass sample_rate=...")
        else:
            yield to_mono_resampled(self.source, sample_rate, rate)  # type: ignore[arg-type]

    def result(self, detector: SoundEventDetector, postprocess: bool) -> Result:
        if self.error is not None:
            return Result(self.source, self.name, error=self.error)
        seconds = self.cutter.received / detector.sample_rate
        if self.table is None:
            self.table = frame_table(np.concatenate(self.rows), seconds, detector.frame_rate, detector.labels)
            if postprocess:
                self.table = _changed(detector.postprocessing, weak_mask="none")(self.table)
        return Result(self.source, self.name, seconds, self.table)


def _changed(postprocessing: PostProcessing, **changes: Any) -> PostProcessing:
    return from_config({**to_config(postprocessing), **changes})


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
