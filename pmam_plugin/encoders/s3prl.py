"""Any s3prl upstream as the frame encoder of a model here, and the front end that hands it the waveform."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable
from pmam_plugin.encoders.base import EncoderOutput, FrameEncoder, Wanted
from pmam_plugin.errors import InputError
from pmam_plugin.features import MelFrontEnd

SAMPLE_RATE = 16000  # all of s3prl
# Entries that fetch whatever address they are given, and load it as a pickle.
_FETCHING = ("_url", "_gdriveid")


@configurable
class RawWaveform(MelFrontEnd):
    """The waveform itself as a feature: one band, one frame per sample, ``(batch, 1, samples)``.

    For encoders that compute features of their own. Waveforms add up where sounds do, so mixing works as it does for
    spectrograms; augmentations of the frequency axis have nothing to act on.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int = SAMPLE_RATE) -> None:
        super().__init__(sample_rate, 1, 1, torch.ones(1), torch.ones(1, 1), exponent=1.0)

    def frames(self, samples: int) -> int:
        """One for every sample."""
        return samples

    def power(self, waveform: Tensor) -> Tensor:
        """``(batch, samples) -> (batch, 1, samples)``."""
        return waveform.float().unsqueeze(1)

    def scale(self, mel: Tensor) -> Tensor:
        """Nothing is scaled."""
        return mel


@configurable
class S3PRLEncoder(FrameEncoder):
    """Frames of an s3prl upstream, from one of its layers or a learned weighting of all.

    Needs ``FrontEnds(wave=RawWaveform())``. Tokens of the tag branch are the frames. Layers for ``embed``:
    ``layer_0 ... layer_n``, in s3prl's order. Sliding windows are not for it. Its weights are saved with the model, but
    building the model again needs s3prl and the same upstream.

    Args:
        name: of the upstream (``fbank``, ``hubert``, ``wavlm_large``, ...).
        path_or_url: checkpoint file or folder on this machine, for upstreams that want one. Addresses are refused: a
            model's configuration may come from anywhere, and what it fetched would be unpickled.
        layer: the layer whose states become the frames, negative from the end; None learns a softmax-weighted sum of
            all, which have to be equally wide.
        trainable: train the upstream too; else it is frozen (but for adapters) and stays in evaluation mode.
        extra_conf: further arguments of the upstream.
        feature: name of the waveform among the features.

    Raises:
        InputError: s3prl is not installed or has no such upstream, an address was given, or there is no such layer.
    """

    def __init__(
        self,
        name: str,
        path_or_url: str | None = None,
        layer: int | None = None,
        trainable: bool = False,
        extra_conf: Mapping[str, Any] | None = None,
        feature: str = "wave",
    ) -> None:
        super().__init__()
        self.feature, self.trainable = feature, trainable
        self.upstream = build_upstream(name, path_or_url, dict(extra_conf or {}))
        self.stride = int(self.upstream.downsample_rates[0])
        count, widths = self.upstream.num_layers, self.upstream.hidden_sizes
        if layer is not None and not -count <= layer < count:
            raise InputError(f"{name}: there is no layer {layer} among {count}")
        self.layer = None if layer is None else layer % count
        if len(set(self.upstream.downsample_rates)) > 1 or (self.layer is None and len(set(widths)) > 1):
            raise InputError(f"{name}: its layers differ in width or rate; choose one with layer=0 ... {count - 1}")
        self.weights = nn.Parameter(torch.zeros(count)) if self.layer is None and count > 1 else None
        self.dim = self.token_dim = widths[self.layer or 0]
        self.frame_rate = SAMPLE_RATE / self.stride
        self.layers = tuple(f"layer_{number}" for number in range(count))
        self.upstream.requires_grad_(trainable)
        self.train(self.training)

    def train(self, mode: bool = True) -> S3PRLEncoder:
        """Set the mode; a frozen upstream stays in evaluation mode."""
        super().train(mode)
        self.upstream.train(mode and self.trainable)
        return self

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """One frame for every started stride; never none."""
        return max(1, -(-feature_frames[self.feature] // self.stride))

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted) -> EncoderOutput:
        """Encode ``features[feature]``, ``(batch, 1, samples)``; see :class:`FrameEncoder`."""
        wave = features[self.feature].squeeze(1)
        lengths = torch.full((len(wave),), wave.shape[1], dtype=torch.long, device=wave.device)
        # Adapters in it learn also when it is frozen.
        learns = any(parameter.requires_grad for parameter in self.upstream.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            states, _ = self.upstream(wave, lengths)
        frames = self._merged(states)
        return EncoderOutput(frames, frames, dict(zip(self.layers, states, strict=True)))

    def _merged(self, states: list[Tensor]) -> Tensor:
        if self.weights is None:
            return states[self.layer or 0]
        shares = self.weights.softmax(dim=0).to(states[0].dtype)
        return torch.stack([share * state for share, state in zip(shares, states, strict=True)]).sum(dim=0)


def build_upstream(name: str, path_or_url: str | None, extra_conf: Mapping[str, Any]) -> Any:
    """An ``S3PRLUpstream``, built without touching the random numbers of this process.

    s3prl seeds Python's and torch's generators with 0 on every construction.

    Raises:
        InputError: see :class:`S3PRLEncoder`.
    """
    if "://" in (path_or_url or "") or name.endswith(_FETCHING):
        raise InputError(
            f"{name}: {path_or_url} is an address, and nothing is fetched from one; download the checkpoint yourself "
            "and give its path"
        )
    with preserved_random_state():
        try:
            from s3prl.nn import S3PRLUpstream
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"s3prl cannot be imported ({error}); install it with pip install 'pmam-plugin[s3prl]', and with "
                "torchaudio 2.9 or newer call pmam_plugin.upstream.register(shim=True) first (in a YAML file, above "
                "the encoder: shim: !apply:pmam_plugin.upstream.register {shim: true})"
            ) from error
        if name not in S3PRLUpstream.available_names():
            raise InputError(f"{name}: s3prl has no such upstream; S3PRLUpstream.available_names() lists them")
        return S3PRLUpstream(name, path_or_url, extra_conf=dict(extra_conf))


@contextlib.contextmanager
def preserved_random_state() -> Iterator[None]:
    """Put Python's, numpy's and torch's generators back to where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
