"""Intervals on the time axis: their two forms, and how much two of them overlap.

An event's *box* is ``(centre, length)``, what the network predicts; its *edges* are ``(onset, offset)``, what
losses, scores and people use. Both are fractions of a span (10 s for a DESED clip) and are never clipped here.
"""

from __future__ import annotations

import torch
from torch import Tensor


def box_edges(boxes: Tensor) -> Tensor:
    """(centre, length) -> (onset, offset), ``(..., 2)``."""
    centre, length = boxes.unbind(-1)
    return torch.stack((centre - length / 2, centre + length / 2), dim=-1)


def edge_boxes(edges: Tensor) -> Tensor:
    """(onset, offset) -> (centre, length), ``(..., 2)``."""
    onset, offset = edges.unbind(-1)
    return torch.stack(((onset + offset) / 2, offset - onset), dim=-1)


def interval_iou(first: Tensor, second: Tensor, generalised: bool = False) -> Tensor:
    """Intersection over union of intervals given by their edges; leading axes broadcast.

    The generalised form subtracts the share of the hull that neither interval covers (Rezatofighi et al., CVPR
    2019, in one dimension), so that it still has a gradient where the intervals do not touch.

    Args:
        first: ``(..., 2)``, offset not before onset.
        second: ``(..., 2)``; ``first[:, None]`` against ``second[None]`` gives all pairs.
        generalised: generalised IoU.

    Returns:
        Values in [0, 1], or in (-1, 1] if generalised; two empty intervals have IoU 0.
    """
    tiny = torch.finfo(first.dtype).tiny
    inner = torch.minimum(first[..., 1], second[..., 1]) - torch.maximum(first[..., 0], second[..., 0])
    intersection = inner.clamp_min(0)
    union = (first[..., 1] - first[..., 0]) + (second[..., 1] - second[..., 0]) - intersection
    iou = intersection / union.clamp_min(tiny)
    if not generalised:
        return iou
    hull = torch.maximum(first[..., 1], second[..., 1]) - torch.minimum(first[..., 0], second[..., 0])
    return iou - (hull - union) / hull.clamp_min(tiny)
