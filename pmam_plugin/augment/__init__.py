"""Label-aware augmentation of batches: every object is called as ``augmentation(features, targets)``.

See :mod:`pmam_plugin.augment.base` for what features and targets are.
"""

from pmam_plugin.augment.base import Augmentation, Compose, Features, Targets
from pmam_plugin.augment.frequency import (
    FilterAugment,
    FrequencyDistortion,
    FrequencyMask,
    FrequencyShift,
    FrequencyWarp,
    distort_frequency,
    filter_augment_gain,
    shift_frequency,
    warp_frequency,
)
from pmam_plugin.augment.mixing import ConditionalMixup, MixPlan, Mixup, draw_partners
from pmam_plugin.augment.time import FrameShift, roll_frames

__all__ = [
    "Augmentation",
    "Compose",
    "ConditionalMixup",
    "Features",
    "FilterAugment",
    "FrameShift",
    "FrequencyDistortion",
    "FrequencyMask",
    "FrequencyShift",
    "FrequencyWarp",
    "MixPlan",
    "Mixup",
    "Targets",
    "distort_frequency",
    "draw_partners",
    "filter_augment_gain",
    "roll_frames",
    "shift_frequency",
    "warp_frequency",
]
