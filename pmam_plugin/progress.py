"""How work that takes a while tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float, float], None]
"""A hook: called with what is being done, how much of it is done, and of how much (files, clips or seconds)."""
