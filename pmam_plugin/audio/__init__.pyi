from .reader import AudioPath as AudioPath, AudioReader as AudioReader
from .reading import (
    AudioInfo as AudioInfo,
    audio_blocks as audio_blocks,
    audio_info as audio_info,
    read_audio as read_audio,
    write_wav as write_wav,
)
from .resampling import (
    MonoResampler as MonoResampler,
    as_mono as as_mono,
    fit_length as fit_length,
    to_mono_resampled as to_mono_resampled,
)
