"""Any recording -> samples: one reader, one notion of a clip's name, one list of endings."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmam_plugin.audio.reader import AudioPath, AudioReader
    from pmam_plugin.audio.reading import AudioInfo, audio_blocks, audio_info, read_audio, write_wav
    from pmam_plugin.audio.resampling import MonoResampler, as_mono, fit_length, to_mono_resampled

_HOMES = {
    **dict.fromkeys(("AudioPath", "AudioReader"), "reader"),
    **dict.fromkeys(("AudioInfo", "audio_blocks", "audio_info", "read_audio", "write_wav"), "reading"),
    **dict.fromkeys(("MonoResampler", "as_mono", "fit_length", "to_mono_resampled"), "resampling"),
}
__all__ = [
    "AudioInfo",
    "AudioPath",
    "AudioReader",
    "MonoResampler",
    "as_mono",
    "audio_blocks",
    "audio_info",
    "fit_length",
    "read_audio",
    "to_mono_resampled",
    "write_wav",
]


def __getattr__(name: str) -> Any:
    # Names of clips are needed where nothing is decoded; they must not wait for torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pmam_plugin.audio.{_HOMES[name]}"), name)
