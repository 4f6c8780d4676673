"""Prototypes: what turns frame embeddings into soft pseudo-labels, as one thing to fit, save and load."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path, read_json, write_json
from pmam_plugin.prototypes.estimator import as_frames, like
from pmam_plugin.prototypes.frames import FrameBatches
from pmam_plugin.prototypes.kmeans import KMeans
from pmam_plugin.prototypes.mixture import GaussianMixture
from pmam_plugin.prototypes.principal import PrincipalComponents, TransformedBatches
from pmam_plugin.prototypes.tensors import read_tensors

logger = logging.getLogger(__name__)

SelfSet = TypeVar("SelfSet", bound="PrototypeSet")

_FORMAT = 1
# Settings that a loaded model needs again; the rest describes how it was fitted.
_MIXTURE_TENSORS = ("weights", "means", "covariances", "precisions_cholesky")
_PCA = "pca."


@dataclass(frozen=True)
class PosteriorSummary:
    """How soft and how evenly used the pseudo-labels are.

    Attributes:
        frames: frames summarised.
        entropy: mean entropy of a frame's posterior in nats.
        entropy_share: the same as a share of log K: 0 for one-hot labels, 1 for uniform ones.
        active: prototypes that hold at least a tenth of an even share of the posterior mass.
        components: K.
        sure_share: share of frames whose largest posterior exceeds 0.99.
    """

    frames: int
    entropy: float
    entropy_share: float
    active: int
    components: int
    sure_share: float

    def as_dict(self) -> dict[str, float]:
        """Plain numbers, for metrics.json."""
        return asdict(self)


class PrototypeSet:
    """Optional principal components, then a mixture or k-means.

    Args:
        model: the estimator, fitted or not.
        transform: principal components in front of it; the prototypes and the loss then live in their space.
    """

    def __init__(self, model: GaussianMixture | KMeans, transform: PrincipalComponents | None = None):
        self.model = model
        self.transform = transform

    def fit(self: SelfSet, frames: Any) -> SelfSet:
        """Fit the transform, then the model on what it returns; ``frames`` is anything the estimators take."""
        if self.transform is None:
            self.model.fit(frames)
            return self
        self.transform.fit(frames)
        device = torch.device(self.transform.device)
        batches = FrameBatches(frames, self.transform.batch_frames, device)
        self.model.fit(TransformedBatches(batches, self.transform))
        return self

    @property
    def means(self) -> Tensor:
        """Prototypes, float32 ``(K, D')``, in the space the loss works in."""
        return self.model.means_ if isinstance(self.model, GaussianMixture) else self.model.cluster_centers_

    @property
    def weights(self) -> Tensor:
        """Prior of every prototype, ``(K,)``; uniform for k-means."""
        if isinstance(self.model, GaussianMixture):
            return self.model.weights_
        return torch.full_like(self.means[:, 0], 1 / len(self.means))

    @property
    def components(self) -> int:
        """K."""
        return len(self.means)

    @property
    def input_dim(self) -> int:
        """Dimensions of the frames that :meth:`posteriors` takes."""
        return self.model.n_features_in_ if self.transform is None else self.transform.n_features_in_

    def embed(self, frames: Any) -> Any:
        """Frames ``(n, D)`` in the prototypes' space, ``(n, D')``."""
        return frames if self.transform is None else self.transform.transform(frames)

    def posteriors(self, frames: Any, temperature: float = 1.0) -> Any:
        """Soft pseudo-labels of frames ``(n, D)``: ``(n, K)``, rows sum to one.

        For k-means they are one-hot; a temperature has no meaning there.

        Args:
            frames: array or tensor.
            temperature: above one softens the mixture's posteriors (see :meth:`GaussianMixture.predict_proba`).
        """
        space = self.embed(as_frames(frames, self.means.device, self.input_dim))
        if isinstance(self.model, GaussianMixture):
            return like(self.model.predict_proba(space, temperature), frames)
        labels = self.model.predict(space)
        return like(torch.nn.functional.one_hot(labels, self.components).float(), frames)

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
        return PosteriorSummary(frames, entropy / frames, share, active, count, sure / frames)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``prototypes.safetensors`` and ``prototypes.json``; the JSON last, so that it vouches for the rest."""
        if isinstance(self.model, GaussianMixture):
            tensors = {name: getattr(self.model, f"{name}_") for name in _MIXTURE_TENSORS}
            kind, settings = "gmm", {"covariance_type": self.model.covariance_type}
        else:
            tensors = {"means": self.model.cluster_centers_}
            kind, settings = "kmeans", {}
        config: dict[str, Any] = {"format": _FORMAT, "model": kind, "components": self.components, **settings}
        if self.transform is not None:
            tensors |= {f"{_PCA}{name}": tensor for name, tensor in self.transform.tensors().items()}
            config["pca"] = {"components": self.transform.n_components, "whiten": self.transform.whiten}
        target = Path(folder)
        with atomic_path(target / "prototypes.safetensors") as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        write_json(target / "prototypes.json", config)

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
        mixture = config.get("model") == "gmm"
        needed = _MIXTURE_TENSORS if mixture else ("means",)
        tensors, _ = read_tensors(Path(folder) / "prototypes.safetensors", needed)
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(_PCA)}
        if mixture:
            model: GaussianMixture | KMeans = GaussianMixture(
                len(own["means"]), covariance_type=config["covariance_type"], device=device
            ).restore(**own)
        else:
            model = KMeans(len(own["means"]), device=device).restore(own["means"])
        transform = None
        if "pca" in config:
            parts = {name[len(_PCA) :]: tensor for name, tensor in tensors.items() if name.startswith(_PCA)}
            settings = config["pca"]
            transform = PrincipalComponents(settings["components"], whiten=settings["whiten"], device=device)
            transform.restore(parts)
        return cls(model, transform)


def load_published_means(path: str | os.PathLike[str]) -> Tensor:
    """Read prototypes published as one pickled tensor (``gmm_means.pt``), without running anything in the file.

    Returns:
        float32 ``(K, D)``.

    Raises:
        InputError: missing, not a tensor file, or anything else than one two-dimensional finite tensor.
    """
    try:
        means = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:
        raise InputError(f"{path}: not a plain tensor file; expected one tensor of prototype means") from error
    if not isinstance(means, Tensor) or means.ndim != 2 or not torch.isfinite(means).all():
        raise InputError(f"{path}: expected one finite tensor of shape (prototypes, dimensions)")
    return means.float()
