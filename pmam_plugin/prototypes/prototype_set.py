"""What the E-step leaves: a transform, a mixture, and the posterior of every frame under it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pmam_plugin.errors import InputError
from pmam_plugin.files import atomic_path, read_json, write_json
from pmam_plugin.prototypes.components import PrincipalComponents
from pmam_plugin.prototypes.frames import FrameBatches
from pmam_plugin.prototypes.kmeans import KMeans
from pmam_plugin.prototypes.mixture import GaussianMixture


class PrototypeSet:
    """Prototypes: the components of a mixture over frame embeddings, perhaps after PCA.

    Args:
        model: a :class:`GaussianMixture` (soft posteriors) or :class:`KMeans` (one-hot ones).
        transform: applied before it; the prototypes and the masked loss then live in its space.
    """

    def __init__(self, model: GaussianMixture | KMeans, transform: PrincipalComponents | None = None) -> None:
        self.model, self.transform = model, transform

    @property
    def means(self) -> Tensor:
        """Prototype positions, ``(prototypes, dim)`` float32."""
        return self.model.means_ if isinstance(self.model, GaussianMixture) else self.model.cluster_centers_

    @property
    def weights(self) -> Tensor | None:
        """Mixture weights, ``(prototypes,)``; None for k-means."""
        return self.model.weights_ if isinstance(self.model, GaussianMixture) else None

    def fit(self, frames: Any) -> PrototypeSet:
        """Fit transform (unless it is fitted) and model; ``frames`` as for :meth:`GaussianMixture.fit`."""
        if self.transform is None:
            self.model.fit(frames)
        else:
            if not hasattr(self.transform, "components_"):
                self.transform.fit(frames)
            self.model.fit(_Transformed(frames, self.transform))
        return self

    def posteriors(self, frames: Tensor, temperature: float = 1.0) -> Tensor:
        """Posterior of every prototype given each frame, ``(n, prototypes)``, rows sum to one.

        Args:
            frames: embeddings ``(n, dim)`` before the transform.
            temperature: above 1 softens; k-means ignores it.
        """
        projected = frames if self.transform is None else self.transform.transform(frames)
        if isinstance(self.model, GaussianMixture):
            return self.model.predict_proba(projected, temperature)
        return torch.nn.functional.one_hot(self.model.predict(projected).long(), len(self.means)).float()

    def summary(self, posteriors: Iterable[np.ndarray]) -> dict[str, Any]:
        """How soft and how spread the pseudo-labels are.

        Args:
            posteriors: ``(frames, prototypes)`` of every clip.

        Returns:
            ``mean_entropy`` (nats) and ``entropy_share`` (of log K), ``mean_max_posterior``, ``active_prototypes``
            (more than a thousandth of the frames' mass), ``prototypes``, ``usage`` (share of each), ``frames``.
        """
        count = len(self.means)
        usage, entropy, largest, frames = np.zeros(count), 0.0, 0.0, 0
        for clip in posteriors:
            usage += clip.sum(axis=0)
            entropy += float(-(clip * np.log(np.maximum(clip, 1e-12))).sum())
            largest += float(clip.max(axis=1).sum())
            frames += len(clip)
        if not frames:
            raise InputError("no frames were pseudo-labelled; check the subsets of the E-step")
        usage /= max(usage.sum(), 1e-12)
        return {
            "prototypes": count,
            "active_prototypes": int((usage > 1e-3).sum()),
            "mean_entropy": entropy / frames,
            "entropy_share": entropy / frames / math.log(count) if count > 1 else 0.0,
            "mean_max_posterior": largest / frames,
            "usage": [round(float(share), 6) for share in usage],
            "frames": frames,
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``prototypes.safetensors`` and ``prototypes.json``, each whole or not at all."""
        folder = Path(folder)
        tensors = {"means": self.means}
        if isinstance(self.model, GaussianMixture):
            tensors |= {
                "weights": self.model.weights_,
                "covariances": self.model.covariances_,
                "precisions_cholesky": self.model.precisions_cholesky_,
            }
        if self.transform is not None:
            tensors |= {f"transform.{name}": getattr(self.transform, f"{name}_") for name in _TRANSFORM}
        with atomic_path(folder / "prototypes.safetensors") as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        # Last: its presence says that the set is complete.
        write_json(
            folder / "prototypes.json",
            {
                "model": type(self.model).__name__,
                "covariance_type": getattr(self.model, "covariance_type", None),
                "prototypes": len(self.means),
                "dim": int(self.means.shape[1]),
                "whiten": self.transform is not None and self.transform.whiten,
                "standardise": self.transform is not None and self.transform.standardise,
            },
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> PrototypeSet:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: files are missing or damaged.
        """
        folder = Path(folder)
        described = read_json(folder / "prototypes.json")
        try:
            tensors = load_file(folder / "prototypes.safetensors", device=str(device))
            count, transform = len(tensors["means"]), None
            if "transform.components" in tensors:
                transform = PrincipalComponents(
                    len(tensors["transform.components"]), described["standardise"], described["whiten"], device
                ).restore(*(tensors[f"transform.{name}"] for name in _TRANSFORM))
            if described["model"] == "KMeans":
                kmeans = KMeans(count, device=device)
                kmeans.cluster_centers_ = tensors["means"]
                return cls(kmeans, transform)
            mixture = GaussianMixture(count, covariance_type=described["covariance_type"], device=device)
            mixture.restore(
                tensors["weights"], tensors["means"], tensors["covariances"], tensors["precisions_cholesky"]
            )
            return cls(mixture, transform)
        except (KeyError, OSError, ValueError) as error:
            raise InputError(f"{folder}: damaged prototypes ({error}); run the E-step again") from error


_TRANSFORM = ("mean", "scale", "components", "explained_variance", "explained_variance_ratio")


class _Transformed:
    """Frames after a transform, as often as they are asked for."""

    def __init__(self, frames: Any, transform: PrincipalComponents) -> None:
        self.frames, self.transform = frames, transform

    def __iter__(self) -> Iterator[Tensor]:
        for batch in FrameBatches(self.frames, 32768, self.transform.mean_.device):
            yield self.transform.transform(batch)
