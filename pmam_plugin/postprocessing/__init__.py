"""What a model carries with it beside its weights: weak mask, filters, bounding boxes, thresholds."""

from pmam_plugin.postprocessing.boxes import SoundEventBoxes
from pmam_plugin.postprocessing.filters import PostProcessing
from pmam_plugin.postprocessing.per_class import PerClass, class_table, per_class
from pmam_plugin.postprocessing.rows import EventRows, ScoreRows

__all__ = ["EventRows", "PerClass", "PostProcessing", "ScoreRows", "SoundEventBoxes", "class_table", "per_class"]
