"""Sliding windows over a clip."""

from __future__ import annotations

from dataclasses import dataclass

from pmam_plugin.config import configurable


@configurable
@dataclass(frozen=True)
class Windows:
    """Sliding-window encoding: short windows see local detail, the whole clip gives the global view.

    Args:
        length_seconds: length of a window.
        hop_seconds: distance between two windows; the last one always ends where the clip ends.
        mix: share of the window embeddings; the rest comes from the whole clip.
    """

    length_seconds: float = 5.12
    hop_seconds: float = 0.49
    mix: float = 0.5

    def __post_init__(self) -> None:
        """Refuse windows that cannot cover a clip."""
        if not 0 < self.hop_seconds <= self.length_seconds or not 0 <= self.mix <= 1:
            raise ValueError(f"windows need a positive hop no longer than themselves and a mix in [0, 1], got {self}")
