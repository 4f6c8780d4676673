"""What a frozen encoder says of a window of sound, kept: student, teacher and all validations hear the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pmam_plugin.encoders.frozen import STORED, FrozenEncoder
from pmam_plugin.models.base import SoundEventModel


class EncodedWindows:
    """Frames of frozen encoders by their weights and the window's samples, in float32: scores stay what they are.

    Args:
        gigabytes: of memory at most; windows beyond that are encoded each time.
    """

    def __init__(self, gigabytes: float = 1.0) -> None:
        self._room = gigabytes * 1e9
        self._frames: dict[bytes, Tensor] = {}

    def features(self, model: SoundEventModel, waves: Tensor) -> Mapping[str, Tensor]:
        """What ``model`` is given for windows ``(batch, samples)``: stored embeddings where its encoder is frozen, else
        the output of its front ends."""
        frozen = next((part for part in model.modules() if isinstance(part, FrozenEncoder)), None)
        if frozen is None or frozen.learns:
            return model.frontend(waves)
        weights = _digest(*frozen.encoder.state_dict().values())
        keys = [hashlib.blake2b(_digest(wave), key=weights, digest_size=16).digest() for wave in waves]
        new = [row for row, key in enumerate(keys) if key not in self._frames]
        fresh: dict[bytes, Tensor] = {}
        if new:
            frames = frozen.encoder(model.frontend(waves[new]), tokens=False).frames
            fresh = {keys[row]: frame.cpu() for row, frame in zip(new, frames)}
            for key, frame in fresh.items():
                if frame.nbytes <= self._room:
                    self._room -= frame.nbytes
                    self._frames[key] = frame.clone()
        found = [fresh[key] if key in fresh else self._frames[key] for key in keys]
        return {STORED: torch.stack(found).to(waves.device).transpose(1, 2)}


def _digest(*tensors: Tensor) -> bytes:
    whole = hashlib.blake2b(digest_size=32)
    for tensor in tensors:
        whole.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).view(np.uint8).data)
    return whole.digest()
