"""A model folder as an s3prl upstream."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchaudio.transforms import Resample

from pmam_plugin.checkpoints.folder import load_module
from pmam_plugin.checkpoints.hub_folder import BUILTIN, Fetching, fetch_model
from pmam_plugin.encoders.windows import window_starts
from pmam_plugin.errors import InputError
from pmam_plugin.nn.interpolate import interpolate_frames
from pmam_plugin.upstream.layers import hidden_layers

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000  # all of s3prl
SHORTEST = 800  # samples; s3prl's own lower limit, 0.05 s
CLIPS_AT_ONCE = 32


class UpstreamExpert(nn.Module):
    """Hidden states of a model of this package, in the form s3prl expects of an upstream.

    Every state is ``(batch, T, width)`` with ``T = ceil(samples / stride)``, the stride being a whole number of 16 kHz
    samples; a model whose own grid is no such number is interpolated onto one. A clip's states never depend on its
    neighbours in the batch: clips are neither padded nor normalised together, and past the end of a shorter clip the
    states are zero. A clip longer than what the model was trained on is encoded in windows of that length which
    overlap by half, and each frame is taken from the window in whose middle it lies.

    The layers of a model are rarely all equally wide, but s3prl wants them so: narrower ones are filled up with zeros
    to the widest of those asked for. ``layers=["encoder", "context_3"]`` asks for layers of one width.

    Features are computed at the model's own sample rate. From s3prl's 16 kHz audio, a model trained at 32 kHz sees
    nothing above 8 kHz.

    Args:
        ckpt: a model folder, a Hub id (``org/name`` or ``org/name@revision``), or None for the built-in model.
        model_config: ignored; s3prl's older interface passes it.
        refresh: fetch files that are in the cache again; a newer revision is fetched anyway.
        layers: names or positions (negative ones from the end) of the layers to return; None returns all.
        trainable: let ``train()`` switch on dropout, batch statistics and the jitter of the front end. Without it the
            model stays in evaluation mode whatever s3prl does, while gradients flow all the same.
        others: ``token``, ``cache_dir``, ``local_files_only`` and ``force_download`` of
            :func:`~pmam_plugin.checkpoints.fetch_model`; what else s3prl's user wrote is ignored with a warning.

    Attributes:
        layers: names of the states that :meth:`forward` returns, in order.
        stride: 16 kHz samples from one frame to the next.

    Raises:
        InputError: there is no such model or layer.
    """

    def __init__(
        self,
        ckpt: str | os.PathLike[str] | None = None,
        model_config: Any = None,
        refresh: bool = False,
        layers: Sequence[str | int] | None = None,
        trainable: bool = False,
        **others: Any,
    ) -> None:
        super().__init__()
        fetching: Any = {name: others.pop(name) for name in Fetching.__annotations__ if name in others}
        if refresh:
            fetching["force_download"] = True
        if others:
            logger.warning("upstream options without a meaning here were ignored: %s", ", ".join(others))
        # Building a model draws initial weights; an experiment's random numbers must not depend on that.
        with torch.random.fork_rng(devices=[]):
            self.model = load_module(fetch_model(*_source(ckpt), **fetching)).model
        self._hidden = hidden_layers(self.model)
        self.layers = _chosen(self._hidden.names, layers)
        self.trainable = trainable
        self.stride = max(1, round(SAMPLE_RATE / self._hidden.frame_rate))
        self.resample = Resample(SAMPLE_RATE, self._hidden.sample_rate)
        clip_seconds = getattr(self.model, "clip_seconds", 10.0)
        self._window = max(2, -int(-clip_seconds * SAMPLE_RATE // self.stride))
        self.eval()

    def get_downsample_rates(self, key: str) -> int:
        """16 kHz samples per frame, whatever the ``key``."""
        return self.stride

    def train(self, mode: bool = True) -> UpstreamExpert:
        """Training mode only if the upstream was asked to be trainable."""
        return super().train(mode and self.trainable)

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, Any]:
        """Hidden states of some clips.

        Args:
            wavs: 16 kHz waveforms, each ``(samples,)``.

        Returns:
            ``hidden_states``: one ``(batch, T, width)`` per layer, and ``last_hidden_state``, the last of them.
        """
        pieces = [piece for clip, wav in enumerate(wavs) for piece in self._pieces(clip, wav)]
        encoded = self._encode([piece.wav for piece in pieces])
        clips: list[list[Tensor]] = [[] for _ in wavs]
        for piece, states in zip(pieces, encoded, strict=True):
            clips[piece.clip].append(states[:, piece.keep])
        rows = [torch.cat(parts, dim=1) for parts in clips]  # each (layers, frames, width)
        hidden = [nn.utils.rnn.pad_sequence(list(states), batch_first=True) for states in zip(*rows)]
        return {"hidden_states": hidden, "last_hidden_state": hidden[-1]}

    def _frames(self, samples: int) -> int:
        return -(-samples // self.stride)

    def _pieces(self, clip: int, wav: Tensor) -> list[_Piece]:
        """Cut a clip into windows and say which frames of each to keep."""
        frames, window = self._frames(len(wav)), self._window
        starts = window_starts(frames, window, window // 2)
        # A frame belongs to the window whose middle is nearest: neighbours share their overlap.
        borders = [0, *((left + window + right) // 2 for left, right in itertools.pairwise(starts)), frames]
        return [
            _Piece(
                clip,
                wav[start * self.stride : (start + window) * self.stride],
                slice(borders[index] - start, borders[index + 1] - start),
            )
            for index, start in enumerate(starts)
        ]

    def _encode(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """States of every waveform, ``(layers, frames, width)``; equally long ones share a batch."""
        by_length: dict[int, list[int]] = {}
        for index, wav in enumerate(wavs):
            by_length.setdefault(len(wav), []).append(index)
        encoded: list[Tensor] = [torch.empty(0)] * len(wavs)
        for members in by_length.values():
            for first in range(0, len(members), CLIPS_AT_ONCE):
                batch = members[first : first + CLIPS_AT_ONCE]
                states = self._states(torch.stack([wavs[index] for index in batch]))
                for index, state in zip(batch, states.unbind(1), strict=True):
                    encoded[index] = state
        return encoded

    def _states(self, wavs: Tensor) -> Tensor:
        """``(batch, samples)`` at 16 kHz -> ``(layers, batch, ceil(samples / stride), width)``."""
        frames = self._frames(wavs.shape[1])
        wavs = nn.functional.pad(wavs, (0, max(0, SHORTEST - wavs.shape[1])))
        states = self._hidden(self.resample(wavs), self.layers)
        ratio = SAMPLE_RATE / self.stride / self._hidden.state_rate
        on_grid = [interpolate_frames(states[name], frames, ratio=ratio) for name in self.layers]
        width = max(state.shape[-1] for state in on_grid)
        return torch.stack([nn.functional.pad(state, (0, width - state.shape[-1])) for state in on_grid])


class _Piece(NamedTuple):
    """A window of a clip and the frames of it that count."""

    clip: int
    wav: Tensor
    keep: slice


def _source(ckpt: str | os.PathLike[str] | None) -> tuple[str, str | None]:
    """What to load, and the revision if it names one."""
    source = BUILTIN if ckpt is None else os.fspath(ckpt)
    if "@" not in source or Path(source).exists():
        return source, None
    name, _, revision = source.rpartition("@")
    return name, revision


def _chosen(known: tuple[str, ...], wanted: Sequence[str | int] | None) -> tuple[str, ...]:
    if wanted is None:
        return known
    chosen = []
    for layer in [wanted] if isinstance(wanted, str | int) else wanted:
        if isinstance(layer, int) and -len(known) <= layer < len(known):
            chosen.append(known[layer])
        elif layer in known:
            chosen.append(str(layer))
        else:
            raise InputError(f"layers: there is no layer {layer!r}; choose from {', '.join(known)}")
    if not chosen:
        raise InputError("layers: at least one layer is needed; leave the option out to get all")
    return tuple(chosen)
