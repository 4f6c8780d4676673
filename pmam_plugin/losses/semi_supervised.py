"""Losses of semi-supervised fine-tuning on probabilities: supervised BCE and teacher consistency."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

Rows = Tensor | slice


def masked_mean(values: Tensor, weights: Tensor | None, rows: Rows = slice(None)) -> Tensor:
    """Mean of ``values`` where ``weights`` (broadcast over trailing axes) is non-zero, weighted; 0 where nothing is.

    Args:
        values: ``(clips, ...)``.
        weights: ``(batch,)`` or any leading shape of the whole batch; None is the plain mean.
        rows: which clips of the batch the values are of. The result is then their share of the mean over the batch:
            shares of all parts of a batch add up to it.
    """
    if weights is None:
        return values.mean()
    while weights.dim() < values.dim():
        weights = weights.unsqueeze(-1)
    weights = weights.to(values.dtype).expand(-1, *values.shape[1:])
    return (values * weights[rows]).sum() / weights.sum().clamp_min(1.0)


def supervised_bce(
    probabilities: Tensor, targets: Tensor, weights: Tensor | None = None, rows: Rows = slice(None)
) -> Tensor:
    """BCE of probabilities against (soft) targets in [0, 1], averaged where ``weights`` is set.

    Args:
        probabilities: ``(batch, frames, classes)`` or ``(batch, classes)``.
        targets: same shape.
        weights: clips or frames that count, ``(batch,)`` or ``(batch, frames)``.
        rows: see :func:`masked_mean`.
    """
    # Mixing two shifted one-frame labels can round past 1; BCE refuses such targets.
    losses = functional.binary_cross_entropy(
        probabilities.float().clamp(0, 1), targets.float().clamp(0, 1), reduction="none"
    )
    return masked_mean(losses, weights, rows)


def consistency(student: Tensor, teacher: Tensor, weights: Tensor | None = None, rows: Rows = slice(None)) -> Tensor:
    """Mean squared difference between student and (detached) teacher probabilities (mean teacher, Tarvainen 2017)."""
    return masked_mean((student.float() - teacher.detach().float()).square(), weights, rows)
