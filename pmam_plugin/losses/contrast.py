"""Embedding contrast of the BYOL form: a prediction should point where the teacher's embedding points.

ATST-Frame's pre-training and ATST-SEDv2's fine-tuning share it. There are no negatives: the distance of a
student's prediction ``p`` to a teacher's embedding ``z`` is ``2 - 2 cos(p, z)``, and no gradient reaches
``z``.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

Composition = Literal["sum", "interp"]


def cosine_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """``2 - 2 cos(prediction, target)`` over the last axis, the target detached; 0 (same direction) to 4.

    Equal to the squared distance of the two unit vectors (BYOL, Grill et al. 2020, eq. 2).

    Args:
        prediction: ``(..., dim)``.
        target: ``(..., dim)``.
    """
    return 2 - 2 * functional.cosine_similarity(prediction.float(), target.detach().float(), dim=-1)


def embedding_contrast(
    prediction: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    partners: Tensor | None = None,
    composition: Composition = "sum",
    padding: Tensor | None = None,
    rows: Tensor | slice = slice(None),
) -> Tensor:
    """Distance of each clip's predictions to the embeddings of the clips it was mixed from.

    ``mean_t [w d(p_t, z_t) + (1 - w) d(p_t, z'_t)]`` with ``z'`` the embeddings of the partner clip and
    ``w`` the target coefficient of conditional mixup (ATST-SEDv2): the mixing weight where the
    mix is a composition, 1 where it is a perturbation. ``w = 1`` everywhere is ATST-Frame's own objective.

    Args:
        prediction: the student's predictor output, ``(batch, frames, dim)``.
        target: the teacher's projector output for the clips of the whole batch unmixed, ``(clips, frames, dim)``; gets
            no gradient.
        weights: target coefficients in [0, 1], ``(batch,)``; None means 1.
        partners: index of each clip's partner in ``target``, ``(batch,)``; needed when a weight may differ
            from 1.
        composition: ``"sum"`` weighs two distances; ``"interp"`` takes the distance to the interpolated unit
            vectors, which differs by their norm: opposed targets then pull as hard as agreeing ones.
        padding: true where a frame is padding, ``(batch, frames)``.
        rows: which clips of ``target`` the predictions are of.

    Returns:
        One value per clip, ``(batch,)``; 0 for a clip without any valid frame. Average it over the clips that count.

    Raises:
        ValueError: weights without partners, or an unknown ``composition``.
    """
    if composition not in get_args(Composition):
        raise ValueError(f"composition must be one of {get_args(Composition)}, not {composition!r}")
    if (weights is None) != (partners is None):
        raise ValueError("weights and partners belong together: pass both or neither")
    if weights is None or partners is None:
        return _mean_over_frames(cosine_distance(prediction, target[rows]), padding)
    share = weights.to(prediction.device, torch.float32).unsqueeze(-1)
    if composition == "interp":
        unit = functional.normalize(target.detach().float(), dim=-1)
        blend = torch.lerp(unit[partners], unit[rows], share.unsqueeze(-1))
        return _mean_over_frames(cosine_distance(prediction, blend), padding)
    own, other = cosine_distance(prediction, target[rows]), cosine_distance(prediction, target[partners])
    return _mean_over_frames(torch.lerp(other, own, share), padding)


def embedding_spread(embeddings: Tensor) -> Tensor:
    """How spread the unit embeddings are: mean over dimensions of their standard deviation.

    The watch against collapse in training without negatives: ``1 / sqrt(dim)`` for directions that fill the
    sphere (0.0625 at 256 dimensions), 0 when all embeddings point one way.

    Args:
        embeddings: ``(..., dim)``.
    """
    vectors = embeddings.detach().float().reshape(-1, embeddings.shape[-1])
    if len(vectors) < 2:
        return vectors.new_zeros(())
    return functional.normalize(vectors, dim=-1).std(dim=0).mean()


def _mean_over_frames(distances: Tensor, padding: Tensor | None) -> Tensor:
    """``(batch, frames)`` -> ``(batch,)``, over the frames that are not padding."""
    if padding is None:
        return distances.mean(dim=-1)
    valid = (~padding).to(distances.dtype)
    return (distances * valid).sum(dim=-1) / valid.sum(dim=-1).clamp_min(1.0)
