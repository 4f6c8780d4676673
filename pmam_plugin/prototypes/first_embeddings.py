"""Embeddings before there is an encoder: standardised log-mel frames with their context.

Where no pretrained encoder is at hand for the first E-step, training starts as HuBERT's does (Hsu et al., 2021, section
II-A), from clusters of spectral features: each embedding is a window of the log-mel spectrogram around its frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pmam_plugin.errors import InputError


def standardise(mel: Tensor) -> Tensor:
    """Remove each clip's level and spread: zero mean and unit variance over all its bands and frames.

    One shift and one scale for the whole clip, not one per band: the shape of a clip's spectrum stays, which is what
    tells a sound that lasts the whole clip.

    Args:
        mel: log-mel spectrograms, ``(batch, mel, frames)``.

    Returns:
        The same shape; a clip without any variation becomes zero.
    """
    centred = mel - mel.mean(dim=(1, 2), keepdim=True)
    deviation = centred.square().mean(dim=(1, 2), keepdim=True).sqrt()
    return centred / deviation.clamp_min(1e-5)


def first_embeddings(mel: Tensor, frames: int, left: int = 2, right: int = 2) -> Tensor:
    """Standardised context windows on a given number of frames per clip.

    Args:
        mel: log-mel spectrograms, ``(batch, mel, mel frames)``.
        frames: embeddings per clip; mel frames are averaged in as many equal parts (neighbouring parts share a mel
            frame where the numbers do not divide).
        left: neighbours stacked before each frame; the first frame repeats beyond the start.
        right: neighbours stacked after each frame; the last frame repeats beyond the end.

    Returns:
        ``(batch, frames, (left + 1 + right) * mel)``.

    Raises:
        InputError: more embeddings asked for than mel frames, or negative context.
    """
    if not 1 <= frames <= mel.shape[-1]:
        raise InputError(f"{frames} embeddings cannot be made of {mel.shape[-1]} mel frames; ask for fewer")
    if left < 0 or right < 0:
        raise InputError("the context of first embeddings must not be negative")
    averaged = F.adaptive_avg_pool1d(standardise(mel), frames)
    padded = F.pad(averaged, (left, right), mode="replicate")
    return torch.cat([padded[..., shift : shift + frames] for shift in range(left + 1 + right)], dim=1).mT
