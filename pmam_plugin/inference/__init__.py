"""From recordings to events: the detector, streams, recordings of any length, event files, export."""

from pmam_plugin.inference.detector import Progress, Result, SoundEventDetector

__all__ = ["Progress", "Result", "SoundEventDetector"]
