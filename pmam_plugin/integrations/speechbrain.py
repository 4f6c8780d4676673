"""SpeechBrain: a ``Pretrained`` interface over model folders.

>>> from pmam_plugin.integrations.speechbrain import PretrainedDetector  # doctest: +SKIP
>>> detector = PretrainedDetector.from_hparams("org/name")  # doctest: +SKIP
>>> detector.detect_file("kitchen.wav")  # doctest: +SKIP

The folder's ``hyperparams.yaml`` (:func:`pmam_plugin.hub.write_companions` adds it, ``pmam push`` publishes it) names
classes of this package only, and the weights are read as safetensors. SpeechBrain itself puts no limits on what such a
file may run, so ``from_hparams`` trusts whoever wrote the repository;
:meth:`~pmam_plugin.SoundEventDetector.from_pretrained` need not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from speechbrain.inference.interfaces import Pretrained, pretrained_from_hparams
from speechbrain.utils.fetching import FetchConfig
from torch import Tensor, nn

from pmam_plugin.checkpoints.folder import build_detector, load_weights
from pmam_plugin.checkpoints.hub_folder import Fetching, fetch_model
from pmam_plugin.inference import Scorer, Scoring, SoundEventDetector
from pmam_plugin.models.base import SoundEventModel

HPARAMS_NAME = "hyperparams.yaml"


class FolderModel(nn.Module):
    """An empty shell until :func:`build_from_json` and :func:`load_safetensors` have filled it.

    Attributes:
        model: the detector.
        scoring: how its output becomes scores and events.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model: SoundEventModel | None = None
        self.scoring = Scoring()

    def filled(self) -> SoundEventModel:
        """The model; RuntimeError while there is none."""
        if self.model is None:
            raise RuntimeError("the model has not been built yet; the pretrainer does that from config.json")
        return self.model


def build_from_json(shell: FolderModel, path: str | os.PathLike[str]) -> None:
    """Pretrainer hook: build the model that a ``config.json`` describes, with initial weights.

    Raises:
        InputError: it describes no detector of this version.
    """
    loaded = build_detector(Path(path))
    shell.model, shell.scoring = loaded.model, loaded.scoring


def load_safetensors(shell: FolderModel, path: str | os.PathLike[str]) -> None:
    """Pretrainer hook: copy a ``model.safetensors`` into the model, strictly.

    Raises:
        InputError: the file is no whole safetensors file or does not fit the model.
    """
    load_weights(shell.filled(), path)


class PretrainedDetector(Pretrained):
    """A trained detector behind SpeechBrain's interface for inference.

    Arguments of the constructor are SpeechBrain's (``modules``, ``hparams``, ``run_opts={"device": ...}``,
    ``freeze_params``); use :meth:`from_hparams`.
    """

    HPARAMS_NEEDED = ["modules"]  # noqa: RUF012 (SpeechBrain's own form)
    MODULES_NEEDED = ["detector"]  # noqa: RUF012

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        shell: FolderModel = self.mods.detector
        self._detector = SoundEventDetector(shell.filled(), shell.scoring, self.device)

    @classmethod
    def from_hparams(
        cls,
        source: str | os.PathLike[str],
        revision: str | None = None,
        hparams_file: str = HPARAMS_NAME,
        fetch_config: FetchConfig | None = None,
        overrides: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> PretrainedDetector:
        """Load a model folder or a Hub repository that holds ``hyperparams.yaml``.

        Args:
            source: folder or Hub id; :func:`~pmam_plugin.checkpoints.fetch_model` fetches it.
            revision: branch, tag or commit.
            hparams_file: name of the YAML file.
            fetch_config: SpeechBrain's form of settings that also stand here (``revision``, ``token``,
                ``huggingface_cache_dir``, ``allow_network``); where both are given, those here count.
            overrides: of the YAML file.
            settings: ``token``, ``cache_dir``, ``local_files_only`` and ``force_download`` of
                :func:`~pmam_plugin.checkpoints.fetch_model`; SpeechBrain's ``savedir``, ``run_opts``,
                ``local_strategy``, ``freeze_params``.

        Raises:
            InputError: there is no such model, it has no ``hyperparams.yaml``, or its files do not fit.
        """
        theirs = fetch_config or FetchConfig()
        fetching: dict[str, Any] = {
            "token": theirs.token or None,
            "cache_dir": theirs.huggingface_cache_dir,
            "local_files_only": not theirs.allow_network,
        }
        fetching |= {name: given for name in Fetching.__annotations__ if (given := settings.pop(name, None))}
        folder = fetch_model(source, revision or theirs.revision, companions=(hparams_file,), **fetching)
        return pretrained_from_hparams(
            cls,
            str(folder),
            hparams_file,
            overrides={"source": str(folder), **(overrides or {})},
            fetch_config=theirs,
            **settings,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names."""
        return self._detector.labels

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms, Hz."""
        return self._detector.sample_rate

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Frame probabilities of a batch, not post-processed; a clip's do not depend on the others of its batch.

        Args:
            wavs: ``(batch, samples)`` at ``sample_rate``.
            wav_lens: length of each as a share of the longest, as SpeechBrain's batches have it; None means all whole.

        Returns:
            ``(batch, frames, classes)``, zero past a clip's end.
        """
        scored = Scorer(self._detector.model, Scoring(), self._detector.batch_size).waves(_clips(wavs, wav_lens))
        frames = [torch.from_numpy(clip.frames) for clip in scored]
        return nn.utils.rnn.pad_sequence(frames, batch_first=True).to(self.device)

    @torch.no_grad()
    def detect_batch(self, wavs: Tensor, wav_lens: Tensor | None = None) -> pd.DataFrame:
        """Events of a batch, post-processed, each clip on its own.

        Args:
            wavs: ``(batch, samples)`` at ``sample_rate``.
            wav_lens: see :meth:`forward`.

        Returns:
            ``filename, onset, offset, event_label, score``; clips are named ``recording_1`` and so on.
        """
        return self._detector.detect_batch(_clips(wavs, wav_lens), self.sample_rate)

    def detect_file(self, path: str | os.PathLike[str]) -> pd.DataFrame:
        """Events of a recording of any length and sample rate: ``filename, onset, offset, event_label, score``.

        Raises:
            InputError: it cannot be read.
        """
        return self._detector.detect(path)


def _clips(wavs: Tensor, wav_lens: Tensor | None) -> list[Tensor]:
    """Each clip of a batch without its padding, at least one sample."""
    shares = torch.ones(len(wavs)) if wav_lens is None else wav_lens.cpu()
    ends = (shares * wavs.shape[1]).round().int().clamp_min(1).tolist()
    return [wav[:end].cpu() for wav, end in zip(wavs, ends, strict=True)]
