"""What a model carries with it beside its weights: filters, boxes, thresholds; :class:`Scoring` is all of it."""

from pmam_plugin.postprocessing.boxes import SoundEventBoxes
from pmam_plugin.postprocessing.filters import PostProcessing
from pmam_plugin.postprocessing.per_class import PerClass, class_table, per_class
from pmam_plugin.postprocessing.rows import EventRows, ScoreRows
from pmam_plugin.postprocessing.scoring import Scoring

__all__ = [
    "EventRows",
    "PerClass",
    "PostProcessing",
    "ScoreRows",
    "Scoring",
    "SoundEventBoxes",
    "class_table",
    "per_class",
]
