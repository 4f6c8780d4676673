"""Losses of masked audio modelling: prototype-wise BCE and the alternatives it is compared with.

Every loss here is called as ``loss(prediction, mask, posteriors, prototypes)``, so that YAML can put one in the
place of another.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmam_plugin.config import configurable


def prototype_logits(
    embeddings: Tensor, prototypes: Tensor, temperature: float = 0.1, negative_slope: float = 0.2
) -> Tensor:
    """Logit of each prototype for each embedding (PMAM, section on prototype-wise BCE).

    ``(2 LeakyReLU(cos(e, mu)) - 1) / temperature``: cosine 1 gives +10, 0.5 gives 0 and 0 gives -10 at the paper's
    temperature; opposite directions are pushed only gently further down.

    Args:
        embeddings: ``(..., dim)``.
        prototypes: component means, ``(prototypes, dim)``; only their directions matter.
        temperature: divides the logits.
        negative_slope: of the LeakyReLU.

    Returns:
        ``(..., prototypes)``.
    """
    cosine = functional.normalize(embeddings.float(), dim=-1) @ functional.normalize(prototypes.float(), dim=-1).T
    return (2 * functional.leaky_relu(cosine, negative_slope) - 1) / temperature


def prototype_bce(logits: Tensor, posteriors: Tensor, label_smoothing: float = 0.0, focal_gamma: float = 0.0) -> Tensor:
    """Binary cross-entropy of every prototype against its posterior, ``(..., prototypes)`` both; returns the mean.

    Each prototype is its own yes/no question, so frames that belong to several events may answer yes more than once;
    a softmax over prototypes would forbid that.

    Args:
        logits: from :func:`prototype_logits`.
        posteriors: GMM responsibilities in [0, 1].
        label_smoothing: moves targets towards 1/2 by this share.
        focal_gamma: exponent on ``|target - p|``; 0 is plain BCE.
    """
    targets = posteriors.to(logits.dtype) * (1 - label_smoothing) + 0.5 * label_smoothing
    losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if focal_gamma:
        losses = losses * (targets - logits.sigmoid()).abs().pow(focal_gamma)
    return losses.mean()


@configurable
class PrototypeBCE(nn.Module):
    """Prototype-wise BCE over masked frames (PMAM, eq. of the prototype-wise loss).

    >>> loss = PrototypeBCE()
    >>> prediction, mask = torch.randn(2, 50, 16), torch.rand(2, 50) < 0.75
    >>> value = loss(prediction, mask, posteriors=torch.rand(2, 50, 30), prototypes=torch.randn(30, 16))
    """

    def __init__(
        self,
        temperature: float = 0.1,
        negative_slope: float = 0.2,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.negative_slope = negative_slope
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma

    def forward(self, prediction: Tensor, mask: Tensor, posteriors: Tensor, prototypes: Tensor) -> Tensor:
        """Mean loss over the frames where ``mask`` is true.

        Args:
            prediction: ``(batch, frames, dim)``.
            mask: true where the frame was hidden (and is not padding), ``(batch, frames)``.
            posteriors: ``(batch, frames, prototypes)``.
            prototypes: ``(prototypes, dim)``.
        """
        logits = prototype_logits(prediction[mask], prototypes, self.temperature, self.negative_slope)
        if not len(logits):
            return prediction.sum() * 0.0
        return prototype_bce(logits, posteriors[mask], self.label_smoothing, self.focal_gamma)


@configurable
class PrototypeInfoNCE(nn.Module):
    """The contrastive alternative of the paper's ablation: one positive prototype per frame, the others negatives.

    ``-log softmax_k(cos(e, mu_k) / temperature)`` at the prototype of the largest posterior.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, prediction: Tensor, mask: Tensor, posteriors: Tensor, prototypes: Tensor) -> Tensor:
        """Mean loss over masked frames; shapes as in :meth:`PrototypeBCE.forward`."""
        hidden = functional.normalize(prediction[mask].float(), dim=-1)
        if not len(hidden):
            return prediction.sum() * 0.0
        cosine = hidden @ functional.normalize(prototypes.float(), dim=-1).T
        return functional.cross_entropy(cosine / self.temperature, posteriors[mask].argmax(dim=-1))


def prototype_presence(posteriors: Tensor, padding: Tensor | None = None, minimum_share: float = 0.0) -> Tensor:
    """Clip-level targets of the tag branch: how surely each prototype occurs in a clip, ``(batch, prototypes)``.

    ``min(1, sum_t posterior)``, soft below one frame. The reference marks a prototype present once its posterior mass
    reaches one frame, after mixing, so that 5 % of another clip counts as much as the clip itself; compute this
    before mixing and mix it as everything else.

    Args:
        posteriors: ``(batch, frames, prototypes)``.
        padding: true where a frame is padding, ``(batch, frames)``.
        minimum_share: prototypes with less than this share of the clip's valid frames count as absent.
    """
    valid = posteriors.new_full((len(posteriors), 1), posteriors.shape[1])
    if padding is not None:
        posteriors = posteriors.masked_fill(padding.unsqueeze(-1), 0.0)
        valid = (~padding).sum(dim=1, keepdim=True).to(posteriors.dtype)
    mass = posteriors.sum(dim=1)
    return torch.where(mass >= minimum_share * valid, mass.clamp(max=1.0), 0.0)
