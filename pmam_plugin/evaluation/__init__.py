"""From scores and events to figures: PSDS and F1 scores with confidence intervals, and every mistake by itself.

Filters and thresholds are tuned here for the same figures.
"""

from pmam_plugin.evaluation.figures import read_metrics
from pmam_plugin.evaluation.metrics import evaluate_events, evaluate_operating_points, evaluate_scores
from pmam_plugin.evaluation.psds import PSDROC, psd_roc
from pmam_plugin.evaluation.tuning import tune_segments, tune_thresholds
from pmam_plugin.tables import read_durations, read_events, read_weak, write_events
from pmam_plugin.tables.scores import read_operating_points, read_scores, write_scores

__all__ = [
    "PSDROC",
    "evaluate_events",
    "evaluate_operating_points",
    "evaluate_scores",
    "psd_roc",
    "read_durations",
    "read_events",
    "read_metrics",
    "read_operating_points",
    "read_scores",
    "read_weak",
    "tune_segments",
    "tune_thresholds",
    "write_events",
    "write_scores",
]
