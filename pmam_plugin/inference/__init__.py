"""From recordings to events: the detector, streams, recordings of any length, event files, export."""

from pmam_plugin.inference.detector import Progress, Result, SoundEventDetector
from pmam_plugin.inference.scoring import ScoredClip, Scorer
from pmam_plugin.postprocessing import Scoring

__all__ = ["Progress", "Result", "ScoredClip", "Scorer", "Scoring", "SoundEventDetector"]
