"""Reports people look at: one HTML file each, with its data, sound and scripts inside and nothing to fetch."""

from pmam_plugin.report.detections import DetectedRecording, write_detection_report
from pmam_plugin.report.training import ClipExample, StageRecord, TrainingReport, write_training_report

__all__ = [
    "ClipExample",
    "DetectedRecording",
    "StageRecord",
    "TrainingReport",
    "write_detection_report",
    "write_training_report",
]
