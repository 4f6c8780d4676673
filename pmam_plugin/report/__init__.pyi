from .detections import DetectedRecording as DetectedRecording
from .detections import write_detection_report as write_detection_report
from .training import ClipExample as ClipExample
from .training import StageRecord as StageRecord
from .training import TrainingReport as TrainingReport
from .training import write_training_report as write_training_report
