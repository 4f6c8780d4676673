"""Any recording -> samples: one reader, one notion of a clip's name, one list of endings."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmam_plugin.audio.reading import (
        AudioInfo,
        AudioPath,
        as_mono,
        audio_info,
        fit_length,
        read_audio,
        to_mono_resampled,
        write_wav,
    )

__all__ = [
    "AudioInfo",
    "AudioPath",
    "as_mono",
    "audio_info",
    "fit_length",
    "read_audio",
    "to_mono_resampled",
    "write_wav",
]


def __getattr__(name: str) -> Any:
    # Names of clips are needed where nothing is decoded; they must not wait for torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pmam_plugin.audio import reading

    return getattr(reading, name)
