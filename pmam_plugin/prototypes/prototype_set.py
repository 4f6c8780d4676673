"""Prototypes: what turns frame embeddings into soft pseudo-labels, as one thing to fit, save and load."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path, read_json, write_json
from pmam_plugin.prototypes.frames import Frames, as_frames
from pmam_plugin.prototypes.kmeans import KMeans
from pmam_plugin.prototypes.mixture import GaussianMixture
from pmam_plugin.prototypes.projection import Projection
from pmam_plugin.weights import read_tensors

_FORMAT = 2
_PROJECTION = "projection."


@dataclass(frozen=True)
class PosteriorSummary:
    """How soft and how evenly used the pseudo-labels are, and how far apart the prototypes point.

    Attributes:
        frames: frames summarised.
        entropy: mean entropy of a frame's posterior in nats.
        entropy_share: the same as a share of log K: 0 for one-hot labels, 1 for uniform ones.
        active: prototypes that hold at least a tenth of an even share of the posterior mass.
        components: K.
        sure_share: share of frames whose largest posterior exceeds 0.99.
        cosine: mean cosine between the means of two different prototypes. Losses that look at directions cannot tell
            apart what points the same way.
    """

    frames: int
    entropy: float
    entropy_share: float
    active: int
    components: int
    sure_share: float
    cosine: float


class PrototypeSet:
    """Optional centring or principal components, then a mixture or k-means.

    Args:
        model: the estimator, fitted or not.
        projection: in front of it; the prototypes and the loss then live in its space.
    """

    def __init__(self, model: GaussianMixture | KMeans, projection: Projection | None = None):
        self.model, self.projection = model, projection

    def fit(self, frames: Any, state: str | os.PathLike[str] | None = None) -> PrototypeSet:
        """Fit the projection, then the model on what it returns.

        Args:
            frames: array or memory map ``(n, D)``.
            state: file that keeps a mixture's fit after every iteration (see :meth:`GaussianMixture.fit`).
        """
        transform = None if self.projection is None else self.projection.fit(frames).transform
        self.model.fit(Frames(frames, self.model.device, transform=transform), state=state)
        return self

    @property
    def means(self) -> Tensor:
        """Prototypes, float32 ``(K, D')``, in the space the loss works in."""
        return self.model.means_

    @property
    def weights(self) -> Tensor:
        """Prior of every prototype, ``(K,)``; uniform for k-means."""
        return self.model.weights_

    @property
    def components(self) -> int:
        """K."""
        return len(self.means)

    @property
    def input_dim(self) -> int:
        """Dimensions of the frames that :meth:`posteriors` takes."""
        return self.means.shape[1] if self.projection is None else self.projection.input_dim

    def embed(self, frames: Any) -> Tensor:
        """Frames ``(n, D)``, array or tensor, in the prototypes' space, ``(n, D')``."""
        frames = as_frames(frames, self.means.device, self.input_dim)
        return frames if self.projection is None else self.projection.transform(frames)

    def posteriors(self, frames: Any, temperature: float = 1.0) -> Tensor:
        """Soft pseudo-labels of frames ``(n, D)``: ``(n, K)``, rows sum to one; one-hot for k-means.

        Args:
            frames: array or tensor.
            temperature: above one softens the mixture's posteriors (see :meth:`GaussianMixture.predict_proba`).
        """
        return self.model.predict_proba(self.embed(frames), temperature)

    def cosine(self) -> float:
        """Mean cosine between two different prototypes' means; zero for a single one."""
        directions = torch.nn.functional.normalize(self.means.double(), dim=1)
        count = len(directions)
        # The squared length of the sum holds every pair twice, and each direction with itself.
        return float((directions.sum(dim=0).square().sum() - count) / max(count * (count - 1), 1))

    def summary(self, posteriors: Iterable[Any]) -> PosteriorSummary:
        """Summarise batches of posteriors ``(n, K)``.

        Raises:
            InputError: no frames.
        """
        mass = torch.zeros(self.components, dtype=torch.float64)
        entropy, sure, frames = 0.0, 0, 0
        for batch in posteriors:
            values = torch.as_tensor(batch).double().cpu()
            mass += values.sum(dim=0)
            entropy += float(torch.special.entr(values).sum())
            sure += int((values.amax(dim=1) > 0.99).sum())
            frames += len(values)
        if not frames:
            raise InputError("there are no posteriors to summarise")
        count = self.components
        active = int((mass / frames > 0.1 / count).sum())
        share = entropy / frames / math.log(count) if count > 1 else 0.0
        return PosteriorSummary(frames, entropy / frames, share, active, count, sure / frames, self.cosine())

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``prototypes.safetensors`` and ``prototypes.json``; the JSON last, so that it vouches for the rest."""
        tensors, projection = self.model.tensors(), self.projection
        config: dict[str, Any] = {"format": _FORMAT, "model": self.model.kind, "components": self.components}
        if isinstance(self.model, GaussianMixture):
            config["covariance_type"] = self.model.covariance_type
        if projection is not None:
            tensors |= {f"{_PROJECTION}{name}": tensor for name, tensor in projection.tensors().items()}
        config["projection"] = None if projection is None else projection.components or "centre"
        with atomic_path(Path(folder) / "prototypes.safetensors") as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        write_json(Path(folder) / "prototypes.json", config)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> PrototypeSet:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: a file is missing or does not hold prototypes.
        """
        path = Path(folder) / "prototypes.json"
        config = read_json(path)
        if not isinstance(config, dict) or config.get("format") != _FORMAT:
            raise InputError(f"{path}: not prototypes this version reads; fit them again")
        tensors = read_tensors(Path(folder) / "prototypes.safetensors", ("means",), "fit and save them again")
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(_PROJECTION)}
        model: GaussianMixture | KMeans
        if config["model"] == GaussianMixture.kind:
            covariance_type = config["covariance_type"]
            model = GaussianMixture(config["components"], covariance_type=covariance_type, device=device)
        else:
            model = KMeans(config["components"], device=device)
        model.restore(**own)
        if config["projection"] is None:
            return cls(model)
        parts = {name.removeprefix(_PROJECTION): tensor for name, tensor in tensors.items() if name not in own}
        return cls(model, Projection(device=device).restore(parts))
