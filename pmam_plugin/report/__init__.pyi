from .detections import DetectedRecording as DetectedRecording, write_detection_report as write_detection_report
from .training import (
    ClipExample as ClipExample,
    StageRecord as StageRecord,
    TrainingReport as TrainingReport,
    write_training_report as write_training_report,
)
