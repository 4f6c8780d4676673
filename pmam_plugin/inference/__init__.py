"""From recordings to events: one way to scores, in windows, which the detector, streams and validation all take.

Besides, export as ONNX, and the choice of passages that are worth labelling next.
"""

from pmam_plugin.inference.detector import Progress, Result, SoundEventDetector
from pmam_plugin.inference.scoring import ScoredClip, Scorer
from pmam_plugin.postprocessing import Scoring

__all__ = ["Progress", "Result", "ScoredClip", "Scorer", "Scoring", "SoundEventDetector"]
