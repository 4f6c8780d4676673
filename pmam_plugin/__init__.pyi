from .checkpoints import load_model as load_model
from .inference import SoundEventDetector as SoundEventDetector

__version__: str
