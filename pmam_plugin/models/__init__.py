"""Full models: what training stages train and ``from_pretrained`` builds."""

from pmam_plugin.models.base import Detection, SoundEventModel

__all__ = [
    "Detection",
    "SoundEventModel",
]
