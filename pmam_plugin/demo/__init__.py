"""The built-in corpus: sounds synthesised from nothing, mixed into soundscapes, in DESED's layout."""

from pmam_plugin.demo.sounds import SOUNDS
from pmam_plugin.demo.soundscapes import Counts, build_corpus, soundscape

__all__ = ["SOUNDS", "Counts", "build_corpus", "soundscape"]
