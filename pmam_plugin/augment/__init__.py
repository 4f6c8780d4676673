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
from pmam_plugin.augment.mixing import ConditionalMixup, MixPlan, Mixup, draw_partners, mix, part_groups
from pmam_plugin.augment.noise import AdditiveNoise, add_band_noise
from pmam_plugin.augment.time import FrameShift, TimeMask, roll_frames

__all__ = [
    "AdditiveNoise",
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
    "TimeMask",
    "add_band_noise",
    "distort_frequency",
    "draw_partners",
    "filter_augment_gain",
    "mix",
    "part_groups",
    "roll_frames",
    "shift_frequency",
    "warp_frequency",
]
