from .detections import write_detection_report as write_detection_report
from .recording import DetectedRecording as DetectedRecording
from .training import (
    StageSummary as StageSummary,
    TrainingReport as TrainingReport,
    write_training_report as write_training_report,
)
