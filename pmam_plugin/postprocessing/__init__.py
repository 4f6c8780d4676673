"""What a model carries with it beside its weights: weak mask, filters, bounding boxes, thresholds."""

from pmam_plugin.postprocessing.boxes import SoundEventBoxes
from pmam_plugin.postprocessing.filters import PostProcessing
from pmam_plugin.postprocessing.per_class import PerClass, class_table, per_class

__all__ = ["PerClass", "PostProcessing", "SoundEventBoxes", "class_table", "per_class"]
