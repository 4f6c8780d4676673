"""What the figures of a results table are called, and where a run has left its own."""

from __future__ import annotations

import os
from typing import Any

from pmam_plugin.files import read_json

FIGURES = {
    "psds1": "PSDS1",
    "psds1_mean": "PSDS1, mean over classes",
    "psds2": "PSDS2",
    "event_f1_macro": "event F1, macro",
    "event_f1_micro": "event F1, micro",
    "event_f1_500ms": "event F1, macro, 0.5 s",
    "event_f1_1s": "event F1, macro, 1 s",
    "segment_f1_macro": "segment F1, macro",
    "segment_f1_micro": "segment F1, micro",
    "clip_f1_macro": "clip F1, macro",
    "mpauc": "mpAUC, segments",
    "segment_f1_optimal": "segment F1, best thresholds",
}
"""What figures are called, in the order in which they are shown."""
SEGMENT_SCORES = frozenset({"mpauc", "segment_f1_optimal"})
"""Those that take longer to count than all the rest."""
CLASS_FIGURES = {
    "psds1": "PSDS1",
    "psds2": "PSDS2",
    "event_f1": "event F1",
    "event_precision": "precision",
    "event_recall": "recall",
    "segment_f1": "segment F1",
    "clip_f1": "clip F1",
    "pauc": "pAUC",
    "segment_f1_optimal": "best segment F1",
}
"""The same for those of single classes."""


def read_metrics(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A run's ``metrics.json``; files of earlier versions call the figures on the test set ``validation``.

    Raises:
        InputError: it cannot be read.
    """
    metrics = dict(read_json(path))
    if "validation" in metrics:
        metrics.setdefault("test", metrics.pop("validation"))
    return metrics
