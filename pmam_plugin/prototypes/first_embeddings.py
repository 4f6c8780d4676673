"""Embeddings for a first E-step without any trained encoder: windows of the log-mel spectrogram."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def context_windows(mel: Tensor, frames: int, context: int) -> Tensor:
    """Log-mel windows on a model's frame grid (HuBERT's start clusters MFCCs; here PCA and scaling follow).

    The spectrogram is averaged to ``frames`` frames; each of them is joined with ``context`` neighbours on each side
    (the edges repeat).

    Args:
        mel: log-mel spectrogram, ``(batch, mel, mel frames)``.
        frames: frames wanted.
        context: neighbours on each side.

    Returns:
        ``(batch, frames, mel * (2 context + 1))``.
    """
    pooled = functional.adaptive_avg_pool1d(mel[..., : mel.shape[-1] // frames * frames or None], frames)
    padded = functional.pad(pooled, (context, context), mode="replicate")
    windows = padded.unfold(2, 2 * context + 1, 1)
    return windows.permute(0, 2, 3, 1).flatten(2)
