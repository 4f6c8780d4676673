"""The field's corpora, from their official downloads to DESED's layout, one function each."""

from pmam_plugin.data.corpora.audioset import audioset_strong
from pmam_plugin.data.corpora.base import Corpus, Reader, Recording, write_corpus
from pmam_plugin.data.corpora.clip_labelled import esc50, urbansound8k
from pmam_plugin.data.corpora.dcase import dcase2018_task5, maestro_real, tut_sound_events
from pmam_plugin.data.corpora.hugging_face import hugging_face
from pmam_plugin.data.corpora.shards import webdataset
from pmam_plugin.data.corpora.urban_sed import urban_sed

CORPORA: dict[str, Reader] = {
    "audioset-strong": audioset_strong,
    "urban-sed": urban_sed,
    "maestro-real": maestro_real,
    "urbansound8k": urbansound8k,
    "esc50": esc50,
    "tut-sound-events": tut_sound_events,
    "dcase2018-task5": dcase2018_task5,
    "webdataset": webdataset,
    "hugging-face": hugging_face,
}
"""Readers by the name that ``pmam corpus`` knows them by."""

__all__ = ["CORPORA", "Corpus", "Reader", "Recording", "write_corpus", *sorted(f.__name__ for f in CORPORA.values())]
