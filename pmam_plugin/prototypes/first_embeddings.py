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


def context_windows(mel: Tensor, left: int, right: int, stride: int) -> Tensor:
    """Stack every frame's neighbours into one vector, after averaging runs of ``stride`` mel frames.

    Args:
        mel: ``(batch, mel, frames)``.
        left: averaged frames stacked before each one; the first frame repeats beyond the start.
        right: averaged frames stacked after each one; the last frame repeats beyond the end.
        stride: mel frames averaged into one; a shorter run at the end is averaged over what it has.

    Returns:
        ``(batch, ceil(frames / stride), (left + 1 + right) * mel)``, oldest frame first.

    Raises:
        InputError: negative context, a stride below one, or no frames.
    """
    if left < 0 or right < 0 or stride < 1 or mel.shape[-1] == 0:
        raise InputError("context windows need frames, left and right of at least 0 and a stride of at least 1")
    averaged = F.avg_pool1d(mel, stride, ceil_mode=True) if stride > 1 else mel
    return _stacked(averaged, left, right)


def first_embeddings(mel: Tensor, frames: int, left: int = 2, right: int = 2) -> Tensor:
    """Standardised context windows on a given number of frames per clip.

    Args:
        mel: log-mel spectrograms, ``(batch, mel, mel frames)``.
        frames: embeddings per clip; mel frames are averaged in as many equal parts (neighbouring parts share a mel
            frame where the numbers do not divide).
        left: neighbours stacked before each frame.
        right: neighbours stacked after each frame.

    Returns:
        ``(batch, frames, (left + 1 + right) * mel)``.

    Raises:
        InputError: more embeddings asked for than mel frames, or negative context.
    """
    if not 1 <= frames <= mel.shape[-1]:
        raise InputError(f"{frames} embeddings cannot be made of {mel.shape[-1]} mel frames; ask for fewer")
    if left < 0 or right < 0:
        raise InputError("the context of first embeddings must not be negative")
    return _stacked(F.adaptive_avg_pool1d(standardise(mel), frames), left, right)


def _stacked(frames: Tensor, left: int, right: int) -> Tensor:
    count = frames.shape[-1]
    padded = F.pad(frames, (left, right), mode="replicate")
    return torch.cat([padded[..., shift : shift + count] for shift in range(left + 1 + right)], dim=1).mT
